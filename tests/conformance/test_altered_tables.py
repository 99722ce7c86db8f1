"""Tables and types altered under prepared statements, and values beyond what Python loads."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import Diptych, Document, ReadModel, SchemaError, UnreadableRowError, by, many
from tests.catalogue import answered_by
from tests.configuration import configured
from tests.setaside import write_raw


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(default=1)
    mood: Mapped[Mood] = mapped_column(sa.Enum(Mood, name="mood"), default=Mood.GLAD)
    details: Mapped[Any] = mapped_column(sa.JSON, default=lambda: {"weight": 1})
    parts: Mapped[list[Part]] = relationship(viewonly=True)


class Part(Base):
    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"), index=True)
    name: Mapped[str] = mapped_column(sa.Text)


class ItemDocument(msgspec.Struct):
    id: int
    size: int
    mood: Mood
    details: Any
    parts: list[str]


class Items(ReadModel[Item]):
    key = Item.id
    document = ItemDocument
    lists = (by(Item.id), by(Item.mood, Item.id, name="mood"))
    nested: ClassVar = {"parts": many(Item.parts, Part.name, order=Part.id)}


class Handlers:
    made: ClassVar[list[Items]] = []

    def __init__(self, items: Items) -> None:
        self.made.append(items)


AT_ONCE = 8

NEW_TYPE = (
    "ALTER TYPE mood RENAME TO former_mood",
    "CREATE TYPE mood AS ENUM ('GLAD', 'SAD', 'CALM')",
    "ALTER TABLE items ALTER COLUMN mood TYPE mood USING mood::text::mood",
    "DROP TYPE former_mood",
)


def _application(database_url: str, redis_url: str | None = None) -> Diptych:
    config = configured(database_url, redis_url)
    return Diptych(config, models=Base, handlers=[Handlers], read_models=[Items])


@pytest.fixture
async def app(postgres_url: str) -> AsyncIterator[Diptych]:
    """SQL answers."""
    async with _application(postgres_url) as app:
        for number in (1, 2):
            await app.orm.create(Item, id=number)
            await app.orm.create(Part, id=number, item_id=number, name="a part")
        yield app


def _decoded(document: Document[ItemDocument]) -> ItemDocument:
    found = document.decode()
    assert found is not None
    return found


async def _ids(items: Items, name: str | None = None, **selection: Any) -> list[int]:
    page = await items.page(name, **selection)
    return [item["id"] for item in msgspec.json.decode(page.body)["items"]]


async def test_a_column_of_another_type_costs_no_answer(app: Diptych):
    """★ Each of the connections has prepared statements of its own, which fail in a transaction."""
    items = Handlers.made.pop()

    async def all_at_once() -> None:
        one = await asyncio.gather(*(items.get(1) for _ in range(AT_ONCE)))
        several = await asyncio.gather(*(items.get_many([1, 2]) for _ in range(AT_ONCE)))
        listed = await asyncio.gather(*(_ids(items) for _ in range(AT_ONCE)))
        assert [_decoded(document).parts for document in one] == [["a part"]] * AT_ONCE
        assert [len(documents) for documents in several] == [2] * AT_ONCE
        assert listed == [[1, 2]] * AT_ONCE

    await all_at_once()
    await write_raw(app, "ALTER TABLE items ALTER COLUMN size TYPE bigint")
    await all_at_once()
    await write_raw(app, "ALTER TABLE parts ALTER COLUMN name TYPE varchar(100)")
    await all_at_once()


async def test_a_type_that_is_made_anew_costs_no_answer(app: Diptych):
    """★ The driver keeps such a statement, and without a word it would fail for minutes."""
    items = Handlers.made.pop()
    for number, mood in ((3, Mood.SAD), (4, Mood.SAD)):
        await app.orm.create(Item, id=number, mood=mood)
    assert await _ids(items, name="mood", where={"mood": Mood.SAD}) == [3, 4]
    await write_raw(app, *NEW_TYPE)
    for _ in range(3):
        assert await _ids(items, name="mood", where={"mood": Mood.SAD}) == [3, 4]
    for number in (5, 6):
        await app.orm.create(Item, id=number, mood=Mood.SAD)
        assert await app.orm.update(Item, 3, mood=Mood.GLAD)
        assert await app.orm.update(Item, 3, mood=Mood.SAD)
    assert await _ids(items, name="mood", where={"mood": Mood.SAD}) == [3, 4, 5, 6]


async def test_what_a_table_lacks_is_told_of_that_table(database_url: str):
    async with _application(database_url) as app:
        await app.orm.create(Item, id=1)
        await app.orm.create(Part, id=1, item_id=1, name="a part")
        items = Handlers.made[-1]
        await write_raw(app, "ALTER TABLE parts RENAME COLUMN name TO title")
        with pytest.raises(
            SchemaError, match=r"parts\.name.*: a table that is read or written with items and"
        ):
            await items.get(1)
        await write_raw(app, "ALTER TABLE items RENAME COLUMN size TO volume")
        with pytest.raises(
            SchemaError, match=r"items\.size.*: the table items and the mapping of Item differ"
        ):
            await items.get(1)


async def test_a_value_nested_too_deeply_for_python_sets_its_row_aside(database_url, valkey):
    """★ Passes go on: one that failed at the row would come to it again and again."""
    deep = "[" * 3000 + "]" * 3000
    async with _application(database_url, valkey.url) as app:
        items = Handlers.made.pop()
        for number in (1, 2):
            await app.orm.create(Item, id=number)
        await answered_by(app, "redis")
        await write_raw(app, f"UPDATE items SET details = '{deep}' WHERE id = 1", "UPDATE items SET size = 2")
        await app.catch_up()
        await answered_by(app, "redis")
        with pytest.raises(UnreadableRowError):
            await items.get(1)
        document = await items.get(2)
        assert document.served.store == "redis"
        assert _decoded(document).size == 2
    async with _application(database_url):
        items = Handlers.made.pop()
        with pytest.raises(UnreadableRowError):
            await items.get(1)
        assert await _ids(items) == [2]


async def test_a_composite_type_that_gets_an_attribute_spoils_no_connection_for_good(app: Diptych) -> None:
    """★ asyncpg closes the prepared statement, which SQLAlchemy goes on to execute."""
    database = app.orm.database
    async with database.begin() as connection:
        await connection.execute(sa.text("CREATE TYPE place AS (x int)"))
        await connection.execute(sa.text("CREATE TABLE places AS SELECT CAST(ROW(1) AS place) AS place"))
    select = sa.text("SELECT place FROM places")
    failures = []
    for number in range(4):
        async with database.reader.connect() as connection:
            try:
                assert len((await connection.execute(select)).all()) == 1
            except DBAPIError as error:
                failures.append(error)
        if number == 0:
            async with database.begin() as connection:
                await connection.execute(sa.text("ALTER TYPE place ADD ATTRIBUTE y int"))
    assert len(failures) <= 2


async def test_a_value_with_the_words_of_such_an_error_breaks_no_connection(app: Diptych) -> None:
    words = "cannot call PreparedStmt.fetch(): the prepared statement is closed, of composite type"
    async with app.orm.database.reader.connect() as connection:
        with pytest.raises(DBAPIError, match="invalid input syntax") as refused:
            await connection.execute(sa.text("SELECT CAST(CAST(:words AS text) AS int)"), {"words": words})
        assert not refused.value.connection_invalidated
