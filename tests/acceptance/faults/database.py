"""The SQL database of a run, and what an administrator does to it past the application."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from diptych.log.table import LOG
from tests.acceptance.faults.beside.ledger import open_ledger, read_ledger
from tests.acceptance.faults.ending import read_log
from tests.acceptance.faults.history import LogRow
from tests.acceptance.faults.models import Item
from tests.servers import PostgresServer


class Database:
    """A file of SQLite, or a database of a PostgreSQL: ``server``, of which there are two once it has been moved."""

    def __init__(
        self, directory: Path, server: PostgresServer | None, exits: contextlib.AsyncExitStack
    ) -> None:
        self.server = server
        self.name = ""
        self._directory = directory
        self._exits = exits
        self._other: PostgresServer | None = None
        self._file = directory / "test.db"
        self._copies = 0

    async def create(self) -> None:
        """Makes it, empty."""
        if self.server is not None:
            self.name = await asyncio.to_thread(self.server.create_database)
            self._exits.push_async_callback(asyncio.to_thread, self.server.drop_database, self.name)

    @property
    def url(self) -> str:
        """Its ``DATABASE_URL``."""
        return f"sqlite:///{self._file}" if self.server is None else self.server.url_of(self.name)

    @property
    def url_of_others(self) -> str:
        """Past all links, for those who are not of the application and have a driver of their own."""
        return self.url.replace("postgresql:", "postgresql+psycopg:")

    def engine(self) -> sa.Engine:
        """Past all links and pools, for those who are not of the application."""
        return sa.create_engine(self.url_of_others, poolclass=sa.NullPool)

    async def open_ledger(self) -> None:
        """Makes the tables, and the triggers that write down what anybody changes in open items."""
        await asyncio.to_thread(open_ledger, self.engine())

    async def ledger(self) -> list[LogRow]:
        """The ledger of open items as it is now."""
        return await asyncio.to_thread(read_ledger, self.engine())

    async def execute(self, statement: str) -> str:
        """One statement on PostgreSQL, past all links."""
        assert self.server is not None
        return await asyncio.to_thread(self.server.execute, statement, self.name)

    async def log(self) -> list[LogRow]:
        """The change log as it is now."""
        return await asyncio.to_thread(read_log, self.engine())

    async def age_log(self, days: int) -> list[LogRow]:
        """Has all that is in the log be so many days old. Returns it: it may be forgotten from now on."""

        def age() -> list[LogRow]:
            log = read_log(self.engine())
            recorded_at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
            older = sa.update(LOG).where(LOG.c.position <= log[-1].position).values(recorded_at=recorded_at)
            with self.engine().begin() as connection:
                connection.execute(older)
            return log

        return await asyncio.to_thread(age)

    async def insert_item(self, key: str, value: int) -> None:
        """Adds an item past the application, which does not notice."""

        def insert() -> None:
            with self.engine().begin() as connection:
                connection.execute(sa.insert(Item).values(key=key, value=value, owner_id=1))

        await asyncio.to_thread(insert)

    async def dump(self) -> Path:
        """A copy of all that is in it now."""
        self._copies += 1
        if self.server is not None:
            file = self.server.directory / f"{self.name}-{self._copies}.sql"
            await asyncio.to_thread(self.server.dump, self.name, file)
            return file
        copy = self._directory / f"copy-{self._copies}.db"

        def back_up() -> None:
            with (
                contextlib.closing(sqlite3.connect(self._file)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)

        await asyncio.to_thread(back_up)
        return copy

    async def restore(self, dump: Path, *, in_place: bool) -> None:
        """Is from now on what was dumped, elsewhere: in another PostgreSQL, in another file, or in the same again."""
        if self.server is None:
            if in_place:
                for suffix in ("", "-wal", "-shm"):
                    self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
            else:
                self._file = self._directory / f"test-{self._copies}.db"
            shutil.move(dump, self._file)
            return
        if self._other is None:
            self._other = await asyncio.to_thread(PostgresServer)
            self._exits.push_async_callback(asyncio.to_thread, self._other.close)
            await asyncio.to_thread(self._other.start)
        self.server, self._other = self._other, self.server
        await self.create()
        await asyncio.to_thread(self.server.load, self.name, dump)

    async def use_up_transactions(self, count: int) -> None:
        """PostgreSQL counts on by so many."""
        await self.execute(
            f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )
