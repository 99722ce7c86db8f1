"""A command whose process was killed between its commit and Redis, and a later command on top of its changes.

The killed command was never acknowledged; the later command is, and vouches for the rows that it found in SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, DuplicateError
from diptych.fence.arrivals import Ending
from diptych.write.unit_of_work import new_context
from tests.books import AddBook, Book, BookChanges, DeleteBook, EditBook, ListBooks
from tests.catalogue import (
    Held,
    Recorded,
    answered_by,
    author_of,
    catalogue,
    fence_row,
    keeper_of,
    sees,
    sees_in_redis,
)
from tests.integration.test_joined_processes import Item, ListCards, Owner, _shows, _shows_in_redis, cards

LONG_MS = 60_000
"""A lease in which no pass comes by itself."""


@asynccontextmanager
async def _two(
    make: Callable[..., Diptych], database_url: str, redis_url: str, lease_ms: int = LONG_MS
) -> AsyncIterator[tuple[Diptych, Diptych]]:
    """Two processes answered from Redis. Before, a command could have to wait for the end of the lease."""
    async with (
        make(database_url, redis_url, lease_ms=lease_ms) as one,
        make(database_url, redis_url, lease_ms=lease_ms) as two,
    ):
        for app in (one, two):
            await answered_by(app, "redis")
        yield one, two


async def _killed(
    app: Diptych, work: Awaitable[Any], *, applied: bool = False, among: Collection[str] | None = None
) -> None:
    """Has a command committed and no more, unless ``applied``: nothing reaches Redis, no caller hears of success.

    What is ``applied`` is in the read models ``among``, or in all.
    """
    waiting = asyncio.Event()

    async def never(ending: Ending) -> None:
        if applied:
            assert app.orm.side.acknowledger.tracker.read_side is not None
            targets = {
                fence: target
                for fence, target in ending.targets.items()
                if among is None or fence.read_model.partition(":")[2] in among
            }
            applying = app.orm.side.acknowledger.tracker.read_side.apply(ending.changes, targets)
            assert all(await asyncio.gather(*applying.values()))
        waiting.set()
        await asyncio.Event().wait()

    app.orm.side.acknowledger.acknowledge = never  # type: ignore[method-assign]
    task = asyncio.ensure_future(work)
    await waiting.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for concluding in list(app.orm.side.units._concluding):
        concluding.cancel()
    del app.orm.side.acknowledger.acknowledge


async def _titles(app: Diptych) -> list[str]:
    page = await app.ask(ListBooks())
    return [book.title for book in page.decode().items]


class OwnBase(DeclarativeBase):
    pass


class Audit(OwnBase):
    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(sa.String(50))


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
    """The later change is written at the new address; the document at the old address must not outlive the change."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        key = (await one.orm.all(Book))[0].id
        await _killed(one, one.execute(EditBook("a", BookChanges(title="b"))))
        await then(two, key)
        await sees(two, "a", None)
        assert await _titles(two) == left


async def test_the_address_that_a_killed_rename_has_freed_is_taken_by_a_new_row(
    database_url: str, valkey: Any
) -> None:
    """The row at the address before was acknowledged long ago: its document must be somewhere."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "first"))
        await sees_in_redis(two, "a", "first")
        await _killed(one, one.execute(EditBook("a", BookChanges(title="moved"))))
        await two.execute(AddBook("a", "second"))
        await sees(two, "moved", "first")
        assert await _titles(two) == ["a", "moved"]


async def test_an_address_that_another_command_of_the_process_frees_while_one_runs(
    postgres_url: str, valkey: Any
) -> None:
    """★ The command's snapshot does not see the rename, the unique index does: so the command rests on the rename."""
    async with catalogue(postgres_url, valkey.url, lease_ms=LONG_MS) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("a", "x"))
        await sees_in_redis(app, "a", "x")
        has_begun, go_on = asyncio.Event(), asyncio.Event()

        async def take(_unit: object) -> None:
            await app.orm.all(Book)
            has_begun.set()
            await go_on.wait()
            await app.orm.create(Book, title="a", author="y")

        taking = asyncio.create_task(app.orm.side.units.run(take, new_context()))
        await has_begun.wait()
        await _killed(app, app.execute(EditBook("a", BookChanges(title="b"))))
        go_on.set()
        await taking
        await sees(app, "b", "x")
        await sees(app, "a", "y")


