"""Documents made from several rows, written by the commands that touch them: no pass is needed, whoever leads."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from diptych import Diptych, DuplicateError
from diptych.fence import acknowledge
from tests.catalogue import (
    Held,
    Recorded,
    answered_by,
    eventually,
    fence_row,
    keeper_of,
    redis_side_of,
    stop_keeper,
    store_of,
)
from tests.integration.test_joined_processes import (
    GetCard,
    Item,
    ItemCard,
    ListCards,
    Owner,
    _shows,
    _shows_in_redis,
    cards,
)
from tests.integration.test_killed_before import LONG_MS, _killed


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no pass comes, a command that a busy machine has held up would wait for the end of the lease."""
    monkeypatch.setattr(acknowledge, "_MAKING_S", 30.0)


@asynccontextmanager
async def _without_passes(
    database_url: str, redis_url: str, **settings: Any
) -> AsyncIterator[tuple[Diptych, Diptych]]:
    """Two processes answered from Redis, in whose documents Ann and Bea own nothing yet; no keeper makes a pass."""
    make = functools.partial(cards, database_url, redis_url, **{"lease_ms": LONG_MS, **settings})
    async with make() as one, make() as two:
        for app in (one, two):
            await answered_by(app, "redis")
        await one.orm.create(Owner, id=1, name="Ann")
        await one.orm.create(Owner, id=2, name="Bea")
        for app in (one, two):
            await stop_keeper(app)
        yield one, two


async def _is_shown(app: Diptych, code: str, owner: str | None, note: str = "") -> None:
    """Fails unless Redis answers, with this document and a list that shows the same."""
    assert await _shows(app, code, owner, note) == "redis"


async def _is_gone(app: Diptych, code: str) -> None:
    document = await app.ask(GetCard(code))
    assert (document.served.store, not document) == ("redis", True)
    page = await app.ask(ListCards())
    assert page.served.store == "redis"
    assert code not in [card.code for card in page.decode().items]


async def test_each_change_is_in_redis_when_it_is_acknowledged_whichever_process_made_it(
    database_url, valkey
):
    async with _without_passes(database_url, valkey.url) as (one, two):
        completed = (await fence_row(one)).passes_completed
        for app, other in ((one, two), (two, one)):
            await app.orm.create(Item, code="a", owner_id=1)
            await _is_shown(other, "a", "Ann")
            await app.orm.update(Owner, 1, name="Cid")
            await _is_shown(other, "a", "Cid")
            await app.orm.update(Item, "a", "code", code="b", owner_id=2)
            await _is_gone(other, "a")
            await _is_shown(other, "b", "Bea")
            await app.orm.update(Owner, 1, name="Ann")
            await app.orm.delete(Owner, 2)
            await _is_shown(other, "b", None)
            await app.orm.create(Owner, id=2, name="Bea")
            await _is_shown(other, "b", "Bea")
            await app.orm.delete(Item, "b", "code")
            await _is_gone(other, "b")
        assert (await fence_row(one)).passes_completed == completed


async def test_a_session_and_a_statement_of_sql_are_in_redis_when_they_are_acknowledged(database_url, valkey):
    async with _without_passes(database_url, valkey.url) as (_, two):
        async with two.orm.session() as session:
            session.add(Item(code="a", owner_id=1, note=""))
        await _is_shown(two, "a", "Ann")
        async with two.orm.session() as session:
            await session.execute(sa.update(Item).values(owner_id=2))
        await _is_shown(two, "a", "Bea")


async def test_many_at_once_on_one_row_lose_nothing(database_url, valkey):
    """Commands of both processes add rows beside changes of the row that all of them show."""
    async with _without_passes(database_url, valkey.url) as (one, two):

        async def add(number: int) -> None:
            app, other = (one, two)[:: 1 if number % 2 else -1]
            await app.orm.create(Item, code=f"{number:02}", owner_id=1)
            document = await other.ask(GetCard(f"{number:02}"))
            assert (document.served.store, bool(document)) == ("redis", True)

        async def rename() -> None:
            for number in range(8):
                await two.orm.update(Owner, 1, name=f"Ann {number}")
                page = await one.ask(ListCards())
                assert page.served.store == "redis"
                assert {card.owner for card in page.decode().items} <= {f"Ann {number}"}

        await asyncio.gather(rename(), *map(add, range(32)))
        for number in range(32):
            await _is_shown(one, f"{number:02}", "Ann 7")


