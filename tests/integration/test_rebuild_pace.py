"""The pace of a planned rebuild of documents that are made from several rows."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from diptych.hinge.pace import Pace
from tests.books import AddBook, BookReadModel
from tests.catalogue import answered_by, catalogue
from tests.integration.test_joined_processes import Item, ItemCards, Owner, cards


async def test_nothing_is_read_while_it_rests(
    database_url: str, valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next rows are read after the rest: else a rebuild takes the cores that it leaves to others."""
    async with cards(database_url, valkey.url, rebuild_batch_size=5) as app:
        await app.orm.create(Owner, id=1, name="Ann")
        for number in range(1, 31):
            await app.orm.create(Item, id=number, code=f"{number:02}", owner_id=1, note="")
        await answered_by(app, "redis")
        batches = 0
        read_before_rests: list[int] = []
        rest = Pace.rest

        async def rest_noted(pace: Pace) -> None:
            read_before_rests.append(batches)
            await rest(pace)

        def note(*call: object) -> None:
            nonlocal batches
            batches += "FROM items" in str(call[2]) and "ORDER BY" in str(call[2])  # not the number of all

        monkeypatch.setattr(Pace, "rest", rest_noted)
        sa.event.listen(app.orm.database.reader.sync_engine, "before_cursor_execute", note)
        assert await app.rebuild(ItemCards) == 30
    assert read_before_rests[:6] == [1, 2, 3, 4, 5, 6]


async def test_the_former_documents_are_deleted_with_rests(
    sqlite_url: str, valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million keys take Redis many seconds of work, which nobody waits for."""
    rests: list[Pace] = []

    async def rest(pace: Pace) -> None:
        rests.append(pace)

    async with catalogue(sqlite_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "x"))
        await answered_by(app, "redis")
        monkeypatch.setattr(Pace, "rest", rest)
        assert await app.rebuild(BookReadModel) == 1
    assert rests  # documents of one row are written without
