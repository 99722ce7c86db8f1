"""Changes by anybody: raw SQL, sessions, Core statements, cascades and triggers are noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from diptych import Diptych
from diptych.write.unit_of_work import new_context
from tests.books import AddBook, Book
from tests.catalogue import agree, answered_by, author_of, catalogue, eventually, sees_in_redis


class Foreign:
    """A program that knows nothing of diptych."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition(":")
        self._engine = create_async_engine(
            f"{scheme}+{'aiosqlite' if scheme == 'sqlite' else 'asyncpg'}:{rest}"
        )

    async def runs(self, *statements: str) -> None:
        async with self._engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))

    async def close(self) -> None:
        await self._engine.dispose()


@pytest.fixture
async def foreign(database_url: str) -> AsyncIterator[Foreign]:
    program = Foreign(database_url)
    yield program
    await program.close()


async def arrives(app: Diptych, title: str, author: str | None) -> None:
    """Waits until Redis answers with this author."""

    async def has() -> bool:
        return await author_of(app, title) == ("redis", author)

    await eventually(has, f"Redis answers with {title} by {author}")


ADD = "INSERT INTO books (title, author, stock_quantity) VALUES ('{}', '{}', 0)"


async def test_what_raw_sql_changes_is_seen_within_a_lease(database_url, valkey, foreign):
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
        await foreign.runs("UPDATE books SET author = 'second' WHERE title = 'Dune'")
        await arrives(app, "Dune", "second")
        await foreign.runs("UPDATE books SET title = 'Arrakis' WHERE title = 'Dune'")
        await arrives(app, "Arrakis", "second")
        await arrives(app, "Dune", None)
        await foreign.runs(ADD.format("Emma", "Austen"), "DELETE FROM books WHERE title = 'Arrakis'")
        await arrives(app, "Emma", "Austen")
        await arrives(app, "Arrakis", None)
        await agree(app)


async def test_after_catch_up_everything_committed_before_is_seen(database_url, valkey, foreign):
    async with catalogue(database_url, valkey.url, lease_ms=30_000) as app:
        await app.execute(AddBook("Dune", "0"))
        await answered_by(app, "redis")
        for number in range(1, 20):
            await foreign.runs(f"UPDATE books SET author = '{number}' WHERE title = 'Dune'")
            await app.catch_up()
            assert await author_of(app, "Dune") == ("redis", str(number))


async def test_a_session_in_a_command_is_seen_at_once(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=30_000) as app:
        await app.execute(AddBook("Dune", "0"))
        await answered_by(app, "redis")
        for number in range(1, 20):
            async with app.orm.session() as session:
                book = (await session.scalars(sa.select(Book).where(Book.title == "Dune"))).one()
                book.author = str(number)
            assert await author_of(app, "Dune") == ("redis", str(number))
        await agree(app)


async def test_a_core_statement_in_a_command_is_seen_at_once(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=30_000) as app:
        await app.execute(AddBook("Dune", "0"))
        await app.execute(AddBook("Emma", "0"))
        await answered_by(app, "redis")
        for number in range(1, 10):
            result = await app.orm.execute(sa.update(Book).values(author=str(number)))
            assert result.rowcount == 2
            assert await author_of(app, "Dune") == ("redis", str(number))
            assert await author_of(app, "Emma") == ("redis", str(number))
        swap = sa.update(Book).values(title=sa.case((Book.title == "Dune", "Emma "), else_="Dune "))
        await app.orm.execute(swap)
        assert await author_of(app, "Emma ") == ("redis", "9")
        assert await author_of(app, "Dune") == ("redis", None)
        await agree(app)


async def test_own_commands_write_one_entry_and_a_session_entries_that_name_its_command(database_url, valkey):
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "0"))
        async with app.orm.session() as session:
            session.add(Book(title="Emma", author="0"))
        async with app.orm.database.reader.connect() as connection:
            log = sa.text("SELECT kind, version, command_id FROM diptych_log ORDER BY position")
            own, of_session = (await connection.execute(log)).all()
        assert own.version == 1
        assert of_session.version == 2
        assert own.command_id
        assert of_session.command_id
        assert own.command_id != of_session.command_id


