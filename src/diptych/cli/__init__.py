"""The command line: ``main`` is the command ``diptych``; ``serve`` is for an application's own command."""

from __future__ import annotations

import sys

from diptych.cli.embedded import embedded_available
from diptych.cli.output import end_stopped, forgiving_output
from diptych.cli.served import Serving
from diptych.cli.server import serve
from diptych.errors import MissingExtraError

__all__ = ["Serving", "embedded_available", "main", "serve"]


def main() -> None:
    """Runs the command ``diptych`` with the arguments of the process, and ends the process."""
    with forgiving_output():
        try:
            from diptych.cli.command import diptych
        except ModuleNotFoundError as error:
            if error.name not in ("click", "rich", "rich_click"):
                raise
            sys.exit(f"Error: {MissingExtraError('the command diptych', 'cli', error.name)}")
        except KeyboardInterrupt:
            end_stopped()
        diptych(prog_name="diptych")
