"""The application's own engine of PostgreSQL: its checks at the start, and its use by units of work.

Nothing is added to the engine but listeners, which the application's own use does not notice and which are removed at
the stop. What diptych needs besides is made from its URL and arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import StaticPool
from sqlalchemy.util import greenlet_spawn

from diptych.errors import ConfigurationError, DatabaseBusyError
from diptych.sql.postgres.driver import HOOKED, errors_of_driver, mark, refuse_broken

AppEngine: TypeAlias = AsyncEngine
"""An engine of the application's own."""

_HOOKS = (
    *("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"),
    *("begin", "commit", "rollback"),
)
"""Events of an engine that statements and transactions sent past the engine would not fire."""

_BESIDE = "the engine can stay beside diptych, which notices what is written through it"

_OWN_CREATOR = (
    "opens its connections by creator=, async_creator= or a pool of yours, so that diptych can't open those that it "
    f"needs besides: give the address and connect_args to create_async_engine; or set DATABASE_URL, and {_BESIDE}"
)


def check_engine(engine: object) -> AsyncEngine:
    """Returns the engine. Raises ``ConfigurationError``, with the remedy, for an engine of no use to diptych."""
    problem = _problem_of(engine)
    if problem is not None:
        raise ConfigurationError("engine", problem)
    return cast(AsyncEngine, engine)


def _problem_of(engine: object) -> str | None:
    if isinstance(engine, sa.Engine):
        return f"is not asynchronous: pass an AsyncEngine with asyncpg; or set DATABASE_URL, and {_BESIDE}"
    if not isinstance(engine, AsyncEngine):
        return f"must be SQLAlchemy's AsyncEngine with asyncpg, not of the type {type(engine).__name__}"
    dialect: Any = engine.dialect
    if dialect.name == "sqlite":
        return f"is of SQLite, which has a single writer: set DATABASE_URL to the file, and {_BESIDE}"
    if (dialect.name, dialect.driver) != ("postgresql", "asyncpg"):
        return (
            f"is of {dialect.name} with {dialect.driver}: make it with postgresql+asyncpg://; or set DATABASE_URL "
            f"if it is PostgreSQL, and {_BESIDE}"
        )
    if "schema_translate_map" in engine.get_execution_options():
        return "has a schema_translate_map, with which a table is not always the same table: take it away"
    if isinstance(engine.pool, StaticPool):
        return "has a StaticPool, in which everybody shares one transaction: take another pool"
    if dialect.dispatch.do_connect:
        return (
            "has hooks for the event do_connect, by which diptych's own connections could not be opened: put "
            "the address into the URL and connect_args, whose password may be a function; or set DATABASE_URL, and "
            f"{_BESIDE}"
        )
    return None


async def arguments_of(engine: AsyncEngine) -> dict[str, Any]:
    """Returns the arguments of the engine for its connections; no connection is opened.

    Raises ``ConfigurationError`` if something other than the engine opens them.
    """
    task = asyncio.current_task()

    def tell(
        _dialect: object, _record: object, _arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        if asyncio.current_task() is task:  # another task of the application may open a connection meanwhile
            raise _Told(options)

    pool = engine.pool.recreate()
    sa.event.listen(engine.sync_engine, "do_connect", tell)
    try:
        await greenlet_spawn(lambda: pool.connect().close())
    except _Told as told:
        if "async_creator_fn" not in told.options:
            return told.options
    except Exception as error:
        raise ConfigurationError("engine", _OWN_CREATOR) from error
    finally:
        sa.event.remove(engine.sync_engine, "do_connect", tell)
        await greenlet_spawn(pool.dispose)
    raise ConfigurationError("engine", _OWN_CREATOR)


class _Told(Exception):
    """Carries the arguments of a connection not opened."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = dict(options)


class SharedEngine:
    """The application's engine for the use by units of work.

    ``engine`` shares its pool and its hooks, and has the listeners of diptych's own statements besides. ``identify``
    is called with each new connection of the pool; ``is_outdated`` says whether a connection, by the driver's and by
    what the pool knows of it, may not be used any more, and is true for one that was opened before.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        identify: Callable[[Any, Any], None],
        is_outdated: Callable[[Any, Mapping[Any, Any]], bool],
    ) -> None:
        dispatch: Any = engine.sync_engine.dispatch
        dialect: Any = engine.dialect
        # Statements sent past the engine go past its own function for JSON, too.
        self.is_hooked = bool(dialect._json_serializer) or any(getattr(dispatch, name) for name in _HOOKS)
        self.engine = engine.execution_options(**({HOOKED: True} if self.is_hooked else {}))
        own = self.engine.sync_engine
        self._is_outdated = is_outdated
        sa.event.listen(own, "before_cursor_execute", mark, retval=True)  # of this engine alone

        def refuse(context: ExceptionContext) -> None:
            if context.engine is own:
                refuse_broken(context)

        # These are the dialect's and the pool's, and so the application's too.
        self._listeners: tuple[tuple[str, Callable[..., None]], ...] = (
            ("connect", identify),
            ("handle_error", refuse),
        )
        for name, listener in self._listeners:
            sa.event.listen(own, name, listener)

    async def take(self) -> AsyncConnection:
        """Returns a connection. A connection opened before the start, or to a former server, is replaced."""
        while True:
            connection = self.engine.connect()
            with _connecting():
                await connection.start()
            pooled = cast(sa.Connection, connection.sync_connection).connection
            if not self._is_outdated(pooled.driver_connection, pooled.info):
                return connection
            await connection.invalidate()
            await connection.close()

    async def give_back(self, connection: AsyncConnection) -> None:
        """Gives a connection back to the pool."""
        await connection.close()

    async def close(self) -> None:
        """Removes the listeners. The engine is the application's, and stays open. Safe to call twice."""
        for name, listener in self._listeners:
            sa.event.remove(self.engine.sync_engine, name, listener)
        self._listeners = ()


@contextlib.contextmanager
def _connecting() -> Iterator[None]:
    """Inside the block, errors of an opening connection have an engine's form under each version of SQLAlchemy."""
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseBusyError(
            "every connection of the application's engine was in use for longer than its pool_timeout: "
            "raise its pool_size, or shorten what holds them"
        ) from error
    except errors_of_driver() as error:
        raise DBAPIError(None, None, error, connection_invalidated=True) from error