async def test_a_row_that_a_killed_command_has_moved_away_is_not_left_where_it_was(database_url, valkey):
    """★ The document of the row is touched by nothing that the later command did."""
    async with _without_passes(database_url, valkey.url) as (one, two):
        await one.orm.create(Item, code="a", owner_id=1)
        await _killed(one, one.orm.update(Item, "a", "code", owner_id=2))
        await two.orm.update(Owner, 1, name="Cid")
        await _is_shown(two, "a", "Bea")


async def test_a_key_that_a_killed_command_has_changed_is_not_left_either(database_url, valkey):
    async with _without_passes(database_url, valkey.url) as (one, two):
        await one.orm.create(Item, code="a", owner_id=1)
        await _killed(one, one.orm.update(Item, "a", "code", code="b"))
        await two.orm.create(Item, code="a", owner_id=2)
        await _is_shown(two, "a", "Bea")
        await _is_shown(two, "b", "Ann")


async def test_a_change_by_others_is_brought_too(database_url, valkey):
    """By a program that knows nothing of diptych: triggers have logged what it did."""
    async with _without_passes(database_url, valkey.url) as (one, two):
        await one.orm.create(Item, code="a", owner_id=1)
        engine = sa.create_engine(_of_a_driver(database_url))
        with Session(engine) as session, session.begin():
            session.execute(sa.update(Item).values(owner_id=2))
        engine.dispose()
        await two.orm.update(Owner, 1, name="Cid")
        await _is_shown(two, "a", "Bea")


