"""Documents made from several rows: what SQL gives for them, and in which snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Command,
    ConfigService,
    Diptych,
    Document,
    ORMService,
    Page,
    Query,
    ReadModel,
    WiringError,
    by,
    code_point_text,
    join,
)
from diptych.aio.event_loop import LoopBudget
from diptych.fence.fence import Fence
from diptych.log import NOTHING, Change, LogPart
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.page import PageRequest
from diptych.read.lists.selection import Selection
from diptych.read.sql.fallback import SqlFallback
from diptych.read.sql.rows import SqlRows
from diptych.sql.description import Row
from diptych.sql.view import view_of
from tests.catalogue import eventually


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))
    born: Mapped[datetime.date | None]
    notes: Mapped[Any | None] = mapped_column(sa.JSON)


class Shelf(Base):
    """Found by texts of other collations than the book's: the database's own, and one that can't be mixed with it."""

    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(sa.String(20), unique=True)
    mark: Mapped[str | None] = mapped_column(
        sa.String(20).with_variant(sa.String(20, collation="ucs_basic"), "postgresql"), unique=True
    )
    room: Mapped[str] = mapped_column(sa.String(20))


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    author_id: Mapped[int] = mapped_column(index=True)
    editor_id: Mapped[int | None] = mapped_column(index=True)
    shelf_code: Mapped[str | None] = mapped_column(code_point_text(20))
    sequel_to: Mapped[int | None]


class BookCard(msgspec.Struct, rename="camel"):
    title: str
    author_name: str | None
    author_born: datetime.date | None
    author_notes: Any
    editor_name: str | None
    room: str | None
    marked: str | None
    sequel_to_title: str | None


class BookCards(ReadModel[Book]):
    key = Book.title
    document = BookCard
    lists = (by(Book.title), by(Book.author_id))
    joined = {  # noqa: RUF012
        "author_name": join(Person.name, Book.author_id, Person.id),
        "author_born": join(Person.born, Book.author_id, Person.id),
        "author_notes": join(Person.notes, Book.author_id, Person.id),
        "editor_name": join(Person.name, Book.editor_id, Person.id),
        "room": join(Shelf.room, Book.shelf_code, Shelf.code),
        "marked": join(Shelf.room, Book.shelf_code, Shelf.mark),
        "sequel_to_title": join(Book.title, Book.sequel_to, Book.id),
    }


class Cards:
    """The read model over an open database, as the composition root puts it together."""

    def __init__(self, orm: ORMService) -> None:
        dialect = orm.database.reader.dialect
        entity = orm.side.entities.of(Book)
        joined = {model: orm.side.entities.of(model).describe(dialect) for model in joined_models(BookCards)}
        self.orm = orm
        self.compiled = CompiledReadModel(BookCards, entity.describe(dialect), joined)
        self.rows = SqlRows(
            orm.database,
            orm.side.entities.of,
            entity,
            [self.compiled.key.names],
            self.compiled.columns,
            self.compiled.joins,
        )
        self.sql = SqlFallback(self.compiled, self.rows, asyncio.Semaphore(5), LoopBudget(), timeout_s=30)

    async def bodies(self, column: str, values: list[Any], batch_size: int = 100) -> list[bytes]:
        return [
            self.compiled.body(row) for rows in await self.found(column, values, batch_size) for row in rows
        ]

    async def batches(self, column: str, values: list[Any], batch_size: int) -> list[list[str]]:
        return [[row["title"] for row in rows] for rows in await self.found(column, values, batch_size)]

    async def found(self, column: str, values: list[Any], batch_size: int) -> list[list[Row]]:
        async with view_of(self.orm.database) as view:
            return [rows async for rows in self.rows.rows_by(view, (column,), values, batch_size)]


@pytest.fixture
async def cards(database_url: str) -> AsyncIterator[Cards]:
    async with opened(database_url) as orm:
        yield Cards(orm)


def opened(database_url: str) -> Any:
    return _Opened(database_url)


class _Opened:
    def __init__(self, database_url: str) -> None:
        self._orm = ORMService(ConfigService(environ={}, database_url=database_url))

    async def __aenter__(self) -> ORMService:
        await self._orm.init(models=Base)
        return self._orm

    async def __aexit__(self, *_: object) -> None:
        await self._orm.close()


async def add_people(orm: ORMService) -> None:
    born = datetime.date(1920, 10, 8)
    await orm.create(Person, id=1, name="Frank Herbert", born=born, notes={"a": [1, None]})
    await orm.create(Person, id=2, name="Ann “Ä” O'Hara")


