"""What the bus costs over a bare dict look-up and ``await``, with many messages registered.

One query of one of 200 registered types is sent again and again to a handler that returns one of its fields. The
bare candidate is ``await handlers[type(message)](message)``; the limit is 2 µs above it. ``Diptych.ask`` is that
of a started application on SQLite without Redis.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from functools import partial

from benchmarks.jobs.dispatch import dispatching
from benchmarks.runner import Case, Sample
from benchmarks.trees import Tree
from benchmarks.workers import Processes, Worker

CASE = "One message, one handler"
LIVES = 5
"""So often the processes of a tree begin anew."""


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One case: the two ways to the same handler."""
    rounds, calls = _scale(quick)
    async with dispatching() as (bare, asked):
        candidates = {"bare look-up and await": partial(bare, calls), "Diptych.ask": partial(asked, calls)}
        yield Case(CASE, rounds, candidates)


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """What the bus costs: ``Diptych.ask``, one message of one of 200 registered types again and again."""
    rounds, calls = _scale(quick)
    async with contextlib.AsyncExitStack() as stack:
        candidates = {}
        for tree in trees:
            processes = await stack.enter_async_context(Processes(tree, "dispatch"))
            candidates[tree.name] = processes.measured(-(-rounds // LIVES), partial(_ask, calls))
        yield Case(CASE, rounds, candidates, warm_up=False)


async def _ask(calls: int, workers: Sequence[Worker]) -> Sample:
    sample: Sample = await workers[0].ask("ask", calls=calls)
    return sample


def _scale(quick: bool) -> tuple[int, int]:
    """Rounds, and calls in each."""
    return (15, 2_000) if quick else (201, 20_000)
