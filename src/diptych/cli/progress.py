"""The progress of a command: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

_LINE_S = 2.0
"""Time between two lines about the progress, in seconds."""


class Progress(Protocol):
    """The progress of long work: ``done`` steps of about ``total``, after so many seconds."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def time_left_s(self) -> float | None: ...


Tell = Callable[[Progress], None]


@contextlib.contextmanager
def shown(name: str, doing: str, what: str) -> Iterator[Tell]:
    """Yields the function for showing the progress of ``doing`` something with ``name``, in units called ``what``."""
    console = Console()
    # What is forced to have colours is no terminal yet: FORCE_COLOR is often set where output goes to a file.
    if not (sys.stdout.isatty() and console.is_terminal):
        print(f"{name}: {doing}", flush=True)
        told = time.monotonic()

        def tell_in_lines(progress: Progress) -> None:
            nonlocal told
            if time.monotonic() - told >= _LINE_S:
                told = time.monotonic()
                print(f"{name}: {_worded(progress, what)}", flush=True)

        yield tell_in_lines
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
            bar.update(task, completed=progress.done, total=progress.total, text=_worded(progress, what))

        yield tell


def _worded(progress: Progress, what: str) -> str:
    left = "" if progress.time_left_s is None else f", about {progress.time_left_s:.0f} s left"
    rate = progress.done / max(progress.seconds, 0.001)
    return f"{progress.done} of {progress.total} {what}, {rate:.0f} a second{left}"
