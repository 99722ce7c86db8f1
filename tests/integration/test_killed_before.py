"""A command whose process was killed between its commit and Redis, and another one that builds on what it did.

The killed command was never acknowledged; the one after it is, and it vouches for what it found in SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from demo_app.messages import AddBook, BookChanges, DeleteBook, EditBook, ListBooks
from demo_app.models.book import Book
from diptych import Diptych
from tests.catalogue import answered_by, catalogue, fence_row, keeper_of, sees, sees_in_redis
from tests.integration.test_joined_processes import Item, ListCards, Owner, _shows, _shows_in_redis, cards

LONG_MS = 60_000
"""A lease in which no pass comes by itself."""


@asynccontextmanager
async def _two(
    make: Callable[..., Diptych], database_url: str, redis_url: str
) -> AsyncIterator[tuple[Diptych, Diptych]]:
    """Two processes that are answered from Redis. A command that came before could wait for the end of the lease."""
    async with (
        make(database_url, redis_url, lease_ms=LONG_MS) as one,
        make(database_url, redis_url, lease_ms=LONG_MS) as two,
    ):
        for app in (one, two):
            await answered_by(app, "redis")
        yield one, two


async def _killed(app: Diptych, work: Awaitable[Any]) -> None:
    """Has a command committed and no more: nothing reaches Redis, nobody hears of it."""
    waiting = asyncio.Event()

    async def never(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    app.orm.acknowledger.acknowledge = never  # type: ignore[method-assign, assignment]
    task = asyncio.ensure_future(work)
    await waiting.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for concluding in list(app.orm.units._concluding):
        concluding.cancel()
    del app.orm.acknowledger.acknowledge


async def _titles(app: Diptych) -> list[str]:
    page = await app.ask(ListBooks())
    return [book.title for book in page.decode().items]


Then = Callable[[Diptych, int], Awaitable[Any]]


@pytest.mark.parametrize(
    ("then", "left"),
    [
        pytest.param(lambda app, key: app.orm.delete(Book, key), [], id="deleted"),
        pytest.param(lambda app, key: app.orm.update(Book, key, author="y"), ["b"], id="updated"),
        pytest.param(lambda app, key: app.orm.update(Book, key, title="c"), ["c"], id="renamed"),
    ],
)
async def test_a_row_whose_new_address_is_not_in_redis_yet(
    database_url: str, valkey: Any, then: Then, left: list[str]
) -> None:
    """The later change is written at the new address; the document at the old one must not outlive it."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        key = (await one.orm.all(Book))[0].id
        await _killed(one, one.execute(EditBook("a", BookChanges(title="b"))))
        await then(two, key)
        await sees(two, "a", None)
        assert await _titles(two) == left


async def test_those_who_come_after_an_early_change_are_not_taken_in(database_url, valkey):
    """The one before them is written, and waits for its pass; nobody may take that for all there is."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        key = (await one.orm.all(Book))[0].id
        await _killed(one, one.execute(EditBook("a", BookChanges(title="b"))))

        async def applied_only(changes: Any, known: Any, *_: object) -> None:
            applying = one.orm.acknowledger.read_side.apply(changes, known)  # type: ignore[union-attr]
            assert await asyncio.gather(*applying.values())

        one.orm.acknowledger.acknowledge = applied_only  # type: ignore[method-assign, assignment]
        await one.orm.update(Book, key, author="early")
        completed = (await fence_row(two)).passes_completed
        await two.orm.update(Book, key, author="late")
        assert (await fence_row(two)).passes_completed > completed, "it has waited for a pass"
        await sees(two, "a", None)
        assert await _titles(two) == ["b"]
        completed = (await fence_row(two)).passes_completed
        await two.orm.update(Book, key, author="later")
        assert (await fence_row(two)).passes_completed == completed, "after it everything is as ever"
        await sees(two, "b", "later")


async def test_a_command_that_finds_nothing_to_do_vouches_for_what_it_found(database_url, valkey):
    """Its client tries again after an unknown outcome."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        await _killed(one, one.execute(DeleteBook("a")))
        assert await two.orm.delete(Book, "a", "title") is False
        await sees(two, "a", None)


async def test_a_row_that_gets_another_address_during_a_pass_is_not_missing_after_it(database_url, valkey):
    """The pass reads rows as they were when it read of their changes: it does not look for one that is elsewhere."""
    async with _two(cards, database_url, valkey.url) as (one, two):
        await one.orm.create(Owner, id=1, name="Ann")
        await one.orm.create(Item, code="a", owner_id=1)
        await _shows_in_redis(one, "a", "Ann")
        replica = keeper_of(one).replica
        read, moved = replica._fence.changes, False

        async def and_then_moved(*arguments: Any) -> Any:
            nonlocal moved
            part = await read(*arguments)
            if part.changes and not moved:
                moved = True
                await _killed(two, two.orm.update(Item, "a", "code", code="b"))
            return part

        await keeper_of(two).stop()
        replica._fence.changes = and_then_moved  # type: ignore[method-assign, assignment]
        await one.orm.update(Item, "a", "code", note="new")
        assert moved
        # The other command was not acknowledged: whether it shows is open, but the row is there.
        (card,) = (await one.ask(ListCards())).decode().items
        assert card.code in ("a", "b")
        assert await _shows(one, card.code, "Ann", "new") == "redis"
        await one.orm.update(Item, "b", "code", note="newer")
        await _shows(one, "b", "Ann", "newer")
        assert [card.code for card in (await one.ask(ListCards())).decode().items] == ["b"]
