"""Passes end, however much is changed while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from demo_app.messages import AddBook
from diptych import ConfigService, Diptych
from tests.catalogue import catalogue, keeper_of, sees, sees_in_redis, set_author
from tests.integration.test_joined_processes import Item, Owner, _shows_in_redis, cards

ROWS = 30
FEW = 8
"""So many rows are changed at most while a command waits for its pass: those of this pass and of the regular ones."""


class _WhileItReads:
    """Has ``change`` commit something with each number after each reading of the log that has found changes."""

    def __init__(self, app: Diptych, change: Callable[[int], Awaitable[Any]]) -> None:
        self.count = 0
        self._fence, self._change = keeper_of(app).replica._fence, change
        self._read = self._fence.changes
        self._fence.changes = self._changes  # type: ignore[method-assign, assignment]

    async def _changes(self, *arguments: Any) -> Any:
        part = await self._read(*arguments)
        if part.changes and self.count < ROWS - 2:
            await self._change(self.count)
            self.count += 1
        return part


async def _committed(app: Diptych, work: Callable[[], Awaitable[Any]]) -> None:
    """Has it committed, by a process that nobody waits for."""

    async def at_once(*_: object) -> None:
        pass

    app.orm.acknowledger.acknowledge = at_once  # type: ignore[method-assign, assignment]
    await work()


@pytest.fixture
def beside(database_url: str) -> Diptych:
    """Another process, without Redis and with an older idea of the table: it does not know of the column isbn."""
    return Diptych(
        ConfigService(environ={}, database_url=database_url), models=OldBase, handlers=[], read_models=[]
    )


class OldBase(DeclarativeBase):
    pass


class OldBook(OldBase):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(100), unique=True)
    author: Mapped[str] = mapped_column(sa.String(100))
    stock_quantity: Mapped[int]


async def test_a_pass_over_joined_documents_ends_while_rows_are_deleted(database_url, valkey):
    """A row that is deleted after the log was read is none that has to be looked for."""
    async with cards(database_url, valkey.url) as app, cards(database_url, None) as other:
        await other.orm.create(Owner, id=1, name="Ann")
        await asyncio.gather(*(other.orm.create(Item, code=f"{i}", owner_id=1) for i in range(ROWS)))
        await _shows_in_redis(app, "0", "Ann")

        async def delete(number: int) -> None:
            await _committed(other, lambda: other.orm.delete(Item, f"{number}", "code"))

        deleting = _WhileItReads(app, delete)
        await app.orm.update(Owner, 1, name="Bea")
        assert 0 < deleting.count < FEW
        await _shows_in_redis(app, f"{ROWS - 1}", "Bea")


async def test_a_pass_over_what_another_version_wrote_ends_while_rows_are_deleted(
    database_url, valkey, beside
):
    """Rows whose image in the log lacks a column are read from SQL, where they may be no more."""
    async with catalogue(database_url, valkey.url) as app, beside:
        await asyncio.gather(*(app.execute(AddBook(f"{i}", "old")) for i in range(ROWS)))
        await sees_in_redis(app, "0", "old")

        async def change_and_delete(number: int) -> None:
            title = f"{number}"
            await _committed(beside, lambda: beside.orm.update(OldBook, title, "title", author="new"))
            await _committed(beside, lambda: beside.orm.delete(OldBook, title, "title"))

        deleting = _WhileItReads(app, change_and_delete)
        await change_and_delete(ROWS - 2)
        del beside.orm.acknowledger.acknowledge
        await beside.orm.update(OldBook, f"{ROWS - 1}", "title", author="new")
        assert 0 < deleting.count < FEW
        await sees_in_redis(app, f"{ROWS - 1}", "new")
        await set_author(app, f"{ROWS - 1}", "newer")
        await sees(app, f"{ROWS - 1}", "newer")