FRANK = b'"authorName":"Frank Herbert","authorBorn":"1920-10-08","authorNotes":{"a":[1,null]}'
NOBODY = b'"authorName":null,"authorBorn":null,"authorNotes":null'
DUNE = (
    b'{"title":"Dune",'
    + FRANK
    + b',"editorName":"Ann \xe2\x80\x9c\xc3\x84\xe2\x80\x9d O\'Hara"'
    + b',"room":"Attic","marked":"Hall","sequelToTitle":null}'
)
MESSIAH = (
    b'{"title":"Dune Messiah",'
    + FRANK
    + b',"editorName":null,"room":null,"marked":null,"sequelToTitle":"Dune"}'
)
LOST = b'{"title":"Lost",' + NOBODY + b',"editorName":null,"room":null,"marked":null,"sequelToTitle":null}'


async def add_books(orm: ORMService) -> None:
    await add_people(orm)
    await orm.create(Shelf, id=1, code="A-1", room="Attic")
    await orm.create(Shelf, id=2, mark="A-1", room="Hall")
    await orm.create(Book, id=1, title="Dune", author_id=1, editor_id=2, shelf_code="A-1")
    await orm.create(Book, id=2, title="Dune Messiah", author_id=1, shelf_code="a-1", sequel_to=1)
    await orm.create(Book, id=3, title="Lost", author_id=7, editor_id=8, sequel_to=9)


async def test_every_way_to_read_gives_the_same_bytes(cards):
    """Joined values, with two joins to one class, a join to the own class, and rows that are not there."""
    await add_books(cards.orm)
    assert await cards.sql.get(("title",), "Dune") == DUNE
    assert await cards.sql.get(("title",), "Dune Messiah") == MESSIAH
    assert await cards.sql.get(("title",), "Lost") == LOST
    assert await cards.sql.get(("title",), "Emma") is None
    page = b'{"items":[%s],"next":null}' % b",".join([DUNE, MESSIAH, LOST])
    for index in cards.compiled.lists:
        assert await cards.sql.page(PageRequest(Selection(index), 10)) == (page, 0)
    scanned = [cards.compiled.body(row) async for rows in cards.rows.scan(2) for row in rows]
    assert scanned == [DUNE, MESSIAH, LOST]
    assert await cards.bodies("title", ["Lost", "Dune", "Emma", "Dune Messiah"]) == [DUNE, MESSIAH, LOST]


async def test_a_page_goes_on_after_a_cursor(cards):
    await add_books(cards.orm)
    index = cards.compiled.lists[0]
    request = PageRequest(Selection(index), 2)
    first = msgspec.json.decode((await cards.sql.page(request)).body)
    place, values = index.place(first["next"])
    second = (await cards.sql.page(request._replace(place=place, values=values))).body
    assert second.startswith(b'{"items":[%s],"next":null,"previous":' % LOST)


async def test_rows_are_found_by_what_a_changed_row_touches(cards):
    await add_books(cards.orm)
    assert await cards.bodies("author_id", [1]) == [DUNE, MESSIAH]
    assert await cards.bodies("editor_id", [2, None]) == [DUNE]
    assert await cards.bodies("shelf_code", ["A-1"]) == [DUNE]
    assert await cards.bodies("sequel_to", [1, 2]) == [MESSIAH]


async def test_values_that_no_row_can_have_are_skipped(cards):
    """PostgreSQL would fail on them."""
    await add_books(cards.orm)
    for value in ("\x00", "\ud800", "x" * 300, 2**80, None, object()):
        assert await cards.batches("title", [value, "Lost"], 10) == [["Lost"]]
    assert await cards.batches("author_id", [2**31, -(2**63), 7], 10) == [["Lost"]]
    assert await cards.batches("author_id", [2**31], 10) == []


@pytest.mark.parametrize("values", [[], [None], [99], [None, 99, 98, 97]])
async def test_nothing_is_found_where_there_is_nothing(cards, values):
    await add_books(cards.orm)
    assert await cards.batches("author_id", values, 10) == []


