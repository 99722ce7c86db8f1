"""Which process runs on which core: the server that is measured has one, everything else the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ARE_PINNED = hasattr(os, "sched_setaffinity")
"""Only Linux lets a process be pinned; elsewhere the system moves them about, and figures are less steady."""

_CORES = sorted(os.sched_getaffinity(0)) if ARE_PINNED else [0]
"""As there were when the benchmarks began. Asked while something is started on one, it would be all."""


def server_core() -> set[int]:
    """Where the server runs that is measured; SQLite runs in it."""
    return {_CORES[0]}


def load_core() -> set[int]:
    """Where the load, Valkey and PostgreSQL run. On a machine with one core that is the server's."""
    return {_CORES[-1]}


@contextmanager
def on_cores(cores: set[int] | None) -> Iterator[None]:
    """Processes that are started meanwhile stay on ``cores``; None leaves it to the system."""
    if cores is None or not ARE_PINNED:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
