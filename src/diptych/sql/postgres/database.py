"""PostgreSQL as the write panel needs it: levels of isolation, settings of its connections, and its errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, RowMapping
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from diptych.config.settings import Settings
from diptych.sql.database import Database, Rows, Step, Values, run_steps
from diptych.sql.postgres.connecting import connect
from diptych.sql.postgres.raw_statements import DedicatedReader
from diptych.sql.postgres.transactions import PostgresTransactions
from diptych.sql.prepared import PreparedSelect
from diptych.sql.transactions import Transactions

_IDENTITY = (
    "SELECT CAST(system_identifier AS text) FROM pg_control_system()",
    # The timeline, of the present end of the log; the control file tells a new one only at the next checkpoint.
    "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
    "SELECT CAST(oid AS text) FROM pg_database WHERE datname = current_database()",
)

_KEEPER_SETTINGS = {
    # A promise that the server forgets in a crash would have commands acknowledged while Redis is still trusted.
    "synchronous_commit": "on",
    # An UPDATE that waited for a row's lock judges the row anew; above this level it would fail.
    "default_transaction_isolation": "read committed",
    # A plan made for any cursor takes the log's tail for a third of the log.
    "plan_cache_mode": "force_custom_plan",
}


class PostgresDatabase(Database):
    """PostgreSQL through asyncpg. Units of work run at REPEATABLE READ."""

    name = "postgresql"
    is_in_process = False
    has_one_writer = False

    def __init__(self, url: URL, settings: Settings) -> None:
        import asyncpg  # noqa: F401

        name = url.query.get("application_name")
        named = {} if name is None else {"application_name": name}
        url = url.difference_update_query(["application_name"])
        timeout_s = settings.database_timeout_s
        limits = {"timeout": timeout_s, "command_timeout": settings.database_statement_timeout_s}
        options = {
            "pool_size": settings.database_pool_size,
            "max_overflow": 0,
            "pool_timeout": timeout_s,
            # The connection used last is the next one used, so that idle ones can be closed by the server.
            "pool_use_lifo": True,
        }
        # Under READ COMMITTED a row read before another command's change would be written back over it.
        self.writer = create_async_engine(
            url,
            isolation_level="REPEATABLE READ",
            connect_args={**limits, "server_settings": named | {"synchronous_commit": "on"}},
            **options,
        )
        self.reader = create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,  # as on SQLite
            connect_args={**limits, "server_settings": named | {"default_transaction_read_only": "on"}},
            **options,
        )
        self.keeper = create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            connect_args={**limits, "server_settings": named | _KEEPER_SETTINGS},
            # Three for statements, one to listen, one for ``dedicated``; and one for each view that is open: a long
            # pass over one read model must not hold up the others'.
            **options | {"pool_size": 5, "max_overflow": -1},
        )
        self.dedicated = DedicatedReader(self.keeper)
        self.transactions: Transactions = PostgresTransactions(self.writer)

        self._identity = self._adopted = ""
        self.lease_s = settings.lease_s
        for engine in (self.writer, self.reader, self.keeper):
            sa.event.listen(engine.sync_engine, "do_connect", connect)
            sa.event.listen(engine.sync_engine, "connect", self._identify)
            sa.event.listen(engine.sync_engine, "checkout", self._refuse_outdated)

    async def read_for_hinge(self, select: PreparedSelect, values: Values) -> Rows:
        found = await self.dedicated.fetch(select.select, values)
        return await super().read_for_hinge(select, values) if found is None else found

    async def begin_snapshot(self, connection: AsyncConnection) -> None:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def begin_read_committed(self, connection: AsyncConnection) -> None:
        # At REPEATABLE READ it would not see what was committed while it waited for a lock.
        await connection.execution_options(isolation_level="READ COMMITTED")

    async def write_for_hinge(self, steps: Sequence[Step]) -> RowMapping | None:
        async with self.keeper.connect() as connection:
            if len(steps) > 1:
                await self.begin_read_committed(connection)
            return await run_steps(connection, steps)

    async def close(self) -> None:
        await self.dedicated.close()
        await super().close()

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def is_adopted(self) -> bool:
        return self.identity == self._adopted

    @property
    def read_from(self) -> str:
        return self.identity

    def was_adopted(self) -> None:
        self._adopted = self.identity

    def clock_text(self, held: str) -> str:
        return held  # the server has a clock

    def _identify(self, connection: Any, record: Any) -> None:
        """Asks which database a new connection leads to. That can't change while it is open."""
        record.info["identity"] = identity = connection.run_async(_identity_of)
        if self._identity not in ("", identity):
            self.dedicated.expire()
        self._identity = identity

    def _refuse_outdated(self, connection: Any, record: Any, _proxy: object) -> None:
        """Has the pool open a new connection in place of one that the server has closed meanwhile (its restart).

        Or of one that leads to another server than the address does now.
        """
        if connection.driver_connection.is_closed() or record.info["identity"] != self.identity:
            raise DisconnectionError

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        if _sqlstate(error) != "23505":
            return None
        details = (
            getattr(cause, "detail", None) for cause in (error.orig, getattr(error.orig, "__cause__", None))
        )
        found = re.match(r"Key \((.+?)\)=", next(filter(None, details), ""))
        return [name.strip('" ') for name in found[1].split(",")] if found else []

    def is_busy(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in ("55P03", "53300", "57014")

    def is_conflict(self, error: DBAPIError) -> bool:
        # The second is of a table that was altered; the driver has forgotten its statements now.
        return _sqlstate(error) in ("40001", "40P01") or (
            type(error.orig).__name__ == "InvalidCachedStatementError"
        )

    def is_misfit(self, error: DBAPIError) -> bool:
        return _class(error) == "22"

    def is_refused(self, error: DBAPIError) -> bool:
        return _class(error) in ("28", "3D")

    def is_lost(self, error: DBAPIError) -> bool:
        return error.connection_invalidated or _class(error) in ("08", "57", "53", "58")


async def _identity_of(driver: Any) -> str:
    return ":".join([await _answer(driver, question) for question in _IDENTITY])


async def _answer(driver: Any, question: str) -> str:
    from asyncpg import PostgresError

    try:
        return str(await driver.fetchval(question))
    except PostgresError as error:
        if driver.is_closed():
            raise OSError(str(error)) from error
        return ""  # not for this user, or not in what only speaks like PostgreSQL


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _class(error: DBAPIError) -> str:
    """The first two characters of the SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    return (_sqlstate(error) or "")[:2]
