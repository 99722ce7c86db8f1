"""Passes end, however much is changed while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych
from diptych.errors import RedisUnavailableError
from diptych.write.unit_of_work import new_context
from tests.books import AddBook, Book, DeleteBook
from tests.catalogue import (
    Held,
    author_of,
    catalogue,
    eventually,
    fence_row,
    keeper_of,
    sees,
    sees_in_redis,
    set_author,
    stop_keeper,
    store_of,
)
from tests.integration.test_joined_processes import Item, Owner, _shows_in_redis, cards

ROWS = 30
FEW = 8
"""So many rows are changed at most while a command waits for its pass: those of this pass and of the regular ones."""


class _WhileItReads:
    """Has ``change`` commit something with each number after each reading of the log that has found changes."""

    def __init__(self, app: Diptych, change: Callable[[int], Awaitable[Any]]) -> None:
        self.count = 0
        self._fence, self._change = app.orm.side.fence, change
        self._read = self._fence.changes
        self._fence.changes = self._changes  # type: ignore[method-assign]

    async def has_changed_something(self) -> bool:
        return self.count > 0

    def stop(self) -> None:
        """Lets passes be quick again: on a busy machine each commit may take longer than a lease."""
        del self._fence.changes

    async def _changes(self, *arguments: Any, **named: Any) -> Any:
        part = await self._read(*arguments, **named)
        if part.changes and self.count < ROWS - 2:
            await self._change(self.count)
            self.count += 1
        return part


async def _committed(app: Diptych, work: Callable[[], Awaitable[Any]]) -> None:
    """Has it committed, by a process that nobody waits for."""

    async def at_once(*_: object) -> None:
        pass

    app.orm.side.acknowledger.acknowledge = at_once  # type: ignore[method-assign, assignment]
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
        # Without a lease, which runs out on a busy machine, the command waits for no pass.
        await eventually(deleting.has_changed_something, "a pass over the changes")
        assert deleting.count < FEW
        deleting.stop()
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
        del beside.orm.side.acknowledger.acknowledge
        await beside.orm.update(OldBook, f"{ROWS - 1}", "title", author="new")
        # Without a lease, which runs out on a busy machine, the command waits for no pass.
        await eventually(deleting.has_changed_something, "a pass over the changes")
        assert deleting.count < FEW
        deleting.stop()
        await sees_in_redis(app, f"{ROWS - 1}", "new")
        await set_author(app, f"{ROWS - 1}", "newer")
        await sees(app, f"{ROWS - 1}", "newer")


async def test_a_pass_writes_no_document_again_that_a_command_of_its_process_has_brought(
    database_url, valkey
):
    """What is deleted it does write: it alone knows when the tombstone may go."""
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")
        store = store_of(app)
        written: list[tuple[bytes, bool]] = []
        apply = store.apply

        async def recording(target: Any, writes: Any, **named: Any) -> str:
            if named.get("told") is None:
                written.extend((write.key, write.body is None) for write in writes)
            return await apply(target, writes, **named)

        store.apply = recording  # type: ignore[method-assign]

        async def pass_over_it() -> None:
            started = (await fence_row(app)).passes_started

            async def has_passed() -> bool:  # the one after it may have begun before
                return (await fence_row(app)).passes_started > started + 2

            await eventually(has_passed, "a pass over the changes")

        for title in ("Emma", "Ulysses"):
            await app.execute(AddBook(title, "x"))
        await set_author(app, "Dune", "y")
        await pass_over_it()
        assert written == []
        await app.execute(DeleteBook("Emma"))
        await pass_over_it()
        assert written == [(b"Emma", True)]
        # Who has not brought it himself does not pass over it.
        async with catalogue(database_url) as other:
            await set_author(other, "Dune", "z")
        await pass_over_it()
        assert written[1:] == [(b"Dune", False)]
        await sees_in_redis(app, "Dune", "z")


async def test_after_a_promise_without_a_completed_pass_the_log_is_replayed_before_the_next_promise(
    sqlite_url, valkey
):
    """Commands would wait for that promise too, if Redis still refused what there is."""
    async with catalogue(sqlite_url, valkey.url, lease_ms=2000) as app:
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")
        replica, fence, steps = keeper_of(app).replica, app.orm.side.fence, []
        publish, promise, replay_log = replica.publish, fence.promise, replica.replay_log

        async def publishing(*arguments: Any, **named: Any) -> None:
            steps.append("publish")
            if steps.count("publish") == 1:
                raise RedisUnavailableError("away for a moment")
            await publish(*arguments, **named)

        async def promising(*arguments: Any, **named: Any) -> Any:
            steps.append("promise")
            return await promise(*arguments, **named)

        async def replaying(*arguments: Any, **named: Any) -> Any:
            steps.append("replay with floor" if named.get("floor") else "replay")
            return await replay_log(*arguments, **named)

        replica.publish = publishing  # type: ignore[method-assign]
        fence.promise = promising  # type: ignore[method-assign]
        replica.replay_log = replaying  # type: ignore[method-assign]

        async def has_published_twice_again() -> bool:
            return steps.count("publish") >= 3

        await eventually(has_published_twice_again, "a pass after the one that failed, and another")
        one_pass = ["promise", "replay", "publish"]
        assert steps[steps.index("promise") :][:10] == [*one_pass, "replay with floor", *one_pass, *one_pass]


async def test_only_a_pass_that_began_with_a_lease_rests(database_url: str, valkey) -> None:
    """With rests in each, passes would never catch up with changes that take them more than half of the time."""
    async with cards(database_url, valkey.url) as app:
        await app.orm.create(Owner, id=1, name="Ann")
        await app.orm.create(Item, code="00", owner_id=1)
        await _shows_in_redis(app, "00", "Ann")
        replica, have_paces = keeper_of(app).replica, []
        replay_log, is_slow = replica.replay_log, True

        async def replaying(*arguments: Any, **named: Any) -> Any:
            nonlocal is_slow
            if not named.get("floor"):
                have_paces.append(named.get("pace") is not None)
            if is_slow:
                is_slow = False
                await asyncio.sleep(1.0)  # the lease is 0.4 s
            return await replay_log(*arguments, **named)

        replica.replay_log = replaying  # type: ignore[method-assign]

        async def has_a_lease_again() -> bool:
            return len(have_paces) >= 3

        await eventually(has_a_lease_again, "passes after the one that outlasted its lease")
    assert have_paces[:3] == [True, False, True]


# A backlog: much was written by a process without Redis, and takes longer than a lease to be carried

BACKLOG = 3000


async def _write_a_backlog(database_url: str) -> None:
    async with catalogue(database_url) as beside:

        async def work(_unit: object) -> None:
            for number in range(BACKLOG):
                await beside.orm.create(Book, title=f"{number:04}", author="x", stock_quantity=0)

        await beside.orm.side.units.run(work, new_context())


async def _is_carried(app: Diptych) -> None:
    """Waits until Redis answers with the last of it; until then every answer has it too."""

    async def is_carried() -> bool:
        store, author = await author_of(app, f"{BACKLOG - 1:04}")
        assert author == "x"
        return store == "redis"

    await eventually(is_carried, "the backlog is carried")


class _Slow:
    """A Redis that takes two leases for every part of the log that a keeper brings, which is counted."""

    def __init__(self, app: Diptych) -> None:
        self.brought = 0
        self._lease_s = keeper_of(app).lease_s
        self._store = store_of(app)
        self._apply = self._store.apply
        self._store.apply = self._slowly  # type: ignore[method-assign]

    async def _slowly(self, *arguments: Any, **named: Any) -> str:
        self.brought += len(arguments[1])
        if len(arguments[1]) >= BACKLOG / 4:
            await asyncio.sleep(2 * self._lease_s)
        return await self._apply(*arguments, **named)


async def test_a_backlog_is_carried_by_one_while_the_others_wait_for_it(database_url, valkey):
    """The lease is far longer than this event loop, which all three share, stands still for the backlog's rows."""
    async with (
        catalogue(database_url, valkey.url, lease_ms=2_000) as one,
        catalogue(database_url, valkey.url, lease_ms=2_000) as two,
        catalogue(database_url, valkey.url, lease_ms=2_000) as three,
    ):
        apps = (one, two, three)
        await one.execute(AddBook("!", "x"))
        for app in apps:
            await sees_in_redis(app, "!", "x")
        slow = [_Slow(app) for app in apps]
        await _write_a_backlog(database_url)
        for app in apps:
            await _is_carried(app)
        assert sum(each.brought for each in slow) < 1.5 * BACKLOG
        await set_author(two, "!", "y")
        for app in apps:
            await sees(app, "!", "y")


async def test_when_the_one_that_carries_a_backlog_dies_another_does(database_url, valkey):
    async with (
        catalogue(database_url, valkey.url, lease_ms=600) as one,
        catalogue(database_url, valkey.url, lease_ms=600) as two,
    ):
        apps = (one, two)
        await one.execute(AddBook("!", "x"))
        for app in apps:
            await sees_in_redis(app, "!", "x")
        for app in apps:
            await stop_keeper(app)
        await _write_a_backlog(database_url)
        held = [Held(store_of(app), "apply") for app in apps]
        for app in apps:
            keeper_of(app).start()
        await asyncio.wait(
            [asyncio.ensure_future(each.reached.wait()) for each in held],
            return_when=asyncio.FIRST_COMPLETED,
        )
        dies, lives = apps if held[0].reached.is_set() else reversed(apps)
        await stop_keeper(dies)
        for each in held:
            each.go_on.set()
        await _is_carried(lives)
        await sees(lives, "!", "x")
