"""The command ``diptych run``: serves an application."""

from __future__ import annotations

import rich_click as click

from diptych.cli.server import serve


@click.command()
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
def run(
    target: str,
    host: str,
    port: int,
    workers: int | None,
    redis: str | None,
    factory: bool,
    access_log: bool,
) -> None:
    """Serve an ASGI application, such as demo_app.app:app, until it is stopped.

    Ends with 0 when it is stopped with Ctrl+C or SIGTERM, 1 if it cannot go on (the port is in use, the
    application fails to start), and 2 if what was asked for is wrong (no such module, a faulty setting).
    """
    serve(
        target,
        host=host,
        port=port,
        workers=workers,
        redis=redis,
        factory=factory,
        access_log=access_log,
    )
