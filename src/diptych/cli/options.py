"""What the commands of an application share: where the application is, how it is loaded, and how errors are told."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rich_click as click

from diptych.cli.target import add_current_directory, check_target, exit_code_of, load_diptych
from diptych.cli.worker import explain

if TYPE_CHECKING:
    from diptych.app import Diptych

app_option = click.option(
    "--app",
    metavar="MODULE:ATTRIBUTE",
    envvar="DIPTYCH_APP",
    show_envvar=True,
    required=True,
    help="Where the Diptych is: itself, a function that returns it, or the application that is served.",
)
factory_option = click.option(
    "--factory", is_flag=True, help="ATTRIBUTE is to be called. Not needed for a function without arguments."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")


def loaded(app: str, factory: bool) -> Diptych:
    """Imports and returns the application. Raises ``CommandError``, and any error of the import."""
    add_current_directory()
    check_target(app)
    return load_diptych(app, factory)


@contextlib.contextmanager
def errors_told(exit_code: int | None = None) -> Iterator[None]:
    """Ends the process with the text of an error of the block, and with ``exit_code`` or the error's own."""
    # The error that ends a command says better what the stores log. An application's own logging stays.
    logging.getLogger("diptych").addHandler(logging.NullHandler())
    try:
        yield
    except Exception as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        raise SystemExit(exit_code or exit_code_of(error)) from None
