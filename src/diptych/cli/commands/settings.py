"""The command ``settings``: each setting with its value, the origin of the value, and the meaning."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

import rich_click as click
from rich.console import Console
from rich.text import Text

from diptych.cli.options import json_option
from diptych.cli.output import print_json
from diptych.config.service import ConfigService
from diptych.config.setting import Setting
from diptych.errors import ConfigurationError

_WIDTH = 100
"""The longest line, in characters."""
_NARROWEST = 20
"""The width, in characters, below which a terminal breaks the lines by itself: an unknown width is told as 0."""


@click.command()
@json_option
def settings(as_json: bool) -> None:
    """Show every setting: value, origin of the value, default, and meaning.

    Read as an application in this directory reads them: defaults, then ./diptych.toml or the file that
    DIPTYCH_CONFIG names, then the DIPTYCH_… environment variables. Arguments that an application gives its
    ConfigService are not seen here. Passwords are not shown.
    """
    try:
        config = ConfigService()
    except ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    described = config.describe()
    if as_json:
        print_json([_row(setting, value, layer) for setting, value, layer in described])
        return
    console = Console(width=max(_NARROWEST, min(_WIDTH, Console().width)), highlight=False)
    for setting, value, layer in described:
        console.print(_explained(setting, value, layer, console.width), soft_wrap=True)


def _row(setting: Setting, value: str, layer: str) -> dict[str, Any]:
    return {
        "name": setting.name,
        "value": value,
        "from": layer,
        "default": setting.show(setting.default),
        "type": setting.label,
        "variable": setting.variable,
        "meaning": setting.doc,
    }


def _explained(setting: Setting, value: str, layer: str, width: int) -> Text:
    is_set = layer != "default"
    head = Text.assemble((setting.name, "bold"), " = ", (value, "bold" if is_set else ""), f"  ({layer})\n")
    facts = f"{setting.label[:1].upper()}{setting.label[1:]}. By default {setting.show(setting.default)}."
    for paragraph in (setting.doc, f"{facts} {setting.variable}"):
        lines = textwrap.wrap(paragraph, width - 4, break_long_words=False, break_on_hyphens=False)
        head.append("".join(f"    {line}\n" for line in lines), "dim")
    return head