async def test_the_address_that_a_killed_rename_has_freed_is_taken_by_another_rename(
    database_url: str, valkey: Any
) -> None:
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "first"))
        await one.execute(AddBook("b", "second"))
        await sees_in_redis(two, "b", "second")
        await _killed(one, one.execute(EditBook("a", BookChanges(title="moved"))))
        await two.execute(EditBook("b", BookChanges(title="a")))
        await sees(two, "moved", "first")
        assert await _titles(two) == ["a", "moved"]


async def test_an_answer_that_rests_on_what_a_killed_command_did(database_url: str, valkey: Any) -> None:
    """The command reads a row, and writes a row of no read model: its answer tells of the first."""

    async def retried() -> str:
        async def work(_unit: Any) -> str:
            book = await two.orm.get(Book, "a", "title")
            await two.orm.create(Audit, what="renamed a")
            return "gone" if book is None else book.author

        return await two.orm.side.units.run(work, new_context())

    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        await two.orm.all(Audit)  # which makes its table
        await _killed(one, one.execute(EditBook("a", BookChanges(author="y"))))
        assert await retried() == "y"
        await sees(two, "a", "y")
        await _killed(one, one.execute(DeleteBook("a")))
        assert await retried() == "gone"
        await sees(two, "a", None)


async def test_an_error_that_rests_on_what_a_killed_command_did(database_url: str, valkey: Any) -> None:
    """After an error about a book there, queries find the book; after an error about a missing book, none."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        await _killed(one, one.execute(AddBook("b", "y")))
        with pytest.raises(DuplicateError):
            await two.execute(AddBook("b", "z"))
        await sees(two, "b", "y")

        async def missing(_unit: Any) -> None:
            if await two.orm.get(Book, "a", "title") is None:
                raise LookupError

        await _killed(one, one.execute(DeleteBook("a")))
        with pytest.raises(LookupError):
            await two.orm.side.units.run(missing, new_context())
        await sees(two, "a", None)


@pytest.mark.parametrize("last", ["deleted", "updated"])
async def test_scripts_that_come_late_in_the_wrong_order(database_url: str, valkey: Any, last: str) -> None:
    """A killed rename, a slow update at the new address, and a later change of the same row by a third process.

    The slow update is refused as older: that must not be taken for the whole story, while the old address still
    shows the row.
    """
    async with (
        _two(catalogue, database_url, valkey.url) as (one, two),
        catalogue(database_url, valkey.url, lease_ms=LONG_MS) as three,
    ):
        await answered_by(three, "redis")
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        key = (await one.orm.all(Book))[0].id
        await _killed(one, one.execute(EditBook("a", BookChanges(title="b"))))
        held = Held(keeper_of(two).replica.store, "apply")
        slow = asyncio.create_task(two.orm.update(Book, key, author="slow"))
        await held.reached.wait()
        if last == "deleted":
            await _killed(three, three.orm.delete(Book, key), applied=True)
        else:
            await _killed(three, three.orm.update(Book, key, author="fast"), applied=True)
        held.go_on.set()
        await slow
        await sees(two, "a", None)
        assert await _titles(two) == ([] if last == "deleted" else ["b"])


async def test_a_row_that_moves_there_and_back_and_is_deleted_does_not_come_back(
    database_url: str, valkey: Any
) -> None:
    """The script of the first move comes last; the script of the second move, back, never came.

    The deletion waits for the end of the lease here, as its process hears nothing of the first one.
    """
    async with _two(catalogue, database_url, valkey.url, lease_ms=3000) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        replica = keeper_of(one).replica
        held = Held(replica.store, "apply")
        moving = asyncio.create_task(one.execute(EditBook("a", BookChanges(title="b"))))
        await held.reached.wait()
        key = (await two.orm.all(Book))[0].id
        await _killed(two, two.orm.update(Book, key, title="a"))
        assert await two.orm.delete(Book, key)
        held.go_on.set()
        await moving
        for title in "ab":
            await sees(two, title, None)
        assert await _titles(two) == []


async def test_what_is_brought_in_once_is_not_looked_at_again(database_url: str, valkey: Any) -> None:
    """A killed command costs a single later command some milliseconds, and no pass."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        await _killed(one, one.execute(EditBook("a", BookChanges(title="b"))))
        brought = Recorded(keeper_of(two).replica, "bring_in")
        completed = (await fence_row(two)).passes_completed
        for number in range(5):
            await two.execute(AddBook(f"new {number}", "x"))
        assert len(brought.calls) == 1
        assert (await fence_row(two)).passes_completed == completed


