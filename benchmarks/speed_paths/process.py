"""A process of the catalogue, without HTTP, with some speed paths off, and with orders over a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.books import PAGE_SIZE, title
from benchmarks.catalogue import answered_by_redis
from benchmarks.cores import ARE_PINNED
from benchmarks.repeated import many_at_once
from benchmarks.runner import Sample
from benchmarks.speed_paths.names import all_modules
from benchmarks.speed_paths.paths import switch_off
from demo_app.catalogue import create_catalogue
from demo_app.messages import AddBook, BookChanges, EditBook, GetBook, ListBooks
from diptych import Diptych, Document, Page, build

_STEP = 7
"""Number of books between two places in the list from which pages are asked for."""

Act = Callable[[int], Awaitable[object]]


class Acts:
    """The work to be measured, by name: commands, and queries whose answers have to come from the ``store``."""

    def __init__(self, app: Diptych, books: int, store: str, first: int) -> None:
        self._app = app
        self._books = books
        self._store = store
        self._first = first
        self._stock = itertools.count(1000)
        # Processes that share a database add books of other numbers.
        self._new = itertools.count(os.getpid() * 1_000_000)
        self._asked = itertools.count()
        self._cursors: list[str | None] = [None]

    async def edit(self, client: int) -> None:
        """Changes a book of this client."""
        changes = BookChanges(stock_quantity=next(self._stock))
        assert await self._app.execute(EditBook(title(self._first + client), changes)) is not None

    async def add(self, _client: int) -> None:
        """Adds a book."""
        number = next(self._new)
        await self._app.execute(AddBook(title(number), "Author", isbn=f"{number:013d}"[-13:]))

    async def get(self, _client: int) -> None:
        """Asks for a book, each time for the next."""
        self._check(await self._app.ask(GetBook(title(next(self._asked) % self._books))))

    async def get_built(self, _client: int) -> None:
        """The same, with a query made of fields from outside."""
        fields = {"title": title(next(self._asked) % self._books)}
        self._check(await self._app.ask(build(GetBook, fields)))

    async def get_same(self, _client: int) -> None:
        """Asks for the same book, as everybody does."""
        self._check(await self._app.ask(GetBook(title(7))))

    async def page(self, _client: int) -> None:
        """Asks for a page, each time from another place: equal queries that wait would be executed once."""
        after = self._cursors[next(self._asked) % len(self._cursors)]
        self._check(await self._app.ask(ListBooks(limit=PAGE_SIZE, after=after)))

    async def find_cursors(self) -> None:
        """Finds places all over the list, for ``page``."""
        after: str | None = None
        while len(self._cursors) * _STEP < self._books - PAGE_SIZE:
            after = (await self._app.ask(ListBooks(limit=_STEP, after=after))).decode().next
            self._cursors.append(after)

    def _check(self, found: Document[Any] | Page[Any]) -> None:
        assert found.body is not None
        assert found.served.store == self._store, found.served

    async def measure(self, act: str, clients: int, seconds: float) -> Sample:
        """Performs the act of this name again and again, with so many clients at once."""
        perform: Act = getattr(self, act)
        sample = await many_at_once(perform, clients, seconds)
        rate, median, cpu = sample.values()
        return {"a second": rate, "median, ms": median, "its CPU, µs each": cpu}


class Setting(NamedTuple):
    """The setting of a process: paths that are off, environment, cores, number of books, first book of its own."""

    off: tuple[str, ...]
    environment: Mapping[str, str]
    cores: set[int]
    books: int
    first: int


class Worker:
    """The benchmark's end of a running process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def measure(self, act: str, clients: int, seconds: float) -> Sample:
        """Gives an order and returns the sample."""
        self._pipe.send((act, clients, seconds))
        sample: Sample = await self.answer()
        return sample

    async def answer(self) -> Any:
        """Returns the next answer. Raises ``EOFError`` if the process has ended; its error stands above."""
        return await asyncio.to_thread(self._pipe.recv)


@contextlib.asynccontextmanager
async def working(setting: Setting) -> AsyncIterator[Worker]:
    """Starts a process, and waits until the process is ready.

    All are forked from a process with the modules loaded and nothing else done, to save a second each.
    """
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload([__name__])
    ours, theirs = forking.Pipe()
    process = forking.Process(target=_run, args=(setting, theirs))
    process.start()
    theirs.close()
    worker = Worker(ours)
    try:
        await worker.answer()
        yield worker
    finally:
        ours.close()
        await asyncio.to_thread(process.join)


def _run(setting: Setting, orders: Connection) -> None:
    if ARE_PINNED:
        os.sched_setaffinity(0, setting.cores)
    os.environ.clear()
    os.environ.update(setting.environment)
    switch_off(setting.off)
    with tempfile.TemporaryDirectory() as folder:  # no settings of an application lie there
        os.chdir(folder)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner, contextlib.suppress(EOFError):
            runner.run(_take(setting, orders))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Returns the factory of event loops of ``diptych run``."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _take(setting: Setting, orders: Connection) -> None:
    async with create_catalogue() as app:
        store = "redis" if "DIPTYCH_REDIS_URL" in setting.environment else "sql"
        if store == "redis":
            await answered_by_redis(app, 2)
        acts = Acts(app, setting.books, store, setting.first)
        await acts.find_cursors()
        orders.send("ready")
        while True:
            orders.send(await acts.measure(*await asyncio.to_thread(orders.recv)))


all_modules()  # before any process is forked
