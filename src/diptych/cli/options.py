"""Common parts of the commands of an application: its place, its loading, and the report of errors."""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from diptych.cli.target import CommandError, add_current_directory, check_target, exit_code_of, load_diptych
from diptych.cli.worker import explain
from diptych.errors import ConfigurationError

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.read.model import ReadModel

app_option = click.option(
    "--app",
    metavar="MODULE:ATTRIBUTE",
    envvar="DIPTYCH_APP",
    show_envvar=True,
    required=True,
    help="Where the Diptych is: itself, a function that returns it, or the application that is served, of any "
    "framework.",
)
factory_option = click.option(
    "--factory", is_flag=True, help="ATTRIBUTE is to be called. Not needed for a function without arguments."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")


def loaded(app: str, factory: bool) -> Diptych:
    """Imports and returns the application. Raises ``CommandError``, and any error of the import.

    What the application writes meanwhile goes to standard error: standard output has what the command is asked for.
    """
    add_current_directory()
    check_target(app)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return load_diptych(app, factory)
    except SystemExit as end:
        # It would end the command with a code of the application's, such as 0, as if all had been found in order.
        last = traceback.extract_tb(end.__traceback__)[-1]
        raise CommandError(
            f'"{app}" ends the process while it is loaded ({last.filename}, line {last.lineno}: {last.line}): '
            "a module must be importable without that",
            2,
        ) from None


@contextlib.contextmanager
def errors_told(exit_code: int | None = None) -> Iterator[None]:
    """Ends the process with the text of an error of the block, and with ``exit_code`` or the error's own."""
    # The error that ends a command says better what the stores log, and a connection that Ctrl+C has cut off is no
    # error at all. An application's own logging stays.
    for name in ("diptych", "asyncio"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        yield
    except Exception as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        raise SystemExit(exit_code or exit_code_of(error)) from None


def chosen_model(application: Diptych, name: str, doing: str) -> type[ReadModel[Any]]:
    """Returns the read model of this name. Raises ``CommandError`` without one, and as ``check_redis`` does."""
    models = {model.__name__: model for model in application.read_models}
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1)
        known = f"there are {', '.join(models) or 'none'}"
        hint = f'; did you mean "{close[0]}"? T{known[1:]}' if close else f": {known}"
        raise CommandError(f'there is no read model "{name}"{hint}', 2)
    check_redis(application, doing)
    return models[name]


def check_redis(application: Diptych, doing: str) -> None:
    """Raises ``ConfigurationError`` if the application has no Redis to do this with: ``doing`` is a verb."""
    if application.config.settings.redis_url is None:
        raise ConfigurationError(
            "REDIS_URL",
            f"is not set: SQL answers, and there is nothing to {doing}. Set it to the Redis that the application is "
            "served with; an embedded Valkey belongs to its `diptych run` alone, and is filled anew at each start",
        )