async def test_a_table_that_is_altered_under_prepared_statements_costs_no_answer(
    database_url, valkey, caplog
):
    async with cards(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await app.orm.create(Owner, id=1, name="Ann")
        await app.orm.create(Item, code="a", owner_id=1)
        engine = sa.create_engine(_of_a_driver(database_url))
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE items ADD COLUMN extra INTEGER"))
        engine.dispose()
        for name in ("Bea", "Cid"):
            await app.orm.update(Owner, 1, name=name)
            await _shows(app, "a", name)
        await _shows_in_redis(app, "a", "Cid")
        assert "could not be made anew" not in caplog.text


def _of_a_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


async def test_an_error_tells_of_nothing_that_the_next_query_does_not_find(database_url, valkey):
    async with _without_passes(database_url, valkey.url) as (one, two):
        await _killed(one, one.orm.create(Item, code="a", owner_id=1))
        with pytest.raises(DuplicateError):
            await two.orm.create(Item, code="a", owner_id=2)
        await _is_shown(two, "a", "Ann")


async def test_what_redis_has_not_confirmed_is_brought_by_the_next_command(database_url, valkey):
    """★ The first command goes on to wait; a later one may not take its documents for written."""
    async with _without_passes(database_url, valkey.url, lease_ms=3000) as (one, two):
        await one.orm.create(Item, code="a", owner_id=1)
        store, refused = store_of(two), asyncio.Event()
        apply = store.apply

        async def refuse(*_arguments: Any, **_named: Any) -> str:
            refused.set()
            return "ELSEWHERE"

        store.apply = refuse  # type: ignore[method-assign]
        waiting = asyncio.create_task(two.orm.update(Item, "a", "code", note="new"))
        await refused.wait()
        store.apply = apply  # type: ignore[method-assign]
        await two.orm.update(Owner, 2, name="Cid")
        await _is_shown(one, "a", "Ann", "new")
        assert not waiting.done()
        await waiting  # for the end of the lease


async def test_a_command_that_commits_during_a_snapshot_waits_for_the_next(database_url, valkey):
    """★ A snapshot that has begun may not see the commit."""
    async with _without_passes(database_url, valkey.url) as (one, _):
        await one.orm.create(Item, code="a", owner_id=1)
        held = Held(one.orm.side.fence, "sight_in", after=True)
        first = asyncio.create_task(one.orm.update(Owner, 1, name="Cid"))
        await held.reached.wait()
        second = asyncio.create_task(one.orm.update(Item, "a", "code", note="new"))
        await asyncio.sleep(0.05)
        assert not second.done()
        held.go_on.set()
        await second
        await _is_shown(one, "a", "Cid", "new")
        await first


async def test_more_documents_than_the_setting_says_are_left_to_a_pass(database_url, valkey):
    async with cards(database_url, valkey.url, direct_documents=3) as app:
        await app.orm.create(Owner, id=1, name="Ann")
        for number in range(4):
            await app.orm.create(Item, code=str(number), owner_id=1)
        await _shows_in_redis(app, "3", "Ann")
        made = Recorded(redis_side_of(app)._direct[keeper_of(app).replica.id], "_writes_of")
        number = (await fence_row(app)).passes_completed
        await app.orm.update(Owner, 1, name="Bea")
        for code in range(4):
            await _shows(app, str(code), "Bea")
        assert made.calls

        async def has_made_a_pass() -> bool:
            return (await fence_row(app)).passes_completed > number

        # Its documents are in Redis before the fence says that it is complete.
        await eventually(has_made_a_pass, "a pass")


async def test_a_pass_does_not_write_again_what_a_command_has_written_in_whichever_process(
    database_url, valkey
):
    """But what a killed command has left undone, it writes. The lease is longer, for slow machines."""
    async with (
        cards(database_url, valkey.url, lease_ms=5_000) as app,
        cards(database_url, valkey.url, lease_ms=5_000) as other,
    ):
        await stop_keeper(other)
        await app.orm.create(Owner, id=1, name="Ann")
        await answered_by(app, "redis")
        held = Held(store_of(app), "inspect")
        await held.reached.wait()
        await other.orm.create(Item, code="a", owner_id=1)
        await _killed(other, other.orm.create(Item, code="b", owner_id=1))
        written = Recorded(store_of(app), "apply")
        held.go_on.set()

        async def is_there() -> bool:
            document = await app.ask(GetCard("b"))
            return document.served.store == "redis" and bool(document)

        await eventually(is_there, "a pass has brought it")
        assert {write.key for (_, writes, *_), _ in written.calls for write in writes} == {b"b"}


async def test_documents_that_are_left_to_a_pass_are_counted_once(database_url, valkey):
    """And the commands after the pass write theirs again."""
    async with cards(database_url, valkey.url, direct_documents=3, lease_ms=2000) as app:
        await app.orm.create(Owner, id=1, name="Ann")
        for number in range(4):
            await app.orm.create(Item, code=str(number), owner_id=1)
        await _shows_in_redis(app, "3", "Ann")
        made = Recorded(redis_side_of(app)._direct[keeper_of(app).replica.id], "_writes_of")
        held = Held(keeper_of(app).replica, "replay_log")
        renaming = asyncio.create_task(app.orm.update(Owner, 1, name="Bea"))
        await held.reached.wait()
        others = [asyncio.create_task(app.orm.create(Item, code=f"new {n}", owner_id=None)) for n in range(3)]
        await asyncio.sleep(0.2)
        assert len(made.calls) == 1
        held.go_on.set()
        await asyncio.gather(renaming, *others)
        await _shows_in_redis(app, "3", "Bea")
        completed = (await fence_row(app)).passes_completed
        await app.orm.create(Item, code="last", owner_id=1)
        await _shows(app, "last", "Bea")
        assert len(made.calls) == 2
        assert (await fence_row(app)).passes_completed <= completed + 1


async def test_without_redis_in_the_process_a_pass_of_another_one_brings_the_change(database_url, valkey):
    async with cards(database_url, valkey.url) as app, cards(database_url, None) as beside:
        await answered_by(app, "redis")
        await app.orm.create(Owner, id=1, name="Ann")
        await beside.orm.create(Item, code="a", owner_id=1)
        assert (await app.ask(GetCard("a"))).decode() == ItemCard("a", "", "Ann")

        async def is_redis() -> bool:
            return await _shows(app, "a", "Ann") == "redis"

        await eventually(is_redis, "Redis shows it")
