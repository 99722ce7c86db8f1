"""The command ``diptych`` and its commands."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import rich_click as click

from diptych.cli.rebuild import rebuild
from diptych.cli.run import run
from diptych.cli.settings import settings


def _version() -> str:
    try:
        return version("diptych")
    except PackageNotFoundError:
        return "(not installed)"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), message="%(prog)s %(version)s")
def diptych() -> None:
    """Commands go into SQL, queries are answered from Redis, and diptych keeps the two in agreement."""


diptych.add_command(run)
diptych.add_command(rebuild)
diptych.add_command(settings)
