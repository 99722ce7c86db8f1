"""PostgreSQL as a ``Database``: levels of isolation, settings of the connections, and errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, RowMapping
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from diptych.config.settings import Settings
from diptych.errors import ConfigurationError
from diptych.sql.database import Database, Failure, Rows, Step, Transaction, Values, run_steps
from diptych.sql.postgres.driver import (
    DedicatedReader,
    connect,
    is_of_altered_table,
    mark,
    pooler_error,
    refuse_broken,
    sqlstate_of,
)
from diptych.sql.postgres.engine import SharedEngine
from diptych.sql.postgres.moments import PostgresMoment, PostgresMoments, Snapshots
from diptych.sql.postgres.transactions import PooledTransaction
from diptych.sql.postgres.writers import KeptConnections
from diptych.sql.statements import PreparedSelect

_FAILURES: Mapping[str, Failure] = {
    **{"40001": "conflict", "40P01": "conflict"},
    **{"55P03": "busy", "53300": "busy", "57014": "busy"},
    **{"22": "misfit", "28": "refused", "3D": "refused"},
    **{"08": "lost", "57": "lost", "53": "lost", "58": "lost"},
    **{"42703": "schema", "42P01": "schema", "3F000": "schema", "42501": "denied"},
}
"""Kinds of errors by SQLSTATE, or by its class, which is the first two characters.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

_IDENTITY = (
    "SELECT CAST(system_identifier AS text) FROM pg_control_system()",
    # The timeline at the present end of the log; the control file shows a new timeline only at the next checkpoint.
    "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
    "SELECT CAST(oid AS text) FROM pg_database WHERE datname = current_database()",
)
"""Selects whose answers together identify the database."""

_SEARCHED = sa.text("SELECT current_database(), CAST(current_schemas(false) AS text)")

