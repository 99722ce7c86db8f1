"""The command ``diptych`` and its commands: ``run``, ``settings``, ``check``, ``rebuild``, ``migrate`` …"""

from __future__ import annotations

import asyncio
import difflib
import logging
import signal
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console
from rich.table import Table

from diptych.cli.check import checked
from diptych.cli.log import log
from diptych.cli.migrate import migrated, uninstalled
from diptych.cli.options import app_option, errors_told, factory_option, loaded
from diptych.cli.progress import Tell, shown
from diptych.cli.server import serve
from diptych.cli.status import status
from diptych.cli.target import CommandError, exit_code_of
from diptych.cli.worker import explain
from diptych.config.service import ConfigService
from diptych.errors import ConfigurationError

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.read.model import ReadModel


def _version() -> str:
    try:
        return version("diptych")
    except PackageNotFoundError:
        return "(not installed)"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), message="%(prog)s %(version)s")
def diptych() -> None:
    """Commands go into SQL, queries are answered from Redis, and diptych keeps the two in agreement."""


@diptych.command()
@click.argument("target", metavar="MODULE:ATTRIBUTE")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    help="Port to listen at; 0 takes any free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1_000),
    help="Processes that serve.  [default: the setting WORKERS, or 1]",
)
@click.option(
    "--redis",
    metavar="embedded|none|URL",
    help="embedded runs a Valkey for as long as the application runs; none leaves every query to SQL. "
    "Put a URL with a password into DIPTYCH_REDIS_URL instead, where other users cannot see it.  "
    "[default: the setting REDIS_URL]",
)
@click.option("--factory", is_flag=True, help="ATTRIBUTE is a function that returns the application.")
@click.option("--access-log", is_flag=True, help="Write a line for every request.")
def run(**options: Any) -> None:
    """Serve an ASGI application, such as demo_app.app:app, until it is stopped.

    Ends with 0 when it is stopped with Ctrl+C or SIGTERM, 1 if it cannot go on (the port is in use, the
    application fails to start), and 2 if what was asked for is wrong (no such module, a faulty setting).
    """
    serve(**options)


@diptych.command()
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


_sql = click.option("--sql", is_flag=True, help="Print the statements, and do nothing.")


@diptych.command()
@app_option
@factory_option
@_sql
@click.option(
    "--role",
    metavar="ROLE",
    help="Role of PostgreSQL that the application runs as, which is given the rights that it needs.  "
    "[default: with --sql, that of DATABASE_URL]",
)
def migrate(app: str, factory: bool, sql: bool, role: str | None) -> None:
    """Make or upgrade diptych's own tables, and the triggers on the tables of the read models.

    A start does the same by itself where its role may. Where it may not, let the owner of the tables run this, or
    what --sql prints, with psql or sqlite3. The application's own tables are left to its migrations.

    Ends with 0 when all is as it should be, 1 if it cannot be done, and 2 if what was asked for is wrong.
    """
    with errors_told():
        print(migrated(loaded(app, factory), sql=sql, role=role))


@diptych.command()
@app_option
@factory_option
@_sql
def uninstall(app: str, factory: bool, sql: bool) -> None:
    """Take away diptych's part of the database: its tables, the change log too, its triggers and functions.

    Stop the application first. The application's own tables are left as they are.

    Ends with 0 when nothing is left, 1 if it cannot be done, and 2 if what was asked for is wrong.
    """
    with errors_told():
        print(uninstalled(loaded(app, factory), sql=sql))


@diptych.command()
@app_option
@factory_option
def check(app: str, factory: bool) -> None:
    """Name each list of a read model whose SQL no index serves, with the index to create.

    For CI: run it against a database that the migrations have made. Redis is not needed, and nothing is changed.

    Ends with 0 when an index serves each list, 1 if one is missing, and 2 if that cannot be found out.
    """
    with errors_told(exit_code=2):
        found = checked(loaded(app, factory))
    print(found.report)
    if not found.is_good:
        raise SystemExit(1)


@diptych.command()
@click.argument("read_model", metavar="READ_MODEL")
@app_option
@factory_option
def rebuild(read_model: str, app: str, factory: bool) -> None:
    """Build a read model anew from SQL, such as BookReadModel, while it goes on serving.

    Needed after rows were changed past diptych: by raw SQL, by a migration, by a restored backup. Run it where
    the application runs, with the same settings. Stopped with Ctrl+C, it leaves everything as it was.

    Ends with 0 when it is done, 1 if it cannot be done (Redis or SQL is away, Redis has not the memory, another
    rebuild was faster), and 2 if what was asked for is wrong (no such read model, no REDIS_URL).
    """
    # The error that ends this command says better what the stores log. An application's own logging stays.
    logging.getLogger("diptych").addHandler(logging.NullHandler())
    signals: list[int] = []
    try:
        application = loaded(app, factory)
        model = _chosen(application, read_model, "rebuild")
        started = time.monotonic()
        with shown(read_model, "rebuilding", "documents") as tell:
            count = asyncio.run(_rebuild(application, model, tell, signals))
    except asyncio.CancelledError:
        print(f"Stopped: {read_model} is served as before.", file=sys.stderr)
        raise SystemExit(128 + signals[0]) from None
    except Exception as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        raise SystemExit(exit_code_of(error)) from None
    print(f"{read_model}: rebuilt, {count} documents in {time.monotonic() - started:.1f} s")


def _chosen(application: Diptych, name: str, doing: str) -> type[ReadModel[Any]]:
    models = {model.__name__: model for model in application.read_models}
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1)
        known = f"there are {', '.join(models) or 'none'}"
        hint = f'; did you mean "{close[0]}"? T{known[1:]}' if close else f": {known}"
        raise CommandError(f'there is no read model "{name}"{hint}', 2)
    _check_redis(application, doing)
    return models[name]


def _check_redis(application: Diptych, doing: str) -> None:
    if application.config.settings.redis_url is None:
        raise ConfigurationError("REDIS_URL", f"is not set: SQL answers, and there is nothing to {doing}")


@diptych.command()
@click.argument("read_model", metavar="[READ_MODEL]", required=False)
@app_option
@factory_option
@click.option("--repair", is_flag=True, help="Write each document that differs anew, and compare it again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing meanwhile.")
def verify(read_model: str | None, app: str, factory: bool, repair: bool, as_json: bool) -> None:
    """Compare Redis with SQL while writes go on: a read model, such as BookReadModel, or all of them.

    Run it where the application runs, with the same settings, while it runs. A difference counts if it lasts: that of
    a write under way does not. Nothing is changed without --repair.

    Ends with 0 if there is no difference, or all were repaired, 1 if there are some, and 2 if what was asked for is
    wrong or that cannot be found out (Redis or SQL is away, no lease is in Redis).
    """
    from diptych.cli.verify import verify_read_models

    with errors_told(exit_code=2):
        application = loaded(app, factory)
        _check_redis(application, "verify")
        models = application.read_models
        if read_model is not None:
            models = (_chosen(application, read_model, "verify"),)
        try:
            exit_code = verify_read_models(application, models, repair=repair, as_json=as_json)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            exit_code = 128 + signal.SIGINT
    raise SystemExit(exit_code)


async def _rebuild(application: Diptych, model: type[ReadModel[Any]], tell: Tell, signals: list[int]) -> int:
    """Runs the rebuild. A signal cancels it, and is noted in ``signals``."""

    async def rebuild() -> int:
        async with application:
            return await application.rebuild(model, tell)

    def stop(number: int) -> None:
        signals.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    task = loop.create_task(rebuild())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return await task


diptych.add_command(status)
diptych.add_command(log)
