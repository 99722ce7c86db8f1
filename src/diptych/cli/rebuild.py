"""The command ``diptych rebuild``: builds a read model anew from SQL while an application serves."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from diptych.cli.target import TargetError, add_current_directory, check_target, load_diptych
from diptych.cli.worker import explain
from diptych.errors import ConfigurationError

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.hinge.status import Progress
    from diptych.read.model import ReadModel

_LINE_S = 2.0
"""Time between two lines about the progress, in seconds."""

Tell = Callable[["Progress"], None]


@click.command()
@click.argument("read_model", metavar="READ_MODEL")
@click.option(
    "--app",
    metavar="MODULE:ATTRIBUTE",
    envvar="DIPTYCH_APP",
    show_envvar=True,
    required=True,
    help="Where the Diptych is: itself, a function that returns it, or the application that is served.",
)
@click.option(
    "--factory", is_flag=True, help="ATTRIBUTE is to be called. Not needed for a function without arguments."
)
def rebuild(read_model: str, app: str, factory: bool) -> None:
    """Build a read model anew from SQL, such as BookReadModel, while it goes on serving.

    Needed after rows were changed past diptych: by raw SQL, by a migration, by a restored backup. Run it where
    the application runs, with the same settings. Stopped with Ctrl+C, it leaves everything as it was.

    Ends with 0 when it is done, 1 if it cannot be done (Redis or SQL is away, Redis has not the memory, another
    rebuild was faster), and 2 if what was asked for is wrong (no such read model, no REDIS_URL).
    """
    # The error that ends this command says better what the stores log. An application's own logging stays.
    logging.getLogger("diptych").addHandler(logging.NullHandler())
    try:
        add_current_directory()
        check_target(app)
        diptych = load_diptych(app, factory)
        model = _chosen(diptych, read_model)
        started = time.monotonic()
        with _shown(read_model) as tell:
            count = asyncio.run(_rebuild(diptych, model, tell))
    except _StoppedError as stopped:
        print(f"Stopped: {read_model} is served as before.", file=sys.stderr)
        raise SystemExit(128 + stopped.signal) from None
    except Exception as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigurationError | TargetError) else 1) from None
    print(f"{read_model}: rebuilt, {count} documents in {time.monotonic() - started:.1f} s")


def _chosen(diptych: Diptych, name: str) -> type[ReadModel[Any]]:
    models = {model.__name__: model for model in diptych.read_models}
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else f": there are {', '.join(models) or 'none'}"
        raise TargetError(f'there is no read model "{name}"{hint}')
    if diptych.config.settings.redis_url is None:
        raise ConfigurationError("REDIS_URL", "is not set: SQL answers, and there is nothing to rebuild")
    return models[name]


async def _rebuild(diptych: Diptych, model: type[ReadModel[Any]], tell: Tell) -> int:
    async def rebuild() -> int:
        async with diptych:
            return await diptych.rebuild(model, tell)

    def stop(number: int) -> None:
        signals.append(number)
        task.cancel()

    signals: list[int] = []
    loop = asyncio.get_running_loop()
    task = loop.create_task(rebuild())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        raise _StoppedError(signals[0]) from None


class _StoppedError(Exception):
    """A rebuild ended by a signal of the user or of the system."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@contextlib.contextmanager
def _shown(name: str) -> Iterator[Tell]:
    """Yields the function for showing the progress: by a bar on a terminal, else by a line now and then."""
    console = Console()
    if not console.is_terminal:
        yield _Lines(name)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None, text="waiting")

        def tell(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, text=_worded(progress))

        yield tell


class _Lines:
    """Progress in lines: a line at the beginning, and a line every two seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = time.monotonic()
        print(f"{name}: rebuilding", flush=True)

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self._told >= _LINE_S:
            self._told = time.monotonic()
            print(f"{self._name}: {_worded(progress)}", flush=True)


def _worded(progress: Progress) -> str:
    left = "" if progress.time_left_s is None else f", about {progress.time_left_s:.0f} s left"
    return f"{progress.done} of {progress.total} documents, {progress.done / progress.seconds:.0f} a second{left}"