async def test_a_command_that_finds_nothing_to_do_vouches_for_what_it_found(database_url, valkey):
    """Its client tries again after an unknown outcome."""
    async with _two(catalogue, database_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "x"))
        await sees_in_redis(two, "a", "x")
        await _killed(one, one.execute(DeleteBook("a")))
        assert await two.orm.delete(Book, "a", "title") is False
        await sees(two, "a", None)


async def test_a_row_that_gets_another_address_during_a_pass_is_not_missing_after_it(database_url, valkey):
    """A pass reads rows in the snapshot of the log: a row that has moved since is still at its old address."""
    async with _two(partial(cards, direct_documents=0), database_url, valkey.url) as (one, two):
        await one.orm.create(Owner, id=1, name="Ann")
        await one.orm.create(Item, code="a", owner_id=1)
        await _shows_in_redis(one, "a", "Ann")
        replica = keeper_of(one).replica
        read, moved = replica._fence.changes, False

        async def and_then_moved(*arguments: Any, **named: Any) -> Any:
            nonlocal moved
            part = await read(*arguments, **named)
            if part.changes and not moved:
                moved = True
                await _killed(two, two.orm.update(Item, "a", "code", code="b"))
            return part

        await keeper_of(two).stop()
        replica._fence.changes = and_then_moved  # type: ignore[method-assign]
        await one.orm.update(Item, "a", "code", note="new")
        assert moved
        # The other command was not acknowledged: whether it shows is open, but the row is there.
        (card,) = (await one.ask(ListCards())).decode().items
        assert card.code in ("a", "b")
        assert await _shows(one, card.code, "Ann", "new") == "redis"
        await one.orm.update(Item, "b", "code", note="newer")
        await _shows(one, "b", "Ann", "newer")
        assert [card.code for card in (await one.ask(ListCards())).decode().items] == ["b"]


async def test_of_a_row_that_a_killed_command_has_changed_twice_no_first_change_is_brought_in_alone(
    postgres_url: str, valkey: Any
) -> None:
    """★ Another command rests on the first change, by its position: the state after that was never committed."""
    async with _two(catalogue, postgres_url, valkey.url) as (one, two):
        await one.execute(AddBook("a", "first"))
        await sees_in_redis(two, "a", "first")
        has_moved, go_on, has_taken, end = (asyncio.Event() for _ in range(4))

        async def twice(_unit: object) -> None:
            await one.orm.update(Book, "a", "title", title="b")
            has_moved.set()
            await go_on.wait()
            await one.orm.update(Book, "b", "title", author="second")

        async def take(_unit: object) -> None:
            await two.orm.create(Book, title="c", author="x")
            has_taken.set()
            await end.wait()

        changing = asyncio.create_task(_killed(one, one.orm.side.units.run(twice, new_context())))
        await has_moved.wait()
        taking = asyncio.create_task(two.orm.side.units.run(take, new_context()))
        await has_taken.wait()
        go_on.set()
        await changing
        end.set()
        await taking
        assert (await author_of(two, "b"))[1] in (None, "second")