async def test_many_values_and_many_rows_of_one_value_come_in_batches(cards):
    await add_people(cards.orm)
    for i in range(1, 8):
        await cards.orm.create(Book, id=i, title=f"B{i}", author_id=1 if i < 6 else i)
    by_author = await cards.batches("author_id", [1], 2)
    assert by_author == [["B1", "B2"], ["B3", "B4"], ["B5"]]
    assert await cards.batches("author_id", [7, 1, 6, 6, 7], 2) == [
        ["B1", "B2"],
        ["B3", "B4"],
        ["B5", "B7"],
        ["B6"],
    ]
    # Of a unique column each part of the values is one statement.
    titles = [f"B{i}" for i in (5, 2, 7, 1)]
    assert await cards.batches("title", titles, 2) == [["B2", "B5"], ["B1", "B7"]]
    assert await cards.batches("title", titles, 4) == [["B1", "B2", "B5", "B7"]]


async def test_a_view_holds_the_log_and_the_rows_of_one_moment_while_others_write(cards):
    """However many statements read it, and whatever is created, moved and deleted in between."""
    await add_people(cards.orm)
    fence = Fence(cards.orm.database, {"books": cards.orm.side.entities.of(Book)}.get)
    writing = asyncio.gather(*(write_books(cards.orm, start) for start in (0, 100, 200)))
    snapshots = set()
    while not writing.done():
        async with fence.view() as view:
            titles: set[str] = set()
            part: LogPart | None = None
            while part is None or part.more:
                part = await fence.changes(["books"], NOTHING, 7, part, view)
                for change in part.changes:
                    titles -= {change.before["title"]} if change.before is not None else set()
                    titles |= {change.after["title"]} if change.after is not None else set()
            rows = [row async for rows in cards.rows.rows_by(view, ("author_id",), [1], 5) for row in rows]
        assert {row["title"] for row in rows} == titles
        snapshots.add(part.snapshot)
    await writing
    assert len(snapshots) > 3  # how many more depends on the machine


async def write_books(orm: ORMService, start: int) -> None:
    for i in range(start, start + 30):
        await orm.create(Book, id=i, title=f"B{i}", author_id=1)
        await orm.update(Book, i, title=f"moved {i}")
        if i % 2:
            await orm.delete(Book, i)


async def test_a_view_holds_nothing_back_once_it_is_left(cards):
    """Neither PostgreSQL's VACUUM nor SQLite's checkpoint waits for it."""
    await add_books(cards.orm)
    async with view_of(cards.orm.database) as view:
        assert [rows async for rows in cards.rows.rows_by(view, ("author_id",), [7], 9)]
        assert await holds_back(cards.orm)
    assert not await holds_back(cards.orm)


async def holds_back(orm: ORMService) -> bool:
    if orm.database.name == "postgresql":
        held = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid != pg_backend_pid()"
        )
        async with orm.database.reader.connect() as connection:
            return bool((await connection.execute(sa.text(held))).scalar_one())
    await orm.create(Person, name="in the write-ahead log")
    with contextlib.closing(sqlite3.connect(str(orm.database.writer.url.database))) as connection:
        _, logged, checkpointed = connection.execute("PRAGMA wal_checkpoint").fetchone()
    return bool(logged > checkpointed)


