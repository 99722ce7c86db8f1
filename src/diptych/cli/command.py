"""The command ``diptych`` and its commands: ``run``, ``settings``, ``check``, ``rebuild``, ``migrate`` …"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import rich_click as click

from diptych.cli.commands.check import checked
from diptych.cli.commands.log import log
from diptych.cli.commands.migrate import migrated, uninstalled
from diptych.cli.commands.rebuild import rebuild
from diptych.cli.commands.settings import settings
from diptych.cli.commands.status import status
from diptych.cli.options import app_option, check_redis, chosen_model, errors_told, factory_option, loaded
from diptych.cli.output import end_stopped
from diptych.cli.server import serve
from diptych.config.settings import LOG_FORMATS, LOG_LEVELS


def _version() -> str:
    try:
        return version("diptych")
    except PackageNotFoundError:
        return "(not installed)"


class _Commands(click.RichGroup):
    """Commands that Ctrl+C ends with the exit code for that: 1 has a meaning of its own for many of them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            end_stopped()


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
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
@click.option(
    "--reload", is_flag=True, help="Start anew when a Python or TOML file of this directory is changed."
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    help="Least level of log lines.  [default: the setting LOG_LEVEL, or info]",
)
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS, case_sensitive=False),
    help="Form of log lines.  [default: the setting LOG_FORMAT, or text]",
)
def run(**options: Any) -> None:
    """Serve an ASGI application, such as demo_app.app:app, until it is stopped.

    Ends with 0 when it is stopped with Ctrl+C or SIGTERM, 1 if it cannot go on (the port is in use, the
    application fails to start), and 2 if what was asked for is wrong (no such module, a faulty setting).
    """
    serve(**options)


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
    from diptych.cli.commands.verify import verify_read_models

    with errors_told(exit_code=2):
        application = loaded(app, factory)
        check_redis(application, "verify")
        models = application.read_models
        if read_model is not None:
            models = (chosen_model(application, read_model, "verify"),)
        exit_code = verify_read_models(application, models, repair=repair, as_json=as_json)
    raise SystemExit(exit_code)


diptych.add_command(rebuild)
diptych.add_command(settings)
diptych.add_command(status)
diptych.add_command(log)
