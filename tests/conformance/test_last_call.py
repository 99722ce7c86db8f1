"""A command that ends with its only change: the change commits by itself, with the same outcomes as otherwise."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    AmbiguousLookupError,
    Command,
    Diptych,
    DuplicateError,
    InvalidValueError,
    ORMService,
    UnitOfWorkError,
    UnreadableRowError,
)
from diptych.write import changes
from tests.conformance.conftest import config, statements_of


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Size(enum.Enum):
    S = 1
    L = 2


class Thing(Base):
    """A column of each type that is sent to PostgreSQL's driver directly."""

    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    group: Mapped[str | None]
    data: Mapped[Any] = mapped_column(sa.JSON().with_variant(JSONB(), "postgresql"), default={"a": [1, 2.5]})
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 3))
    weight: Mapped[float | None] = mapped_column(sa.Double)
    code: Mapped[uuid.UUID | None]
    at: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    local: Mapped[datetime.datetime | None]
    day: Mapped[datetime.date | None]
    time: Mapped[datetime.time | None]
    colour: Mapped[Colour | None]
    size: Mapped[Size | None]
    flag: Mapped[bool] = mapped_column(default=False)
    updated: Mapped[datetime.datetime] = mapped_column(
        sa.DateTime(timezone=True), server_default=sa.func.now(), onupdate=sa.func.now()
    )


VALUES: dict[str, Any] = {
    "group": "g'\"\\ß",
    "data": {"b": None, "c": ["ü", 10**15, 0.1]},
    "price": decimal.Decimal("-12.500"),
    "weight": 0.1,
    "code": uuid.UUID(int=7),
    "at": datetime.datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "local": datetime.datetime(1, 1, 1),
    "day": datetime.date.max,
    "time": datetime.time(23, 59, 59, 999999),
    "colour": Colour.BLUE,
    "size": Size.L,
    "flag": True,
}


class Add(Command[int]):
    name: str


class Rename(Command[bool]):
    name: str
    new: str


class Remove(Command[bool]):
    name: str


class RenameThenFail(Command[bool]):
    name: str


class RenameTwice(Command[bool]):
    name: str


class Swallow(Command[bool]):
    name: str


class RenameGroup(Command[bool]):
    group: str


class Handlers:
    def __init__(self, app: Diptych, orm: ORMService) -> None:
        self.app, self.orm = app, orm

    async def add(self, command: Add) -> int:
        return (await self.orm.create(Thing, name=command.name)).id

    async def rename(self, command: Rename) -> bool:
        return await self.orm.update(Thing, command.name, "name", name=command.new)

    async def remove(self, command: Remove) -> bool:
        return await self.orm.delete(Thing, command.name, "name")

    async def fail(self, command: RenameThenFail) -> bool:
        await self.orm.update(Thing, command.name, "name", name="changed")
        raise ValueError("afterwards")

    async def twice(self, command: RenameTwice) -> bool:
        """Its only ``await`` is of another command, whose change is not the last one."""
        return await self.both(command.name)

    async def both(self, name: str) -> bool:
        await self.app.execute(Rename(name, "between"))
        return await self.app.execute(Rename("between", "taken"))

    async def swallow(self, command: Swallow) -> bool:
        try:
            return await self.orm.update(Thing, command.name, "name", name="taken")
        except Exception:
            return False

    async def group(self, command: RenameGroup) -> bool:
        return await self.orm.update(Thing, command.group, "group", flag=True)


@pytest.fixture(params=["sqlite", "postgresql"])
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Diptych]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/test.db" if is_sqlite else request.getfixturevalue("postgres_url")
    async with Diptych(config(url), models=Base, handlers=[Handlers]) as started:
        for name in ("one", "taken"):
            await started.orm.create(Thing, name=name, group="g")
        yield started


async def names(app: Diptych) -> list[str]:
    return [thing.name for thing in await app.orm.all(Thing)]


async def log_of(app: Diptych) -> list[Any]:
    async with app.orm.database.reader.connect() as connection:
        found = await connection.execute(
            sa.text("SELECT kind, image, old_key FROM diptych_log ORDER BY position")
        )
        return list(found)


