"""diptych switched on over a database of 50,000 rows whose tables belong to Alembic.

Each round begins with a new database: the table, its rows and Alembic's version, nothing of diptych. "started" is the
start of the application, CREATE_TABLES=false, which makes diptych's own tables and the triggers; "until Redis
answers" counts from the beginning of the start. Then Alembic's autogenerate has to find nothing. Then a migration by
Alembic's operations, in batch mode, writes a thousand rows and alters a column, while queries ask for one of these
rows all the time. "migrated" is its time; "until Redis shows it" runs from its commit to the first answer from Redis
with the new value; "stale" counts answers with the old value, asked for more than a lease after the commit.

To be shown: started in 2 s, from Redis within 10 s, nothing stale.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncGenerator

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.books import BOOKS, book, title
from benchmarks.catalogue import PATIENCE_S, answered_by_redis, open_catalogue
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.valkey import valkey
from demo_app.messages import GetBook
from demo_app.models.book import Base
from diptych import Diptych
from diptych.ext.alembic import include_name, include_object
from tests.programs import with_driver
from tests.servers import PostgresServer

ROWS = 50_000
MIGRATED = 1_000
LEASE_S = 2.0
_AT_ONCE = 10_000
AFTER = "after the migration"


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Both databases, side by side."""
    rows, rounds = (5_000, 1) if quick else (ROWS, 5)
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        numbers = itertools.count()

        async def on_sqlite() -> Sample:
            return await _switched_on(f"sqlite:///{folder}/{next(numbers)}.db", rows)

        async def on_postgresql() -> Sample:
            return await _switched_on(server.url_of(server.create_database()), rows)

        candidates: dict[str, Candidate] = {"SQLite": on_sqlite, "PostgreSQL": on_postgresql}
        yield Case(f"Switched on over {rows:,} rows", rounds, candidates, warm_up=False, compared=False)


async def _switched_on(url: str, rows: int) -> Sample:
    engine = create_async_engine(with_driver(url))
    store = await asyncio.to_thread(valkey().__enter__)
    try:
        await _fill(engine, rows)
        began = time.monotonic()
        async with open_catalogue(url, store.url, create_tables=False) as app:
            started_s = time.monotonic() - began
            await answered_by_redis(app, answers=1)
            sample = {"started, s": started_s, "until Redis answers, s": time.monotonic() - began}
            await _check_autogenerate(engine)
            return {**sample, **await _migrated(app, engine)}
    finally:
        await engine.dispose()
        await asyncio.to_thread(store.close)


async def _fill(engine: AsyncEngine, rows: int) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for first in range(0, rows, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, rows))
            await connection.execute(sa.insert(BOOKS), list(map(book, numbers)))
        await connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))


async def _check_autogenerate(engine: AsyncEngine) -> None:
    """Fails if autogenerate would change anything, of diptych or of the application."""

    def compare(connection: sa.Connection) -> None:
        options = {"include_name": include_name, "include_object": include_object}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
        assert not found, f"autogenerate is not empty: {found}"

    async with engine.connect() as connection:
        await connection.run_sync(compare)


async def _migrated(app: Diptych, engine: AsyncEngine) -> Sample:
    """Runs the migration while queries are asked for a row that it changes."""
    seen, committed_at, stale = asyncio.Event(), float("inf"), 0

    async def ask() -> None:
        nonlocal stale
        while not seen.is_set():
            asked_at = time.monotonic()
            document = await app.ask(GetBook(title(0)))
            found = document.decode()
            assert found is not None
            if found.author != AFTER:
                stale += asked_at > committed_at + LEASE_S
            elif document.served.store == "redis":
                seen.set()
            await asyncio.sleep(0.005)

    asking = asyncio.create_task(ask())
    began = time.monotonic()
    async with engine.begin() as connection:
        await connection.run_sync(_migrate)
    committed_at = time.monotonic()
    await asyncio.wait_for(seen.wait(), PATIENCE_S)
    shown_s = time.monotonic() - committed_at
    await asking
    return {
        "migrated, s": committed_at - began,
        "until Redis shows it, s": shown_s,
        "stale answers in all": float(stale),
    }


def _migrate(connection: sa.Connection) -> None:
    operations = Operations(MigrationContext.configure(connection))
    changed = sa.update(BOOKS).where(BOOKS.c.title < title(MIGRATED)).values(author=AFTER)
    operations.execute(changed)
    with operations.batch_alter_table("books") as batch:
        batch.alter_column("stock_quantity", existing_type=sa.Integer, server_default="0")
