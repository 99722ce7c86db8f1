"""Whoever uses an application in another event loop than its own is told so at once, and waits for nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from diptych import ConfigService, DifferentLoopError, Diptych, ORMService
from tests.books import AddBook, Base, Book, BookReadModel, GetBook, ListBooks
from tests.catalogue import answered_by, author_of, catalogue

OPERATIONS: dict[str, Callable[[Diptych], Awaitable[Any]]] = {
    "start": lambda app: app.start(),
    "stop": lambda app: app.stop(),
    "execute": lambda app: app.execute(AddBook("Solaris", "Lem")),
    "ask": lambda app: app.ask(GetBook("Dune")),
    "ask for a page": lambda app: app.ask(ListBooks()),
    "rebuild": lambda app: app.rebuild(BookReadModel),
    "health": lambda app: app.health(),
    "orm.create": lambda app: app.orm.create(Book, title="Solaris", author="Lem"),
    "orm.get": lambda app: app.orm.get(Book, "Dune", "title"),
    "orm.update": lambda app: app.orm.update(Book, "Dune", "title", author="Lem"),
    "orm.delete": lambda app: app.orm.delete(Book, "Dune", "title"),
    "orm.all": lambda app: app.orm.all(Book),
}

OF_ORM: dict[str, Callable[[ORMService], Awaitable[Any]]] = {
    "init": lambda orm: orm.init(),
    "close": lambda orm: orm.close(),
    "async with": lambda orm: orm.__aenter__(),
    "create": lambda orm: orm.create(Book, title="Solaris", author="Lem"),
    "get": lambda orm: orm.get(Book, "Dune", "title"),
    "all": lambda orm: orm.all(Book),
}

CLOSED = """
import asyncio, os, sys
from tests.integration.test_event_loops import OPERATIONS, OF_ORM, outcome
from tests.catalogue import catalogue
from tests.books import Base
from diptych import ConfigService, ORMService

database, redis = sys.argv[1], sys.argv[2] or None
app = catalogue(database, redis)
orm = ORMService(ConfigService(environ={}, database_url=database))
asyncio.run(app.start())
asyncio.run(orm.init(models=Base))
for operations, service in ((OPERATIONS, app), (OF_ORM, orm)):
    for operation in operations.values():
        print(asyncio.run(outcome(operation, service)))
sys.stdout.flush()
os._exit(0)  # what was opened in a loop that is gone can't be closed any more
"""


async def outcome(operation: Callable[[Any], Awaitable[Any]], service: Any) -> str:
    """What becomes of it in this loop, in words."""
    try:
        async with asyncio.timeout(5):
            await operation(service)
    except DifferentLoopError as error:
        return f"refused, that loop is {'closed' if error.is_closed else 'open'}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


async def in_another_loop(operation: Callable[[Any], Awaitable[Any]], service: Any) -> str:
    """The same in a loop of another thread, while this one goes on."""
    return await asyncio.to_thread(lambda: asyncio.run(outcome(operation, service)))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("has_redis", [True, False])
async def test_an_application_refuses_another_threads_loop(database_url, valkey, operation, has_redis):
    async with catalogue(database_url, valkey.url if has_redis else None) as app:
        await app.execute(AddBook("Dune", "Herbert"))
        await answered_by(app, "redis" if has_redis else "sql")
        assert await in_another_loop(OPERATIONS[operation], app) == "refused, that loop is open"
        # It has gone on, and nothing was done.
        assert (await author_of(app, "Dune"))[1] == "Herbert"
        assert [book.title for book in await app.orm.all(Book)] == ["Dune"]
        assert (await app.health()).status == "ok"


async def test_a_query_made_here_and_awaited_in_another_loop_is_refused_there(sqlite_url):
    async with catalogue(sqlite_url) as app:
        question = app.ask(GetBook("Dune"))
        assert await in_another_loop(lambda _: question, app) == "refused, that loop is open"


@pytest.mark.parametrize("operation", OF_ORM)
async def test_the_orm_service_alone_refuses_another_threads_loop(database_url, operation):
    orm = ORMService(ConfigService(environ={}, database_url=database_url))
    async with orm:
        await orm.create(Book, title="Dune", author="Herbert")
        assert await in_another_loop(OF_ORM[operation], orm) == "refused, that loop is open"
        assert [book.title for book in await orm.all(Book)] == ["Dune"]


@pytest.mark.parametrize("has_redis", [True, False])
def test_a_loop_that_is_closed_is_named(database_url, valkey, has_redis):
    arguments = [database_url, valkey.url if has_redis else ""]
    ended = subprocess.run(
        [sys.executable, "-c", CLOSED, *arguments], capture_output=True, text=True, timeout=180, check=False
    )
    count = len(OPERATIONS) + len(OF_ORM)
    assert ended.stdout.splitlines() == ["refused, that loop is closed"] * count, ended.stderr


def test_what_was_stopped_starts_again_in_another_loop(database_url, valkey):
    app = catalogue(database_url, valkey.url)
    orm = ORMService(ConfigService(environ={}, database_url=database_url))

    async def use(title: str) -> list[str]:
        async with app, orm:
            await app.execute(AddBook(title, "x"))
            assert (await author_of(app, title))[1] == "x"
            return sorted(book.title for book in await orm.all(Book))

    assert asyncio.run(use("Dune")) == ["Dune"]
    assert asyncio.run(use("Solaris")) == ["Dune", "Solaris"]


def test_a_start_that_failed_binds_it_to_no_loop(tmp_path, sqlite_url):
    values = {"database_url": f"sqlite:///{tmp_path / 'none' / 'x.db'}"}
    app = Diptych(ConfigService(environ={}, **values), models=Base, handlers=[])
    for _ in range(2):
        with pytest.raises(Exception, match="none") as failed:
            asyncio.run(app.start())
        assert not isinstance(failed.value, DifferentLoopError)