PEOPLE = st.dictionaries(st.integers(1, 4), st.sampled_from(["Ann", "Bob", "Zoë"]), max_size=4)
BOOKS = st.dictionaries(
    st.sampled_from("ABCDEF"),
    st.tuples(st.integers(1, 5), st.none() | st.integers(1, 5)),
    max_size=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(people=PEOPLE, books=BOOKS, changed=st.integers(1, 5), moved=st.integers(1, 9))
def test_the_rows_that_a_change_touches_are_all_whose_documents_it_alters(
    people, books, changed, moved, database_url
):
    """A person is created, renamed, given another id or deleted: other documents stay as they were."""

    async def run() -> None:
        async with opened(database_url) as orm:
            cards = Cards(orm)
            await refill(orm, people, books)
            old = {
                row["title"]: cards.compiled.body(row) async for rows in cards.rows.scan(9) for row in rows
            }
            change = await change_person(orm, people, changed, moved)
            touched: set[str] = set()
            if change is not None:
                for column, values in cards.compiled.touched(change):
                    touched |= {t for batch in await cards.batches(column, values, 2) for t in batch}
            new = {
                row["title"]: cards.compiled.body(row) async for rows in cards.rows.scan(9) for row in rows
            }
            assert {title for title in old if old[title] != new[title]} <= touched
            meant = set() if change is None else {changed, moved} if change.kind == "updated" else {changed}
            assert touched == {title for title, ids in books.items() if set(ids) & meant}

    asyncio.run(run())


async def refill(orm: ORMService, people: dict[int, str], books: dict[str, tuple[int, int | None]]) -> None:
    async with orm.database.writer.begin() as connection:
        for model in (Book, Person):
            await connection.execute(sa.delete(model))
    for number, name in people.items():
        await orm.create(Person, id=number, name=name)
    for title, (author, editor) in books.items():
        await orm.create(Book, title=title, author_id=author, editor_id=editor)


async def change_person(orm: ORMService, people: dict[int, str], number: int, moved: int) -> Change | None:
    """The change as it comes from the log: of the row before only what is unique."""
    entity = orm.side.entities.of(Person).describe(orm.database.reader.dialect)
    after = {"id": number, "name": "New", "born": None, "notes": None}
    if number not in people:
        await orm.create(Person, id=number, name="New")
        return Change(entity, None, after)
    if moved == number:
        await orm.delete(Person, number)
        return Change(entity, {"id": number}, None)
    if moved in people:
        return None
    await orm.update(Person, number, id=moved, name="New")
    return Change(entity, {"id": number}, {**after, "id": moved})


class Titled(Query[Document[BookCard]]):
    title: str


class AuthorsBooks(Query[Page[BookCard]]):
    after: str | None = None


class Rename(Command[None]):
    author_id: int
    name: str


class Handlers:
    def __init__(self, cards: BookCards, orm: ORMService) -> None:
        self._cards = cards
        self._orm = orm

    async def get(self, query: Titled) -> Document[BookCard]:
        return await self._cards.get(query.title)

    async def page(self, query: AuthorsBooks) -> Page[BookCard]:
        return await self._cards.page(by(Book.author_id), limit=2, after=query.after)

    async def rename(self, command: Rename) -> None:
        await self._orm.update(Person, command.author_id, name=command.name)


def library(database_url: str, redis_url: str | None) -> Diptych:
    values: dict[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "redis_query_timeout_ms": 2000,
    }
    return Diptych(
        ConfigService(environ={}, **values), models=Base, handlers=[Handlers], read_models=[BookCards]
    )


async def test_redis_gives_the_same_bytes_as_sql(database_url, valkey):
    """As they were built, and after another row has changed."""
    async with library(database_url, valkey.url) as app, library(database_url, None) as sql:
        await add_books(app.orm)

        async def is_redis() -> bool:
            return (await app.ask(Titled("Dune"))).served.store == "redis"

        await eventually(is_redis, "redis answers")
        assert (await app.ask(Titled("Dune"))).body == DUNE
        for name in ("F. Herbert", "Frank Herbert"):
            await app.execute(Rename(1, name))
            for title in ("Dune", "Dune Messiah", "Lost"):
                from_redis, from_sql = await app.ask(Titled(title)), await sql.ask(Titled(title))
                assert (from_redis.served.store, from_sql.served.store) == ("redis", "sql")
                assert from_redis.body == from_sql.body
            first = await app.ask(AuthorsBooks())
            assert first.served.store == "redis"
            assert first.body == (await sql.ask(AuthorsBooks())).body
            after = first.decode().next
            assert (await app.ask(AuthorsBooks(after))).body == (await sql.ask(AuthorsBooks(after))).body
        assert (await app.ask(Titled("Dune"))).body == DUNE


class Language(Base):
    __tablename__ = "languages"

    code: Mapped[str] = mapped_column(sa.String(2), primary_key=True)
    name: Mapped[str]


class Leaflet(Base):
    __tablename__ = "leaflets"

    id: Mapped[int] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(sa.Enum("de", "en", name="language"))


class LeafletCard(msgspec.Struct):
    language_name: str | None


class LeafletCards(ReadModel[Leaflet]):
    key = Leaflet.id
    document = LeafletCard
    joined = {"language_name": join(Language.name, Leaflet.language, Language.code)}  # noqa: RUF012


async def test_an_enum_is_not_joined_to_a_text(cards):
    """PostgreSQL would fail on every query."""
    dialect = cards.orm.database.reader.dialect
    leaflet, language = cards.orm.side.entities.of(Leaflet), cards.orm.side.entities.of(Language)
    projection = CompiledReadModel(
        LeafletCards, leaflet.describe(dialect), {Language: language.describe(dialect)}
    )
    with pytest.raises(WiringError, match=r"leaflets\.language and languages\.code can't be joined"):
        SqlRows(
            cards.orm.database,
            cards.orm.side.entities.of,
            leaflet,
            [projection.key.names],
            projection.columns,
            projection.joins,
        )
