"""The command ``rebuild``: a read model is built anew while it serves."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import rich_click as click

from diptych.cli.options import app_option, chosen_model, errors_told, factory_option, loaded
from diptych.cli.progress import Tell, shown

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.read.model import ReadModel


@click.command()
@click.argument("read_model", metavar="READ_MODEL")
@app_option
@factory_option
def rebuild(read_model: str, app: str, factory: bool) -> None:
    """Build a read model anew from SQL, such as BookReadModel, while it goes on serving.

    Needed after a change of SQLite that nobody can notice: a file that was edited, or a backup restored into the open
    file. Raw SQL and migrations are captured. `diptych verify` tells whether a rebuild is needed. Run it where the
    application runs, with the same settings. Stopped with Ctrl+C, it leaves everything as it was.

    Ends with 0 when it is done, 1 if it cannot be done (Redis or SQL is away, Redis has not the memory, another
    rebuild was faster), and 2 if what was asked for is wrong (no such read model, no REDIS_URL).
    """
    signals: list[int] = []
    with errors_told():
        application = loaded(app, factory)
        model = chosen_model(application, read_model, "rebuild")
        started = time.monotonic()
        try:
            with shown(read_model, "rebuilding", "documents") as tell:
                count = asyncio.run(_rebuild(application, model, tell, signals))
        except asyncio.CancelledError:
            print(f"Stopped: {read_model} is served as before.", file=sys.stderr)
            raise SystemExit(128 + signals[0]) from None
    print(f"{read_model}: rebuilt, {count} documents in {time.monotonic() - started:.1f} s")


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
