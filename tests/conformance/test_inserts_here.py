"""Rows written and read in the event loop, past SQLAlchemy: what is stored and told is what its engine does."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from diptych import ConstraintError, DuplicateError, ORMService
from diptych.sql.sqlite.connection import Schema
from diptych.sql.statements import PreparedSelect
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book, Defaults, Kinds, Shelf, Size

NOW = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.UTC)

VALUES: dict[str, Any] = {
    "small": -1,
    "big": 2**63 - 1,
    "real": 1.0,
    "flag": True,
    "short": "é\u2028'",
    "day": NOW.date(),
    "moment": NOW.replace(tzinfo=None),
    "instant": NOW.astimezone(datetime.timezone(datetime.timedelta(hours=5))),
    "time": NOW.time(),
    "span": datetime.timedelta(seconds=5),
    "name": uuid.UUID(int=7),
    "data": b"\x00\xff",
    "size": Size.LARGE,
    "word": "yes",
    "document": {"a": [1, None]},
    "backwards": "abc",
}


@pytest.fixture
async def orm(sqlite_url: str) -> AsyncIterator[ORMService]:
    async with ORMService(config(sqlite_url)) as service:
        await service.init(models=Base)
        yield service


def watched(orm: ORMService) -> list[str]:
    """What the engine executes from now on."""
    seen: list[str] = []
    sa.event.listen(
        orm.database.writer.sync_engine, "after_cursor_execute", lambda *call: seen.append(call[2])
    )
    return seen


async def test_the_engine_begins_and_no_more(orm: ORMService):
    seen = watched(orm)
    await orm.create(Book, title="T", author="A")
    await orm.create(Book, author="B", title="U", isbn="1")
    made = await orm.create(Kinds, **VALUES)
    assert await orm.update(Kinds, made.id, big=0)
    assert {statement.split()[0] for statement in seen} == {"BEGIN"}


async def test_values_of_every_type_are_stored_and_returned_as_an_engine_does(orm, monkeypatch):
    here = await orm.create(Kinds, **VALUES)
    monkeypatch.setattr(Schema, "is_quick", lambda *_: False)  # then the engine inserts, in the thread
    seen = watched(orm)
    by_engine = await orm.create(Kinds, **VALUES)
    assert any(statement.startswith("INSERT INTO kinds") for statement in seen)
    names = [column.key for column in Kinds.__table__.columns if column.key != "id"]
    assert [getattr(here, name) for name in names] == [getattr(by_engine, name) for name in names]
    async with orm.database.reader.connect() as connection:
        raw = f"SELECT {', '.join(names)} FROM kinds"
        first, second = (await connection.execute(sa.text(raw))).all()
        images = (await connection.execute(sa.text("SELECT image, recorded_at FROM diptych_log"))).all()
    assert first == second
    assert images[0][0] == images[1][0].replace('"id":2', '"id":1')
    assert [len(recorded_at) for _, recorded_at in images] == [26, 26]


async def test_changes_of_every_type_are_stored_and_returned_as_an_engine_does(orm, monkeypatch):
    nothing = dict.fromkeys(VALUES)
    ids = [(await orm.create(Kinds, **VALUES)).id for _ in range(2)]
    here = [await orm.update(Kinds, ids[0], return_instance=True, **each) for each in (nothing, VALUES)]
    monkeypatch.setattr(Schema, "is_quick", lambda *_: False)  # then the engine changes, in the thread
    seen = watched(orm)
    by_engine = [await orm.update(Kinds, ids[1], return_instance=True, **each) for each in (nothing, VALUES)]
    assert any(statement.startswith("UPDATE kinds") for statement in seen)
    names = [column.key for column in Kinds.__table__.columns if column.key != "id"]
    for one, other in zip(here, by_engine, strict=True):
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    async with orm.database.reader.connect() as connection:
        first, second = (await connection.execute(sa.text(f"SELECT {', '.join(names)} FROM kinds"))).all()
        images = (await connection.execute(sa.text("SELECT image FROM diptych_log ORDER BY position"))).all()
    assert first == second
    for one, other in zip(images[2:4], images[4:6], strict=True):
        assert one[0] == other[0].replace('"id":2', '"id":1')


async def test_a_row_is_looked_up_as_by_an_engine(orm, monkeypatch):
    made = await orm.create(Kinds, **VALUES)
    names = [column.key for column in Kinds.__table__.columns]
    here = await orm.get(Kinds, made.id)
    monkeypatch.setattr(PreparedSelect, "may_run", lambda _: False)  # then the engine reads, in the thread
    by_engine = await orm.get(Kinds, made.id)
    assert [(type(getattr(here, n)), getattr(here, n)) for n in names] == [
        (type(getattr(by_engine, n)), getattr(by_engine, n)) for n in names
    ]


async def test_errors_are_told_as_ever_and_leave_nothing(orm: ORMService):
    await orm.create(Book, title="T", author="A")
    with pytest.raises(DuplicateError) as refused:
        await orm.create(Book, title="T", author="B")
    assert tuple(refused.value.columns) == ("title",)
    await orm.create(Book, title="U", author="A")
    with pytest.raises(DuplicateError) as refused:
        await orm.update(Book, "U", "title", title="T")
    assert tuple(refused.value.columns) == ("title",)
    with pytest.raises(ConstraintError):
        await orm.create(Shelf, room="north", number=1, book_id=77)
    async with orm.database.reader.connect() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM diptych_log"))).scalar_one() == 2


async def test_defaults_made_by_a_function_are_the_engines(orm: ORMService):
    made = await orm.create(Defaults, name="four")
    assert (made.python, made.server, made.length) == ("made in Python", "made by the server", 4)