_SETTINGS = "SELECT name, current_setting(name) FROM unnest($1::text[]) AS asked (name)"

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

    def __init__(
        self,
        url: URL,
        settings: Settings,
        *,
        shared: AsyncEngine | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes the engines. ``shared`` is the application's, for units of work, and ``arguments`` are its own."""
        import asyncpg  # noqa: F401

        name = url.query.get("application_name")
        self._url = url.difference_update_query(["application_name"])
        self._arguments = dict(arguments or {})
        given = self._arguments.pop("server_settings", {})
        # A keeper has to wait longer than a request of the application may.
        self._server_settings = {k: v for k, v in given.items() if not k.endswith("_timeout")}
        if name is not None:
            self._server_settings["application_name"] = name
        self._settings = settings
        self._identity = ""
        self._seen = object()
        """Key, in what the pool knows of a connection, of its identity. Applications may share an engine."""
        self._loading = {} if shared is None else _loading_of(shared.dialect)
        self.lease_s = settings.lease_s

        pool_size = settings.database_pool_size
        self.shared = None if shared is None else SharedEngine(shared, self._identify, self._is_outdated)
        self.takes_raw = self.shared is None or not self.shared.is_hooked
        self.writers = self.shared or self._own_writers(pool_size)
        self.writer = self.writers.engine
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
        self.moments = PostgresMoments(self.keeper)
        self._snapshots = Snapshots()

    def _own_writers(self, pool_size: int) -> KeptConnections:
        # Under READ COMMITTED a row read before a concurrent change would be written back over that change. The
        # default is for statements that commit by themselves.
        on_server = {"synchronous_commit": "on", "default_transaction_isolation": "repeatable read"}
        engine = self._engine("REPEATABLE READ", on_server, pool_size=pool_size)
        sa.event.listen(engine.sync_engine, "before_cursor_execute", mark, retval=True)
        return KeptConnections(engine, pool_size, self._settings.database_timeout_s, self._is_outdated)

    def _engine(
        self, isolation_level: str, on_server: Mapping[str, str], *, max_overflow: int = 0, **options: Any
    ) -> AsyncEngine:
        """Returns an engine whose connections have these settings of the server."""
        engine = create_async_engine(
            self._url,
            isolation_level=isolation_level,
            connect_args={
                **self._arguments,
                "timeout": self._settings.database_timeout_s,
                "command_timeout": self._settings.database_statement_timeout_s,
                "server_settings": {**self._server_settings, **on_server},
            },
            pool_timeout=self._settings.database_timeout_s,
            # The connection used last is used next, so that the server can close idle connections.
            pool_use_lifo=True,
            max_overflow=max_overflow,
            **self._loading,
            **options,
        )
        sa.event.listen(engine.sync_engine, "do_connect", connect)
        sa.event.listen(engine.sync_engine, "connect", self._identify)
        sa.event.listen(engine.sync_engine, "checkout", self._refuse_outdated)
        sa.event.listen(engine.sync_engine, "handle_error", refuse_broken)
        sa.event.listen(engine.sync_engine, "first_connect", partial(_check_settings, on_server))
        return engine

    async def check_shared(self) -> None:
        """Raises ``ConfigurationError`` if the application's engine finds other tables than diptych's own would."""
        if self.shared is None:
            return
        found = []
        for engine in (self.shared, self.keeper):
            connection = await (engine.take() if isinstance(engine, SharedEngine) else engine.connect())
            try:
                found.append(tuple(*await connection.execute(_SEARCHED)))
            finally:
                await connection.close()
        (database, path), (own_database, own_path) = found
        if found[0] != found[1]:
            raise ConfigurationError(
                "engine",
                f"finds tables of the database {database} by the search_path {path}, diptych's own connections "
                f"those of {own_database} by {own_path}: set search_path in the server_settings of connect_args, or "
                "for the role",
            )

    async def read(self, select: sa.Select[Any], values: Values | None = None) -> Rows:
        try:
            return await super().read(select, values)
        except DBAPIError as error:
            if not is_of_altered_table(error):
                raise
        return await super().read(select, values)

    async def read_for_hinge(self, select: PreparedSelect, values: Values) -> Rows:
        found = await self.dedicated.fetch(select, values)
        return await super().read_for_hinge(select, values) if found is None else found

    async def begin_unit(self, kind: Hashable) -> Transaction:
        connection = await self.writers.take()
        if self.shared is None:
            return PooledTransaction(connection, self.writers.give_back)
        return PooledTransaction(
            connection,
            self.writers.give_back,
            is_foreign=True,
            is_hooked=self.shared.is_hooked,
            timeout_s=self._settings.database_statement_timeout_s,
        )

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        # Units of work may have an engine of the application's.
        async with self.keeper.connect() as connection:
            await self.begin_read_committed(connection)
            async with connection.begin():
                yield connection

    def moment(self) -> contextlib.AbstractAsyncContextManager[PostgresMoment]:
        return self.moments.open()

    def snapshot(self, engine: AsyncEngine) -> contextlib.AbstractAsyncContextManager[PostgresMoment]:
        return self._snapshots.open(engine)

    async def begin_read_committed(self, connection: AsyncConnection) -> None:
        # At REPEATABLE READ the transaction would not see changes committed while it waited for a lock.
        await connection.execution_options(isolation_level="READ COMMITTED")

    async def write_for_hinge(self, steps: Sequence[Step]) -> RowMapping | None:
        async with self.keeper.connect() as connection:
            if len(steps) > 1:
                await self.begin_read_committed(connection)
            return await run_steps(connection, steps)

    async def lock_schema(self, connection: AsyncConnection) -> None:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self.schema_lock)))

    async def lock_writes(self, connection: AsyncConnection, table: str) -> None:
        await connection.execute(sa.text(f'LOCK TABLE "{table}" IN SHARE ROW EXCLUSIVE MODE'))

    async def close(self) -> None:
        await self.dedicated.close()
        await self.moments.close()
        await self.writers.close()
        await self.settle()
        await self.reader.dispose()
        await self.keeper.dispose()
        if self.shared is None:
            await self.writer.dispose()

    @property
    def address(self) -> str:
        host = self._url.host or self._url.query.get("host", "localhost")
        port = f":{self._url.port}" if self._url.port else ""
        return f"{host}{port}/{self._url.database or ''}"

    @property
    def identity(self) -> str:
        return self._identity

    def _identify(self, connection: Any, record: Any) -> None:
        """Asks a new connection for the identity of its database. An open connection's can't change."""
        identity = connection.run_async(_identity_of)
        record.info[self._seen] = identity
        if self._identity not in ("", identity):
            self.dedicated.expire()
            self.moments.expire()
        self._identity = identity

    def _refuse_outdated(self, connection: Any, record: Any, _proxy: object) -> None:
        """Has the pool replace an outdated connection."""
        if self._is_outdated(connection.driver_connection, record.info):
            raise DisconnectionError

    def _is_outdated(self, driver: Any, info: Mapping[Any, Any]) -> bool:
        """Returns whether a connection is closed, was opened before the start, or leads to a server of the past."""
        return bool(driver.is_closed()) or info.get(self._seen) != self._identity

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        if sqlstate_of(error) != "23505":
            return None
        found = re.match(r"Key \((.+?)\)=", _told_by(error, "detail") or "")
        return [name.strip('" ') for name in found[1].split(",")] if found else []

    def table_of(self, error: DBAPIError) -> str | None:
        return _told_by(error, "table_name")

    def failure_of(self, error: DBAPIError) -> Failure | None:
        if is_of_altered_table(error):
            return "conflict"
        state = sqlstate_of(error) or ""
        known = _FAILURES.get(state) or _FAILURES.get(state[:2])
        return known or ("lost" if error.connection_invalidated else None)


def _told_by(error: DBAPIError, field: str) -> str | None:
    """Returns what the server tells in this field of an error, over the engine or over the driver alone."""
    told = (getattr(one, field, None) for one in (error.orig, getattr(error.orig, "__cause__", None)))
    return next(filter(None, told), None)


def _loading_of(dialect: Any) -> dict[str, Any]:
    """Returns the options by which an engine's connections load values.

    What queries read has to be loaded like what commands read, over the application's engine.
    """
    return {
        "json_deserializer": dialect._json_deserializer,
        "native_inet_types": dialect._native_inet_types,
    }


async def _identity_of(driver: Any) -> str:
    return ":".join([await _answer(driver, question) for question in _IDENTITY])


def _check_settings(on_server: Mapping[str, str], connection: Any, _record: object) -> None:
    """Raises ``ConfigurationError`` if a pooler has kept settings of the connection to itself."""
    found = connection.run_async(lambda driver: driver.fetch(_SETTINGS, list(on_server)))
    if dict(found) != on_server:
        raise pooler_error()


async def _answer(driver: Any, question: str) -> str:
    from asyncpg import InterfaceError, InternalClientError, PostgresError

    try:
        return str(await driver.fetchval(question))
    except (InterfaceError, InternalClientError) as error:
        raise OSError(str(error)) from error
    except PostgresError as error:
        if driver.is_closed() or _FAILURES.get(str(error.sqlstate)[:2]) == "lost":
            raise OSError(str(error)) from error
        return ""  # not allowed to this user, or not known to a server that is not PostgreSQL itself
