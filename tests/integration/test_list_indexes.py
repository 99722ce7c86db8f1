"""Indexes of lists: what ``diptych check`` proposes serves each page, from the index alone, on both databases."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import enum
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, ReadModel, between, by, code_point_text, starts_with
from diptych.read.lists.in_sql import parameters
from diptych.read.lists.page import PageRequest, page_request
from diptych.read.lists.selection import select
from diptych.read.panel import ReadPanel, missing_of, open_panels
from diptych.sql.database import Database
from diptych.sql.open import open_database
from diptych.sql.registry import EntityRegistry
from diptych.sql.statements import CompiledStatement, RawStatement

ROWS = 20_000


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    OPEN = "o"
    DONE = "d"
    BLOCKED = "b"


class Ticket(Base):
    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    owner: Mapped[str] = mapped_column(code_point_text(40))
    name: Mapped[str] = mapped_column(sa.String(40))
    nick: Mapped[str | None] = mapped_column(sa.String(40))
    state: Mapped[State]
    kind: Mapped[State] = mapped_column(sa.Enum(State, native_enum=False, length=20))
    priority: Mapped[int | None]
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
    opened: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))


class TicketDocument(Struct):
    id: int
    name: str


class TicketReadModel(ReadModel[Ticket]):
    key = Ticket.id
    document = TicketDocument
    lists = (
        by(Ticket.owner, Ticket.opened.desc(), name="newest"),
        by(Ticket.owner, Ticket.opened.desc().nulls_last(), Ticket.price, name="newest-last"),
        by(Ticket.priority, Ticket.opened.nulls_first(), name="urgent"),
        by(Ticket.priority.desc().nulls_last(), Ticket.name.desc(), name="dearest"),
        by(Ticket.price.desc(), Ticket.name, name="by-price"),
        by(Ticket.name, name="names"),
        by(Ticket.nick.desc(), Ticket.owner, name="nicks"),
        by(Ticket.kind.desc(), Ticket.price, name="kinds"),
        by(Ticket.state, Ticket.price.desc(), name="states"),
        by(Ticket.id, name="all"),
        by(Ticket.id.desc(), name="last"),
        by(Ticket.number.desc(), name="numbers"),
    )


SERVED = {"all", "last", "numbers"}  # by the primary key and by the unique constraint, read backwards too
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _row(n: int) -> dict[str, Any]:
    return {
        "id": n,
        "number": n,
        "owner": f"owner {n % 40}",
        "name": f"Name {n % 3000}",
        "nick": None if n % 3 == 0 else f"nick {n % 500}",
        "state": list(State)[n % 3],
        "kind": list(State)[n % 3],
        "priority": None if n % 4 == 0 else n % 7,
        "price": decimal.Decimal(n % 900),
        "opened": None if n % 5 == 0 else START + datetime.timedelta(hours=n % 700),
    }


@contextlib.asynccontextmanager
async def _opened(database_url: str) -> AsyncIterator[tuple[Database, ReadPanel]]:
    settings = ConfigService(environ={}, database_url=database_url).settings
    database = open_database(settings.database_url, settings)
    entities = EntityRegistry(database.name)
    try:
        [panel] = await open_panels([TicketReadModel], database, entities, settings)
        yield database, panel
    finally:
        await database.close()


async def _fill(database_url: str) -> None:
    async with (
        Diptych(ConfigService(environ={}, database_url=database_url), models=Base, handlers=[]) as app,
        app.orm.database.writer.begin() as connection,
    ):
        await connection.execute(sa.insert(Ticket), [_row(n) for n in range(1, ROWS + 1)])


async def _create(database: Database, missing: Sequence[Any]) -> None:
    """Creates the proposed indexes as an application would: from their text."""
    async with database.writer.begin() as connection:
        for each in missing:
            index = eval(each.python, {"Index": sa.Index, "Ticket": Ticket})  # noqa: S307
            await connection.run_sync(index.create)
            index.table.indexes.discard(index)  # so that the next test has a table without


FILTERS: dict[str, list[dict[str, Any]]] = {
    "newest": [
        {"owner": "owner 3"},
        {"owner": "owner 5", "opened": None},
        {"owner": "owner 7", "opened": START + datetime.timedelta(hours=7)},
        {"owner": "owner 7", "opened": between(START, START + datetime.timedelta(hours=90))},
        {"owner": ["owner 1", "owner 2", "owner 3"]},
    ],
    "newest-last": [
        {"owner": "owner 3"},
        {"owner": "owner 5", "opened": None},
        {"owner": "owner 7", "opened": START + datetime.timedelta(hours=7)},
        {"owner": "owner 7", "opened": between(None, START + datetime.timedelta(hours=90))},
        {"owner": "owner 7", "opened": [None, START + datetime.timedelta(hours=7)]},
    ],
    "urgent": [
        {"priority": 3},
        {"priority": None},
        {"priority": between(2, 4)},
        {"priority": between(None, 4)},
        {"priority": 3, "opened": between(START, None)},
        {"priority": [1, None, 2]},
    ],
    "dearest": [{"priority": 3}, {"priority": 3, "name": starts_with("Name 1")}, {"priority": between(2, 4)}],
    "by-price": [{"price": 7}, {"price": between(7, 400)}],
    "names": [{"name": starts_with("Name 22")}, {"name": "Name 7"}],
    "nicks": [{"nick": starts_with("nick 2")}, {"nick": None}],
    "kinds": [{"kind": State.DONE}, {"kind": State.DONE, "price": between(3, 600)}],
    "states": [{"state": State.DONE}, {"state": [State.DONE, State.OPEN]}],
    "all": [{"id": between(300, 15_000)}],
    "last": [{"id": between(300, 15_000)}],
    "numbers": [{"number": between(300, None)}],
}


def _requests(panel: ReadPanel, name: str, where: Any, places: Sequence[bytes]) -> Iterator[PageRequest]:
    selection = select(panel.compiled.list_by(name), where, panel.compiled.lists)
    asked: dict[str, Any] = {"after": None, "before": None, "offset": 0, "count": True}
    yield page_request(selection, 20, **asked)
    for place in places:
        cursor = selection.index.cursor(place)
        for way in ("after", "before"):
            yield page_request(selection, 20, **{**asked, way: cursor})


def _places(panel: ReadPanel, name: str, where: Any) -> list[bytes]:
    """Places all over the list, with nulls among them."""
    selection = select(panel.compiled.list_by(name), where, panel.compiled.lists)
    index, at = selection.index, len(selection.values)
    rows = [_row(n) for n in (11, 60, 5_002, 7_003, 13_105, 19_988)]
    return [index.encoded([row[column] for column in index.columns[at:]], at=at) for row in rows]


MOST_ROWS = 600
"""Rows that a page of 20 may touch: those of each of its parts, and what the planner of PostgreSQL likes better."""

TOLD = ("Node Type", "Index Name", "Filter", "Actual Rows", "Rows Removed by Filter", "Sort Key")

MOST_STEPS = 20_000
"""Instructions of SQLite for such a page; one over all rows takes some 200,000."""


async def _touched_rows(connection: Any, statement: Any, values: dict[str, Any]) -> tuple[int, str]:
    """How many rows PostgreSQL has read and sorted, and the plan."""
    raw = RawStatement(statement).compiled
    text = "EXPLAIN (ANALYSE, TIMING OFF, FORMAT JSON) " + raw.text
    [plan] = json.loads(await connection.fetchval(text, *raw.arguments(values)))
    most, nodes = 0, [plan["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        most = max(most, int((node["Actual Rows"] + removed) * node["Actual Loops"]))
    return most, "\n".join([raw.text, *_shown(plan["Plan"])])


def _shown(node: dict[str, Any], depth: int = 0) -> Iterator[str]:
    told = {name: value for name, value in node.items() if "Cond" in name or name in TOLD}
    yield "  " * depth + str(told)
    for each in node.get("Plans", []):
        yield from _shown(each, depth + 1)


def _steps(connection: sqlite3.Connection, statement: Any, values: dict[str, Any]) -> tuple[int, str]:
    """How many instructions SQLite has executed, by tens, and the plan."""
    compiled = CompiledStatement(statement, sqlite.dialect(), [])
    given = compiled.parameters(values)
    plan = connection.execute("EXPLAIN QUERY PLAN " + compiled.text, given).fetchall()
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 10
        return 0

    connection.set_progress_handler(count, 10)
    connection.execute(compiled.text, given).fetchall()
    connection.set_progress_handler(None, 0)
    return steps, "\n".join(str(step[3]) for step in plan)


@contextlib.asynccontextmanager
async def _measuring(database_url: str) -> AsyncIterator[Callable[[Any, dict[str, Any]], Awaitable[str]]]:
    """Gives a function that returns the plan of a statement that costs too much, else nothing."""
    if database_url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as own:

            async def on_sqlite(statement: Any, values: dict[str, Any]) -> str:
                steps, plan = _steps(own, statement, values)
                return f"{steps} steps\n{plan}" if steps > MOST_STEPS else ""

            yield on_sqlite
        return
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("ANALYSE")

        async def on_postgresql(statement: Any, values: dict[str, Any]) -> str:
            rows, plan = await _touched_rows(connection, statement, values)
            return f"{rows} rows\n{plan}" if rows > MOST_ROWS else ""

        yield on_postgresql
    finally:
        await connection.close()


async def _costly(database_url: str, panel: ReadPanel) -> dict[str, str]:
    """The plans of pages that cost too much, by list, filter and place."""
    found: dict[str, str] = {}
    async with _measuring(database_url) as plan_if_costly:
        for name, filters in FILTERS.items():
            for where in [None, *filters]:
                places = _places(panel, name, where)
                for n, request in enumerate(_requests(panel, name, where, places)):
                    pages = panel.rows._pages
                    other, _ = pages.beside(request)
                    for prepared in (pages.page(request), other):
                        if prepared is not None and not (name == "states" and where is None):
                            plan = await plan_if_costly(
                                prepared.select, parameters(request, request.limit + 1)
                            )
                            if plan:
                                found[f"{name} {where} {n}"] = plan
    return found


async def test_the_proposed_indexes_serve_every_page(database_url):
    """The first page, pages before and behind places all over the list, filters and ranges, in mixed directions."""
    await _fill(database_url)
    async with _opened(database_url) as (database, panel):
        missing = await missing_of([panel], database)
        assert {each.name for each in missing} == {index.name for index in panel.compiled.lists} - SERVED
        slow = {name.split()[0] for name in await _costly(database_url, panel)}
        assert slow >= {each.name for each in missing} - {"states"}, "the measure tells nothing"
        await _create(database, missing)
        assert await missing_of([panel], database) == []
    async with _opened(database_url) as (_, panel):
        costly = await _costly(database_url, panel)
        assert not costly, "\n\n".join(f"{name}: {plan}" for name, plan in costly.items())


COUNTING = [
    # The opposite order, and further columns.
    ("CREATE INDEX own ON tickets (owner DESC, opened ASC, id DESC, number)", {"postgresql"}),
    ("CREATE UNIQUE INDEX own ON tickets (owner, opened DESC NULLS FIRST, id)", {"postgresql"}),
    ("CREATE INDEX own ON tickets (owner DESC, opened IS NULL, opened ASC, id DESC)", {"sqlite"}),
    (
        'CREATE INDEX "a (b" ON "tickets" ( "owner",("opened" IS NULL) DESC , opened DESC, `id`, price)',
        {"sqlite"},
    ),
    (
        "CREATE INDEX own ON tickets (owner, opened IS NULL DESC, opened DESC)",
        {"sqlite"},
    ),  # the row's number follows
    ("CREATE INDEX own ON tickets (owner, opened DESC, id)", {"postgresql"}),
    # Other nulls, another direction, some rows only, too short, another kind, a column that is only included.
    ("CREATE INDEX own ON tickets (owner, opened DESC NULLS LAST, id)", set()),
    ("CREATE INDEX own ON tickets (owner, opened, id)", set()),
    ("CREATE INDEX own ON tickets (owner, opened DESC, id DESC)", set()),
    ("CREATE INDEX own ON tickets (owner, opened DESC, id) WHERE opened IS NOT NULL", set()),
    (
        "CREATE INDEX own ON tickets (owner, opened IS NULL DESC, opened DESC, id) WHERE opened IS NOT NULL",
        set(),
    ),
    ("CREATE INDEX own ON tickets (lower(owner), opened DESC, id)", set()),
    ("CREATE INDEX own ON tickets (owner, opened IS NULL DESC, coalesce(opened, id) DESC, id)", set()),
    ("CREATE INDEX own ON tickets USING hash (owner)", set()),
    ("CREATE INDEX own ON tickets (owner, opened DESC) INCLUDE (id)", set()),
    ("CREATE INDEX own ON tickets (owner text_pattern_ops, opened DESC, id)", set()),
    ("CREATE INDEX own ON tickets (owner COLLATE nocase, opened IS NULL DESC, opened DESC, id)", set()),
]


async def test_what_counts_as_an_index_of_a_list(database_url):
    async with Diptych(ConfigService(environ={}, database_url=database_url), models=Base, handlers=[]):
        pass  # makes the tables
    kind = database_url.partition(":")[0]
    async with _opened(database_url) as (database, panel):
        for index, counts_on in COUNTING:
            try:
                async with database.writer.begin() as connection:
                    await connection.execute(sa.text(index))
            except DBAPIError:
                assert kind not in counts_on
                continue  # this database has no such index
            missing = {each.name for each in await missing_of([panel], database)}
            assert ("newest" not in missing) == (kind in counts_on), index
            name = '"a (b"' if "a (b" in index else "own"
            async with database.writer.begin() as connection:
                await connection.execute(sa.text(f"DROP INDEX {name}"))
