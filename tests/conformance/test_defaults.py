"""Defaults of columns made by functions: called once for each row, before its statement."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import InvalidValueError, ORMService
from tests.conformance.conftest import config, statements_of


class Base(DeclarativeBase):
    pass


CALLS: list[str] = []
"""Names of the functions called since the test began."""


def noted(name: str, make: Callable[[], Any]) -> Callable[[], Any]:
    def function() -> Any:
        CALLS.append(name)
        return make()

    return function


def fail() -> int:
    raise LookupError("no tenant")


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=noted("id", uuid.uuid4))
    name: Mapped[str] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(insert_default=noted("number", lambda: 7))
    changed: Mapped[int | None] = mapped_column(onupdate=noted("changed", lambda: 8))


class Failing(Base):
    __tablename__ = "failing"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    tenant: Mapped[int] = mapped_column(default=fail)
    changed_by: Mapped[int | None] = mapped_column(onupdate=fail)


class InContext(Base):
    """A function that is told of the context is told of what the functions before it have made."""

    __tablename__ = "in_context"

    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(default=noted("first", lambda: 3))
    second: Mapped[int] = mapped_column(default=lambda context: context.get_current_parameters()["first"] + 1)


class Exact(Base):
    __tablename__ = "exact_by_default"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(20, 4), default=lambda: Decimal("12345678901234.5678"))
    at: Mapped[datetime.datetime] = mapped_column(
        sa.DateTime(timezone=True), default=lambda: datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    )


@pytest.fixture
async def orders(orm: ORMService) -> ORMService:
    """An open service with these tables, empty."""
    async with orm.database.writer.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    CALLS.clear()
    return orm


async def test_a_function_is_called_once_for_each_row_that_lacks_its_value(orders: ORMService):
    made = await orders.create(Order, name="a")
    assert (CALLS, made.number, made.changed) == (["id", "number"], 7, None)
    assert await orders.get(Order, made.id) is not None

    CALLS.clear()
    given = await orders.create(Order, id=str(uuid.UUID(int=1)), name="b", number=0)
    assert (CALLS, given.id, given.number) == ([], uuid.UUID(int=1), 0)

    some = await orders.create_all(Order, [{"name": "c"}, {"name": "d", "number": 1}])
    assert CALLS == ["id", "number", "id"]
    assert [each.number for each in some] == [7, 1]


async def test_a_function_is_called_once_for_each_change_that_lacks_its_value(orders: ORMService):
    row = await orders.create(Order, name="a")
    CALLS.clear()
    changed = await orders.update(Order, row.id, return_instance=True, name="b")
    assert changed is not None
    assert (CALLS, changed.changed, changed.number) == (["changed"], 8, 7)

    CALLS.clear()
    changed = await orders.update(Order, row.id, return_instance=True, changed=1)
    assert changed is not None
    assert (CALLS, changed.changed) == ([], 1)
    assert await orders.update(Order, row.id)
    assert CALLS == []


async def test_an_upsert_calls_the_functions_of_what_it_does(orders: ORMService):
    first = await orders.upsert(Order, conflict_on=Order.name, name="a", number=1)
    assert CALLS.count("id") == 1
    assert first.changed is None
    CALLS.clear()
    second = await orders.upsert(Order, conflict_on=Order.name, name="a", number=2)
    assert CALLS == ["changed"]
    assert (second.id, second.number, second.changed) == (first.id, 2, 8)


async def test_what_a_function_makes_is_in_the_log(orders: ORMService):
    import msgspec

    row = await orders.create(Order, name="a")
    await orders.update(Order, row.id, name="b")
    async with orders.database.reader.connect() as connection:
        found = await connection.execute(sa.text("SELECT image FROM diptych_log ORDER BY position"))
        created, updated = (msgspec.json.decode(text) for (text,) in found.all()[-2:])
    assert created == {"id": str(row.id), "name": "a", "number": 7, "changed": None}
    assert updated == {"id": str(row.id), "name": "b", "number": 7, "changed": 8}


async def test_rows_with_functions_are_changed_by_one_statement(postgres_url: str, monkeypatch):
    async with ORMService(config(postgres_url)) as orm:
        row = await orm.create(Order, name="a")
        with statements_of(monkeypatch) as seen:
            await orm.create(Order, name="b")
            await orm.update(Order, row.id, name="c")
        assert "BEGIN ISOLATION LEVEL REPEATABLE READ" not in seen
        assert len([text for text in seen if "orders" in text]) == 2


async def test_an_error_of_a_function_goes_through_and_nothing_was_sent(orders: ORMService):
    """So a handler may go on after it, as after a value that doesn't fit."""
    with pytest.raises(LookupError, match="no tenant"):
        await orders.create(Failing, name="a")
    with pytest.raises(LookupError, match="no tenant"):
        await orders.create_all(Failing, [{"name": "a", "tenant": 1}, {"name": "b"}])
    row = await orders.create(Failing, name="a", tenant=1)
    with pytest.raises(LookupError, match="no tenant"):
        await orders.update(Failing, row.id, name="b")
    assert [(each.name, each.tenant) for each in await orders.all(Failing)] == [("a", 1)]


async def test_a_function_with_a_context_is_told_what_was_made_before(orders: ORMService):
    made = await orders.create(InContext)
    assert (made.first, made.second, CALLS) == (3, 4, ["first"])
    given = await orders.create(InContext, first=10)
    assert (given.second, CALLS) == (11, ["first"])


async def test_a_value_of_a_function_that_sqlite_would_change_is_refused(orders: ORMService):
    if orders.database.name == "postgresql":
        made = await orders.create(Exact, name="a")
        assert (made.amount, made.at.year) == (Decimal("12345678901234.5678"), 2026)
        return
    with pytest.raises(InvalidValueError) as caught:
        await orders.create(Exact, name="a")
    [fault] = caught.value.faults
    assert fault.field == "a value"
    assert "SQLite can hold exactly" in fault.detail
    assert await orders.all(Exact) == []
