"""The command ``diptych settings``: shows every setting, its value and the layer of the value."""

from __future__ import annotations

import sys

import rich_click as click
from rich.console import Console
from rich.table import Table

from diptych.config.service import ConfigService
from diptych.errors import ConfigurationError


@click.command()
def settings() -> None:
    """Show every setting, its value, and where that comes from.

    Read as an application in this directory reads them: defaults, then ./diptych.toml or the file that
    DIPTYCH_CONFIG names, then the DIPTYCH_… environment variables. Passwords are not shown.
    """
    try:
        config = ConfigService()
    except ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    console = Console()
    if not console.is_terminal:
        for setting, value, layer in config.describe():
            print(setting.name, value, layer, sep="\t")
        return
    console.print(_table(config))


def _table(config: ConfigService) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("From", overflow="fold")
    for setting, value, layer in config.describe():
        table.add_row(setting.name, value, layer, style="dim" if layer == "default" else None)
    return table
