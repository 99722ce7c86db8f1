"""Starts jobs (``benchmarks.jobs``) as processes of a tree, which stay up and do what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Self

import msgspec

from benchmarks.cores import on_cores, server_core
from benchmarks.jobs.orders import Order
from benchmarks.runner import Candidate, Sample
from benchmarks.trees import Tree


class Worker:
    """A job that runs."""

    def __init__(self, tree: Tree, job: str, process: asyncio.subprocess.Process) -> None:
        self._tree = tree
        self._job = job
        self._process = process

    async def ask(self, name: str, **arguments: Any) -> Any:
        """Gives an order and returns what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(Order(name, arguments)) + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        """The next line that it writes."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"the job {self._job} of {self._tree.name} has ended; what it said stands above"
        return msgspec.json.decode(line)


class Processes:
    """So many workers of a tree, to be entered. They begin anew every few rounds: what chance gives to a process,
    such as where its memory lies, is then not taken for what the tree costs.
    """

    def __init__(self, tree: Tree, job: str, count: int = 1, **variables: Any) -> None:
        self._start = partial(working, tree, job, **variables)
        self._count = count
        self._running = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    def measured(self, rounds: int, order: Callable[[Sequence[Worker]], Awaitable[Sample]]) -> Candidate:
        """A candidate that gives the workers this order, and warms them up itself. They live for so many rounds."""
        workers: list[Worker] = []
        numbers = itertools.count()

        async def measure() -> Sample:
            if next(numbers) % rounds == 0:
                workers[:] = await self._anew()
                await order(workers)
            return await order(workers)

        return measure

    async def _anew(self) -> list[Worker]:
        await self._running.aclose()
        return [await self._running.enter_async_context(self._start()) for _ in range(self._count)]


@contextlib.asynccontextmanager
async def working(tree: Tree, job: str, *, pinned: bool = True, **variables: str) -> AsyncIterator[Worker]:
    """Starts a job, and waits until it is ready. It ends when nobody can order any more.

    It runs on the core of servers; on any core unless it is ``pinned``.
    """
    with tempfile.TemporaryDirectory() as folder:
        with on_cores(server_core() if pinned else None):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"benchmarks.jobs.{job}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=folder,  # no settings of an application lie there
                env=tree.environment(**variables),
            )
        worker = Worker(tree, job, process)
        try:
            tree.check(*await worker.answer())
            yield worker
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()