@pytest.mark.parametrize("actor", ["Zoë'; DROP TABLE books; -- \\ $1 %s :x", None])
@pytest.mark.parametrize("is_first", [True, False])
async def test_entries_of_a_session_name_the_command_whatever_its_actor_is_called(
    database_url, valkey, actor, is_first
):
    async with catalogue(database_url, valkey.url) as app:

        async def work(_unit: Any) -> None:
            if not is_first:
                await app.orm.create(Book, title="Emma", author="0")
            await app.orm.execute(sa.insert(Book).values(title="Dune", author="0"))

        context = new_context(correlation_id="it's", actor=actor)
        await app.orm.side.units.run(work, context)
        async with app.orm.database.reader.connect() as connection:
            log = sa.text("SELECT actor, correlation_id, command_id FROM diptych_log WHERE version = 2")
            assert (await connection.execute(log)).all() == [(actor, "it's", context.command_id)]


async def test_triggers_that_were_disabled_for_a_moment_end_the_generation(postgres_url, valkey):
    foreign = Foreign(postgres_url)
    async with catalogue(postgres_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
        await foreign.runs(
            "ALTER TABLE books DISABLE TRIGGER ALL",
            "UPDATE books SET author = 'second' WHERE title = 'Dune'",
            "ALTER TABLE books ENABLE TRIGGER ALL",
        )
        await arrives(app, "Dune", "second")
        await foreign.runs("UPDATE books SET author = 'third' WHERE title = 'Dune'")
        await arrives(app, "Dune", "third")
    await foreign.close()


async def test_a_trigger_that_was_dropped_is_made_anew(sqlite_url, valkey):
    foreign = Foreign(sqlite_url)
    async with catalogue(sqlite_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
        await foreign.runs(
            "DROP TRIGGER diptych_capture_books_u", "UPDATE books SET author = 'second' WHERE title = 'Dune'"
        )
        await arrives(app, "Dune", "second")
        await foreign.runs("UPDATE books SET author = 'third' WHERE title = 'Dune'")
        await arrives(app, "Dune", "third")
    await foreign.close()


async def test_those_who_catch_up_together_share_their_looks(postgres_url, valkey, monkeypatch):
    """However many pages are answered at once, they take no connection each."""
    foreign = Foreign(postgres_url)
    async with catalogue(postgres_url, valkey.url, lease_ms=30_000) as app:
        await app.execute(AddBook("Dune", "0"))
        await answered_by(app, "redis")
        fence = app.orm.side.fence
        looks, missed = 0, fence.missed

        async def counted(tables):
            nonlocal looks
            looks += 1
            return await missed(tables)

        monkeypatch.setattr(fence, "missed", counted)
        for number in range(1, 5):
            await foreign.runs(f"UPDATE books SET author = '{number}' WHERE title = 'Dune'")
            await asyncio.gather(*(app.catch_up() for _ in range(100)))
            assert await author_of(app, "Dune") == ("redis", str(number))
        assert looks <= 8
    await foreign.close()


async def test_what_a_savepoint_has_undone_reaches_nobody(database_url, valkey):
    """Changes by ``ORMService`` within a savepoint are undone with it, with their entries of the log."""
    async with catalogue(database_url, valkey.url, lease_ms=30_000) as app:
        for title in ("Dune", "Emma", "Ulysses"):
            await app.execute(AddBook(title, "first"))
        await answered_by(app, "redis")
        async with app.orm.session() as session:
            nested = await session.begin_nested()
            await app.orm.create(Book, title="Arrakis", author="undone", stock_quantity=0)
            await app.orm.update(Book, "Dune", "title", author="undone")
            await app.orm.update(Book, "Emma", "title", title="Harriet")
            await app.orm.delete(Book, "Ulysses", "title")
            await nested.rollback()
            await app.orm.update(Book, "Emma", "title", author="kept")
        for title, author in (("Arrakis", None), ("Dune", "first"), ("Emma", "kept"), ("Harriet", None)):
            assert await author_of(app, title) == ("redis", author)
        assert await author_of(app, "Ulysses") == ("redis", "first")
        await agree(app)
