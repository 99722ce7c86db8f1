"""The primary key of each entry's row as text: the same text whoever has made the change, on both databases."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ORMService, code_point_text
from tests.captured import Program
from tests.conformance.conftest import config


class Base(DeclarativeBase):
    pass


class Noted:
    """A column that is none of the key."""

    note: Mapped[str] = mapped_column(server_default="")


class Numbered(Noted, Base):
    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


class Titled(Noted, Base):
    __tablename__ = "Titled Things"
    title: Mapped[str] = mapped_column("the Title", code_point_text(200), primary_key=True)


class Padded(Noted, Base):
    __tablename__ = "padded"
    code: Mapped[str] = mapped_column(sa.CHAR(5), primary_key=True)


class Daily(Noted, Base):
    __tablename__ = "daily"
    day: Mapped[datetime.date] = mapped_column(primary_key=True)


class Unique(Noted, Base):
    __tablename__ = "uuids"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class UniqueText(Noted, Base):
    __tablename__ = "uuid_texts"
    id: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False), primary_key=True)


class Several(Noted, Base):
    __tablename__ = "several"
    text: Mapped[str] = mapped_column("select", code_point_text(200), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[datetime.date] = mapped_column(primary_key=True)
    name: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Timed(Noted, Base):
    __tablename__ = "timed"
    at: Mapped[datetime.datetime] = mapped_column(primary_key=True)


ODD = "é\"\\/\n\t\x01\x7f\u2028 %s :x {} '😀"
NAME = uuid.UUID("12345678-90ab-cdef-1234-567890abcdef")
DAY = datetime.date(2024, 2, 29)

CASES = [
    (Numbered, {"id": -7}, "-7"),
    (Titled, {"title": "Dune"}, "Dune"),
    (Titled, {"title": ""}, ""),
    (Titled, {"title": ODD}, ODD),
    (Daily, {"day": DAY}, "2024-02-29"),
    (Daily, {"day": datetime.date.max}, "9999-12-31"),
    (Unique, {"id": NAME}, str(NAME)),
    (UniqueText, {"id": str(NAME)}, str(NAME)),
    (Timed, {"at": datetime.datetime(2024, 2, 29)}, None),
    (
        Several,
        {"text": "a, ]", "number": 7, "day": DAY, "name": NAME},
        f'["a, ]",7,"2024-02-29","{NAME}"]',
    ),
]


class Log:
    """The log of a database whose tables are all captured."""

    def __init__(self, orm: ORMService, url: str) -> None:
        self.orm = orm
        self.program = Program(url)
        self._last = 0

    async def ids(self) -> list[tuple[str, str | None, str | None]]:
        """What is new in the log: the kind of each entry, and both texts."""
        async with self.orm.database.reader.connect() as connection:
            new = sa.text("SELECT * FROM diptych_log WHERE position > :last ORDER BY position")
            rows = (await connection.execute(new, {"last": self._last})).all()
        self._last = rows[-1].position
        return [(row.kind, row.row_id, row.old_row_id) for row in rows]


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with ORMService(config(database_url)) as orm:
        await orm.init(models=Base)
        side = orm.side
        await side.capture({side.entities.of(mapper.class_).full_name for mapper in Base.registry.mappers})
        yield Log(orm, database_url)


@pytest.mark.parametrize(("model", "key", "text"), CASES)
async def test_the_text_of_a_primary_key_is_the_same_whoever_makes_the_change(
    log: Log, model: Any, key: Mapping[str, Any], text: str | None
):
    table, where = f'"{model.__tablename__}"', tuple(key.values())
    where = where if len(where) > 1 else where[0]
    await log.orm.create(model, **key)
    assert await log.ids() == [("created", text, None)]
    await log.program.runs(f"UPDATE {table} SET note = 'theirs'")
    assert await log.ids() == [("updated", text, None)]
    await log.orm.update(model, where, note="own")
    assert await log.ids() == [("updated", text, None)]
    await log.orm.execute(sa.delete(model))
    assert await log.ids() == [("deleted", text, None)]
    await log.orm.create_all(model, [key])
    assert await log.ids() == [("created", text, None)]
    await log.orm.delete(model, where)
    assert await log.ids() == [("deleted", text, None)]


async def test_the_text_before_the_change_is_there_where_the_change_has_moved_the_row(log: Log):
    await log.orm.create(Titled, title="Dune")
    await log.orm.create(Several, text="a", number=1, day=DAY, name=NAME)
    await log.ids()
    await log.orm.update(Titled, "Dune", title="Emma")
    await log.program.runs(
        'UPDATE "Titled Things" SET "the Title" = \'Iliad\'', "UPDATE several SET number = 2"
    )
    async with log.orm.session() as session:
        (await session.scalars(sa.select(Several))).one().number = 3
    assert await log.ids() == [
        ("updated", "Emma", "Dune"),
        ("updated", "Iliad", "Emma"),
        ("updated", f'["a",2,"2024-02-29","{NAME}"]', f'["a",1,"2024-02-29","{NAME}"]'),
        ("updated", f'["a",3,"2024-02-29","{NAME}"]', f'["a",2,"2024-02-29","{NAME}"]'),
    ]


async def test_blanks_of_a_char_are_in_the_text(log: Log):
    """As in the key, and in what a query answers."""
    await log.orm.create(Padded, code="ab")
    await log.program.runs("UPDATE padded SET note = 'theirs'")
    text = "ab   " if log.orm.database.name == "postgresql" else "ab"
    assert await log.ids() == [("created", text, None), ("updated", text, None)]


async def test_truncate_and_replace_name_the_rows_that_they_remove(log: Log):
    await log.orm.create(Titled, title="Dune")
    await log.ids()
    if log.orm.database.name == "postgresql":
        await log.program.runs('TRUNCATE "Titled Things"')
        assert await log.ids() == [("touched", None, None), ("touched", "Dune", None)]
    else:
        await log.program.runs(
            "INSERT OR REPLACE INTO \"Titled Things\" (\"the Title\", note) VALUES ('Dune', '')"
        )
        assert ("touched", "Dune", None) in await log.ids()


async def test_dates_are_written_alike_in_sessions_with_other_forms_of_dates(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        orm.side.entities.of(Daily)
        await orm.side.capture({"daily"})
        log = Log(orm, postgres_url)
        await log.program.runs(
            "SET LOCAL datestyle = 'German'", "INSERT INTO daily (day) VALUES ('2024-02-29')"
        )
        await log.program.runs("INSERT INTO daily (day) VALUES ('infinity'), ('-infinity')")
        assert await log.ids() == [
            ("created", "2024-02-29", None),
            ("created", "9999-12-31", None),
            ("created", "0001-01-01", None),
        ]


async def test_a_column_of_the_key_that_a_migration_renames_keeps_nobody_from_writing(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        orm.side.entities.of(Daily)
        await orm.side.capture({"daily"})
        log = Log(orm, postgres_url)
        await log.program.runs(
            "ALTER TABLE daily RENAME day TO date", "INSERT INTO daily (date) VALUES ('2024-02-29')"
        )
        assert await log.ids() == [("created", None, None)]
