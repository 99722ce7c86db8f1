"""What it costs a command that readers see it: the fence and the apply to Redis, beside its SQL transaction alone.

The command changes one book of a catalogue of books alone (``tests/books.py``), through its handler and ORMService;
its read model is served from Valkey, at diptych's default settings, and both databases wait for the disk (SQLite
``synchronous=FULL``, PostgreSQL durable).

One at a time: "transaction" is the command with an acknowledger that does nothing, "round trip" a script that writes
one document, "whole" is ``Diptych.execute``. What is promised of a whole command: at most 1.2 times the first row,
which does a transaction and then a round trip.

Many at once, on PostgreSQL: 200 clients, each with a book of its own. "no fence" applies to Redis but does not look
at the fence. What is promised: whole commands are at least 0.9 times as many as those without the fence.

The application has one core, Valkey and PostgreSQL the other. Left to the system, its threads and Valkey were moved
about: on SQLite a whole command took 1.07 times the first row in some rounds and 1.4 times in others, with every part
of it slower alike.

The keeper's passes go on all the while, and carry what the reduced commands leave out.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.books import seed, title
from benchmarks.catalogue import answered_by_redis
from benchmarks.cores import on_cores, server_core
from benchmarks.repeated import Perform, many_at_once, one_at_a_time
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import stored
from benchmarks.valkey import valkey
from diptych import ConfigService, Diptych
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.arrivals import Ending
from diptych.fence.contract import FenceId, Target
from diptych.log import Change
from diptych.write.unit_of_work import new_context
from diptych.write.units import UnitsOfWork
from tests.books import Book, BookChanges, BookCommandHandler, BookReadModel, EditBook, GetBook, create_books
from tests.servers import PostgresServer, RedisServer

BOOKS = 1000
CLIENTS = 200
POOL_SIZES = (10, 20)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One at a time on both databases, then many at once on PostgreSQL."""
    with stored(valkey()) as redis, on_cores(server_core()):
        with tempfile.TemporaryDirectory() as folder:
            async with _served(str(Path(folder) / "books.db"), redis, "sqlite") as app:
                yield await _one_at_a_time("SQLite", app, quick)
        with stored(PostgresServer(durable=True)) as server:
            async with _served(server.url, redis, "one") as app:
                yield await _one_at_a_time("PostgreSQL", app, quick)
            for size in POOL_SIZES:
                database = server.url_of(server.create_database())
                async with _served(database, redis, f"pool{size}", database_pool_size=size) as app:
                    yield _many_at_once(f"PostgreSQL, DATABASE_POOL_SIZE={size}", app, quick)


class Silent(Acknowledger):
    """Acknowledges at once: what is left of a command is its transaction. For measuring only."""

    def __init__(self, whole: Acknowledger) -> None:
        self.whole = whole
        self.rows = whole.rows

    async def prepare(self) -> None:
        pass

    @property
    def is_idle(self) -> bool:
        return False

    @property
    def targets(self) -> Mapping[FenceId, Target]:
        return {}

    def ending(
        self,
        changes: Sequence[Change],
        touched: Collection[str] | None,
        **options: Any,
    ) -> Ending:
        return Ending(changes, touched, self.targets)

    async def acknowledge(self, ending: Ending) -> None:
        ending.end()


class Unfenced(Silent):
    """Applies to Redis and does not ask whether it may acknowledge. For measuring only."""

    @property
    def targets(self) -> Mapping[FenceId, Target]:
        return self.whole.rows.targets

    async def acknowledge(self, ending: Ending) -> None:
        assert self.whole.tracker.read_side is not None
        ending.begin(self.whole.tracker.read_side.apply(ending.changes, ending.targets))
        assert all([await done for done in ending.applying.values()])
        ending.end()


@contextlib.asynccontextmanager
async def _served(database: str, redis: RedisServer, name: str, **settings: Any) -> AsyncIterator[Diptych]:
    await seed(database, BOOKS)
    values = {"database_url": database, "redis_url": redis.url, "redis_namespace": name, **settings}
    async with create_books(ConfigService(environ={}, **values)) as app:
        await answered_by_redis(app, GetBook)
        yield app


async def _one_at_a_time(where: str, app: Diptych, quick: bool) -> Case:
    calls = 10 if quick else 40
    transaction, whole, round_trip = _reduced(app, Silent), _whole(app), await _round_trip(app)

    async def both(number: int) -> None:
        await transaction(number)
        await round_trip(number)

    candidates: dict[str, Candidate] = {
        "transaction, then round trip": partial(one_at_a_time, both, calls),
        "transaction": partial(one_at_a_time, transaction, calls),
        "round trip": partial(one_at_a_time, round_trip, calls),
        "whole": _checked(app, partial(one_at_a_time, whole, calls)),
    }
    return Case(f"{where}, one at a time", 5 if quick else 75, candidates)


def _many_at_once(where: str, app: Diptych, quick: bool) -> Case:
    duration_s = 0.5 if quick else 1.5
    candidates: dict[str, Candidate] = {
        "no fence": partial(many_at_once, _reduced(app, Unfenced), CLIENTS, duration_s),
        "transaction": partial(many_at_once, _reduced(app, Silent), CLIENTS, duration_s),
        "whole": _checked(app, partial(many_at_once, _whole(app), CLIENTS, duration_s)),
    }
    return Case(f"{where}, {CLIENTS} at once", 3 if quick else 25, candidates)


_ABOVE_EVERY_FLOOR = 10**15
"""A transaction's number: what is below the floor is taken for written already."""

_stock = itertools.count(1)


def _edit(number: int) -> EditBook:
    return EditBook(title(number), BookChanges(stock_quantity=next(_stock)))


def _whole(app: Diptych) -> Perform:
    async def perform(number: int) -> None:
        assert await app.execute(_edit(number)) is not None

    return perform


def _reduced(app: Diptych, kind: type[Silent]) -> Perform:
    side = app.orm.side
    units = UnitsOfWork(side.database, kind(side.acknowledger), side.units.effects)
    handler = BookCommandHandler(app.orm)

    async def perform(number: int) -> None:
        command = _edit(number)
        assert await units.run(lambda _unit: handler.edit_book(command), new_context()) is not None

    return perform


async def _round_trip(app: Diptych) -> Perform:
    """Writes the document of one book, as it is, again and again. No command ever changes that book."""
    # Reached into the application for, which has no business to show it.
    redis = app._run.redis
    assert redis is not None
    replica = redis.keepers[BookReadModel].replica
    row = await replica.source.one(replica.compiled.key.names, title(BOOKS - 1))
    assert row is not None
    write, stamps = replica.store.writes.write_of(row, 0, _ABOVE_EVERY_FLOOR), itertools.count(1)

    async def perform(_number: int) -> None:
        known = app.orm.side.acknowledger.rows.targets[replica.id]
        assert await replica.store.apply(known, [write._replace(stamp=next(stamps))]) == "OK"

    return perform


def _checked(app: Diptych, measure: Candidate) -> Candidate:
    """Makes sure that what was measured was a command whose readers are served from Redis."""

    async def checked() -> Sample:
        await answered_by_redis(app, GetBook)
        sample = await measure()
        book = await app.orm.get(Book, title(0), "title")
        document = await app.ask(GetBook(title(0)))
        found = document.decode()
        assert document.served.store == "redis", document.served
        assert book is not None and found is not None and found.stock_quantity == book.stock_quantity  # noqa: PT018
        return sample

    return checked