async def test_one_change_is_one_statement_and_a_look_at_the_fence(app: Diptych, monkeypatch):
    if app.orm.database.name == "sqlite":
        pytest.skip("SQLite's transactions are shared by many commands")
    with statements_of(monkeypatch) as seen:
        assert await app.execute(Rename("one", "two"))
        assert not await app.execute(Rename("one", "two"))
        assert await app.execute(Remove("two"))
        await app.orm.create(Thing, name="three")
        assert await app.orm.update(Thing, "three", "name", flag=True)
    assert not [text for text in seen if text.startswith(("BEGIN", "COMMIT", "ROLLBACK"))]
    assert len(seen) == 2 * 5
    assert await names(app) == ["taken", "three"]


async def test_whatever_comes_after_the_change_leaves_nothing_behind_if_it_fails(app: Diptych):
    logged = len(await log_of(app))
    with pytest.raises(ValueError, match="afterwards"):
        await app.execute(RenameThenFail("one"))
    with pytest.raises(DuplicateError):
        await app.execute(RenameTwice("one"))
    assert await names(app) == ["one", "taken"]
    assert len(await log_of(app)) == logged


async def test_a_change_that_fails_changes_nothing_and_a_handler_can_not_hide_that(app: Diptych):
    logged = len(await log_of(app))
    with pytest.raises(DuplicateError):
        await app.execute(Rename("one", "taken"))
    with pytest.raises(UnitOfWorkError, match="one of its statements failed"):
        await app.execute(Swallow("one"))
    with pytest.raises(AmbiguousLookupError):
        await app.execute(RenameGroup("g"))
    with pytest.raises(InvalidValueError):
        await app.orm.update(Thing, "one", "name", price=decimal.Decimal("0.0001"))
    assert await names(app) == ["one", "taken"]
    assert len(await log_of(app)) == logged
    assert await app.execute(Rename("one", "two"))


async def test_concurrent_changes_of_one_row_are_all_made(app: Diptych):
    await asyncio.gather(*(app.orm.update(Thing, "one", "name", group=f"{n}") for n in range(20)))
    updates = [row for row in await log_of(app) if row.kind == "updated"]
    assert len(updates) == 20


async def test_rows_and_images_are_those_of_two_statements(app: Diptych, monkeypatch):
    instances, logged = [], []
    for is_possible in (True, False):
        with monkeypatch.context() as patch:
            if not is_possible:
                patch.setattr(changes, "_is_possible", lambda *_: False)
            made = await app.orm.create(Thing, name="x", **VALUES)
            changed = await app.orm.update(Thing, "x", "name", return_instance=True, group=None, price=None)
            await app.orm.delete(Thing, "x", "name")
        instances.append([_values(made), _values(changed)])
        logged.append([(row.kind, row.old_key, row.image) for row in (await log_of(app))[-3:]])
    assert instances[0] == instances[1]
    entity = app.orm.side.entities.of(Thing)
    for (kind, old, image), (kind_2, old_2, image_2) in zip(*logged, strict=True):
        assert (kind, _plain(entity, old)) == (kind_2, _plain(entity, old_2))
        assert _plain(entity, image) == _plain(entity, image_2)


def _values(thing: Any) -> dict[str, Any]:
    different = ("id", "updated", "_sa_instance_state")
    return {name: (type(v), v) for name, v in vars(thing).items() if name not in different}


def _plain(entity: Any, text: str | None) -> Any:
    """What is read from the log: the text of the two ways may differ, such as in the order within JSON."""
    import msgspec

    if text is None:
        return None
    read = entity.from_log(msgspec.json.decode(text))
    return {name: (type(value), value) for name, value in read.items() if name not in ("id", "updated")}


@pytest.mark.parametrize(
    ("column", "value"),
    [("day", "'0044-03-15 BC'"), ("at", "'294000-01-01'"), ("local", "'0044-03-15 BC'"), ("time", "'24:00'")],
)
async def test_a_value_that_python_can_not_have_leaves_the_row_as_it_was(
    app: Diptych, column: str, value: str
):
    if app.orm.database.name == "sqlite":
        pytest.skip("values of PostgreSQL")
    async with app.orm.database.writer.begin() as connection:
        await connection.execute(sa.text(f"UPDATE things SET {column} = {value} WHERE name = 'one'"))
    logged = len(await log_of(app))
    with pytest.raises(UnreadableRowError):
        await app.execute(Rename("one", "two"))
    assert len(await log_of(app)) == logged
    assert await app.orm.update(Thing, "one", "name", False, **{column: None})
    assert await app.execute(Rename("one", "two"))
