"""PostgreSQL as a ``Database``: levels of isolation, settings of the connections, and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, RowMapping
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from diptych.config.settings import Settings
from diptych.sql.database import Database, Rows, Step, Values, run_steps
from diptych.sql.postgres.connecting import connect, refuse_broken
from diptych.sql.postgres.dedicated_reader import DedicatedReader
from diptych.sql.postgres.transactions import PostgresTransactions
from diptych.sql.statements.prepared import PreparedSelect
from diptych.sql.transactions import Transactions

_LOST_CLASSES = ("08", "57", "53", "58")
"""Classes of SQLSTATE after which the connection, or the server, is lost."""

_SCHEMA_LOCK = 0x64697074  # "dipt"
"""Number of the advisory lock held while the tables are prepared."""

_IDENTITY = (
    "SELECT CAST(system_identifier AS text) FROM pg_control_system()",
    # The timeline at the present end of the log; the control file shows a new timeline only at the next checkpoint.
    "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
    "SELECT CAST(oid AS text) FROM pg_database WHERE datname = current_database()",
)
"""Selects whose answers together identify the database."""

_KEEPER_SETTINGS = {
    # After a crash that loses a promise, commands would be acknowledged while Redis is still trusted.
    "synchronous_commit": "on",
    # An UPDATE that waited for a row's lock checks the row again; above this level the statement would fail.
    "default_transaction_isolation": "read committed",
    # A plan made for any cursor would take the tail of the log for a third of the log.
    "plan_cache_mode": "force_custom_plan",
}


class PostgresDatabase(Database):
    """PostgreSQL through asyncpg. Units of work run at REPEATABLE READ."""

    name = "postgresql"
    is_in_process = False
    has_one_writer = False
    can_notify = True

    def __init__(self, url: URL, settings: Settings) -> None:
        import asyncpg  # noqa: F401

        name = url.query.get("application_name")
        self._url = url.difference_update_query(["application_name"])
        self._server_settings = {} if name is None else {"application_name": name}
        self._timeout_s = settings.database_timeout_s
        self._statement_timeout_s = settings.database_statement_timeout_s
        self._identity = self._adopted = ""
        self.lease_s = settings.lease_s

        pool_size = settings.database_pool_size
        # Under READ COMMITTED a row read before a concurrent change would be written back over that change.
        self.writer = self._engine("REPEATABLE READ", {"synchronous_commit": "on"}, pool_size=pool_size)
        self.reader = self._engine(
            "AUTOCOMMIT",
            {"default_transaction_read_only": "on"},
            pool_size=pool_size,
            pool_reset_on_return=None,  # as on SQLite
        )
        # Three connections for statements, one to listen, one for ``dedicated``; and a further one for each open
        # view: a long pass over a read model must not hold up other passes.
        self.keeper = self._engine("AUTOCOMMIT", _KEEPER_SETTINGS, pool_size=5, max_overflow=-1)
        self.dedicated = DedicatedReader(self.keeper)
        self.transactions: Transactions = PostgresTransactions(self.writer)

    def _engine(
        self, isolation_level: str, settings: Mapping[str, str], *, max_overflow: int = 0, **options: Any
    ) -> AsyncEngine:
        """Returns an engine whose connections have these settings of the server."""
        engine = create_async_engine(
            self._url,
            isolation_level=isolation_level,
            connect_args={
                "timeout": self._timeout_s,
                "command_timeout": self._statement_timeout_s,
                "server_settings": {**self._server_settings, **settings},
            },
            pool_timeout=self._timeout_s,
            # The connection used last is used next, so that the server can close idle connections.
            pool_use_lifo=True,
            max_overflow=max_overflow,
            **options,
        )
        sa.event.listen(engine.sync_engine, "do_connect", connect)
        sa.event.listen(engine.sync_engine, "connect", self._identify)
        sa.event.listen(engine.sync_engine, "checkout", self._refuse_outdated)
        sa.event.listen(engine.sync_engine, "handle_error", refuse_broken)
        return engine

    async def read_for_hinge(self, select: PreparedSelect, values: Values) -> Rows:
        found = await self.dedicated.fetch(select, values)
        return await super().read_for_hinge(select, values) if found is None else found

    async def begin_snapshot(self, connection: AsyncConnection) -> None:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def begin_read_committed(self, connection: AsyncConnection) -> None:
        # At REPEATABLE READ the transaction would not see changes committed while it waited for a lock.
        await connection.execution_options(isolation_level="READ COMMITTED")

    async def write_for_hinge(self, steps: Sequence[Step]) -> RowMapping | None:
        async with self.keeper.connect() as connection:
            if len(steps) > 1:
                await self.begin_read_committed(connection)
            return await run_steps(connection, steps)

    async def lock_schema(self, connection: AsyncConnection) -> None:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))

    async def lock_writes(self, connection: AsyncConnection, table: str) -> None:
        await connection.execute(sa.text(f'LOCK TABLE "{table}" IN SHARE ROW EXCLUSIVE MODE'))

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
        """Asks a new connection for the identity of its database. An open connection's can't change."""
        record.info["identity"] = identity = connection.run_async(_identity_of)
        if self._identity not in ("", identity):
            self.dedicated.expire()
        self._identity = identity

    def _refuse_outdated(self, connection: Any, record: Any, _proxy: object) -> None:
        """Has the pool replace a connection closed by the server, or to a server no longer at the address."""
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
        # The error of that class is of an altered table; by now the driver has forgotten its statements.
        return _sqlstate(error) in ("40001", "40P01") or (
            type(error.orig).__name__ == "InvalidCachedStatementError"
        )

    def is_misfit(self, error: DBAPIError) -> bool:
        return _class(error) == "22"

    def is_refused(self, error: DBAPIError) -> bool:
        return _class(error) in ("28", "3D")

    def is_lost(self, error: DBAPIError) -> bool:
        return error.connection_invalidated or _class(error) in _LOST_CLASSES


async def _identity_of(driver: Any) -> str:
    return ":".join([await _answer(driver, question) for question in _IDENTITY])


async def _answer(driver: Any, question: str) -> str:
    from asyncpg import InterfaceError, InternalClientError, PostgresError

    try:
        return str(await driver.fetchval(question))
    except (InterfaceError, InternalClientError) as error:
        raise OSError(str(error)) from error
    except PostgresError as error:
        if driver.is_closed() or str(error.sqlstate)[:2] in _LOST_CLASSES:
            raise OSError(str(error)) from error
        return ""  # not allowed to this user, or not known to a server that is not PostgreSQL itself


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _class(error: DBAPIError) -> str:
    """Returns the first two characters of the SQLSTATE.

    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    return (_sqlstate(error) or "")[:2]
