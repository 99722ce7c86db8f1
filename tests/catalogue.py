"""The demo's catalogue as tests use it: the real application, and waiting for what it does by itself."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from diptych import ConfigService, Diptych
from diptych.fence.contract import Applied, FenceRow
from diptych.hinge.keeper import Keeper
from diptych.hinge.side import RedisSide
from diptych.read.store.store import RedisStore
from tests.books import (
    Base,
    Book,
    BookChanges,
    BookCommandHandler,
    BookQueryHandler,
    BookReadModel,
    EditBook,
    GetBook,
    ListBooks,
)
from tests.configuration import PATIENT_REDIS

PATIENCE_S = 60.0


def catalogue(database_url: str, redis_url: str | None = None, **settings: Any) -> Diptych:
    """The catalogue without its pages. Redis may answer slowly here: a busy machine must not fail a test."""
    values: dict[str, Any] = {
        **PATIENT_REDIS,
        "redis_probe_interval_ms": 20,
        "lease_ms": 400,
    }
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    return Diptych(
        ConfigService(environ={}, **values),
        models=Base,
        handlers=[BookCommandHandler, BookQueryHandler],
        read_models=[BookReadModel],
    )


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits until the condition holds; fails, naming it, if it does not within reason."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        await asyncio.sleep(0.01)


async def answered_by(app: Diptych, store: str) -> None:
    """Waits until this store answers all queries."""

    async def does() -> bool:
        return {model.served_by for model in (await app.health()).read_models.values()} == {store}

    await eventually(does, f"{store} answers")


# Looking


async def author_of(app: Diptych, title: str) -> tuple[str, str | None]:
    """Which store answered, and with which author."""
    document = await app.ask(GetBook(title))
    book = document.decode()
    return document.served.store, None if book is None else book.author


async def set_author(app: Diptych, title: str, author: str) -> None:
    """Gives the book of this title another author."""
    await app.execute(EditBook(title, BookChanges(author=author)))


async def sees(app: Diptych, title: str, author: str | None) -> None:
    """Fails unless the next query by key and the next list show this author, whichever store answers."""
    assert (await author_of(app, title))[1] == author
    page = (await app.ask(ListBooks(limit=500))).decode()
    assert [book.author for book in page.items if book.title == title] == ([] if author is None else [author])


async def sees_in_redis(app: Diptych, title: str, author: str | None) -> None:
    """Waits until Redis answers; not one answer until then may be another than this author."""

    async def does() -> bool:
        await sees(app, title, author)
        page = await app.ask(ListBooks(limit=500))
        return (await author_of(app, title))[0] == page.served.store == "redis"

    await eventually(does, f"Redis answers with {title} by {author}")


async def agree(app: Diptych) -> None:
    """Waits until Redis answers; by list and by key it holds what SQL holds."""
    expected = sorted([(book.title, book.author) async for book in app.orm.iterate(Book)])

    async def in_redis() -> list[tuple[str, str]] | None:
        found, after = [], None
        while True:
            page = await app.ask(ListBooks(limit=500, after=after))
            if page.served.store != "redis":
                return None
            found += [(book.title, book.author) for book in page.decode().items]
            after = page.decode().next
            if after is None:
                return found

    async def answered() -> bool:
        found = await in_redis()
        assert found is None or found == expected
        return found is not None

    await eventually(answered, "Redis answers the whole list")
    for title, author in expected[:: max(1, len(expected) // 20)]:
        await sees_in_redis(app, title, author)


# Interfering


def redis_side_of(app: Diptych) -> RedisSide:
    """The Redis side of an application that has one."""
    side = app._run.redis
    assert side is not None
    return side


def keeper_of(app: Diptych) -> Keeper:
    """The keeper of the application's first read model."""
    return next(iter(redis_side_of(app).keepers.values()))


def store_of(app: Diptych) -> RedisStore:
    """The first read model in Redis."""
    return keeper_of(app).replica.store


async def fence_row(app: Diptych) -> FenceRow:
    """What SQL says of the application's first read model."""
    own = keeper_of(app).replica.id
    return next(row for row in await app.orm.side.fence.rows() if row.id == own)


class Held:
    """Holds calls of an object's method until ``go_on`` is set, before or after they are done.

    The method is asynchronous, or returns a future.
    """

    def __init__(self, owner: Any, name: str, *, after: bool = False) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._original = getattr(owner, name)
        self._after = after
        is_asynchronous = inspect.iscoroutinefunction(self._original)
        setattr(owner, name, self._call if is_asynchronous else self._begin)

    def _begin(self, *arguments: Any, **named: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._call(*arguments, **named))

    async def _call(self, *arguments: Any, **named: Any) -> Any:
        result = await self._original(*arguments, **named) if self._after else None
        self.reached.set()
        await self.go_on.wait()
        return result if self._after else await self._original(*arguments, **named)


class Recorded:
    """Records the calls of an object's method, which it goes on doing."""

    def __init__(self, owner: Any, name: str) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.original = getattr(owner, name)
        setattr(owner, name, self._call)

    def _call(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        return self.original(*arguments, **named)


def fail_to_apply(app: Diptych) -> None:
    """From now on what commands of this process change gets into Redis by passes alone."""

    def apply(*_: object) -> asyncio.Future[Applied]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def bring_in(*_: object, **__: object) -> bool:
        return False

    for keeper in redis_side_of(app).keepers.values():
        keeper.replica.apply = apply  # type: ignore[method-assign, assignment]
        keeper.replica.bring_in = bring_in  # type: ignore[method-assign]


async def stop_keeper(app: Diptych) -> None:
    """Ends the keepers of this process as a crash would: no more passes, whatever they were doing."""
    await asyncio.gather(*(keeper.stop() for keeper in redis_side_of(app).keepers.values()))
