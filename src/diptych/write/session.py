"""SQLAlchemy's ``AsyncSession`` in a command's transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Literal, Self, TypeAlias, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, AsyncSessionTransaction
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from diptych.aio.event_loop import HomeLoop
from diptych.aio.tasks import shielded
from diptych.errors import UnitOfWorkError
from diptych.sql.description import Entity
from diptych.sql.entity import MappedEntity
from diptych.write.screening import check_statement
from diptych.write.watching import BY_DIPTYCH, Unit, watched

OnCommit: TypeAlias = Literal["refuse", "flush"]
"""Effect of ``commit()`` in a handler: an error, or a flush, for services that call it themselves."""

_inside: ContextVar[CommandSession | None] = ContextVar("diptych_session", default=None)
"""The session that the running code is an operation of."""


class _Session(Session):
    """The session under a ``CommandSession``; its commits and rollbacks are not the handler's to make."""

    unit: Unit
    on_commit: OnCommit = "refuse"

    def commit(self) -> None:
        self.unit.check_usable()
        if self.on_commit == "refuse":
            raise UnitOfWorkError(
                f'commit() was refused: {BY_DIPTYCH}; or open it with session(commit="flush")'
            )
        self.flush()

    def rollback(self) -> None:
        self.unit.fail("its session was rolled back: let the error leave the handler")
        self.expunge_all()
        if self.on_commit == "refuse":
            raise UnitOfWorkError(f"rollback() was refused: {BY_DIPTYCH}")

    def prepare(self) -> None:
        raise UnitOfWorkError(f"prepare() was refused: {BY_DIPTYCH}")

    def invalidate(self) -> None:
        raise UnitOfWorkError(f"invalidate() was refused: {BY_DIPTYCH}")

    def close(self) -> None:
        self.unit.check_usable()
        self.flush()

    def reset(self) -> None:
        self.close()
        self.expunge_all()

    def begin(self, nested: bool = False) -> Any:
        self.unit.check_usable()
        if not nested and self.on_commit == "refuse":
            raise UnitOfWorkError(f"begin() was refused: {BY_DIPTYCH}; begin_nested() makes a savepoint")
        self._autobegin_t()
        begun = super().begin(nested=True)
        self.connection()  # sends the savepoint at once: what ORMService changes next is to be within
        return begun

    def execute(self, statement: Any, *arguments: Any, **named: Any) -> Any:
        check_statement(statement)
        return super().execute(statement, *arguments, **named)

    def conclude(self) -> None:
        """Flushes, and leaves the command's transaction open."""
        super().commit()


class CommandSession(AsyncSession):
    """SQLAlchemy's ``AsyncSession`` on the connection of a unit of work, for a single attempt at a command.

    What it flushes is part of the command, and is flushed at the handler's end at the latest. ``commit``,
    ``rollback`` and ``begin`` raise ``UnitOfWorkError``; ``begin_nested`` makes a savepoint. Results are buffered:
    ``stream`` is refused. One task may use the session at a time.
    """

    def __init__(self, unit: Unit, connection: AsyncConnection, turn: asyncio.Lock) -> None:
        is_shared = connection.dialect.name == "sqlite"
        # On SQLite other commands may be in the transaction: a savepoint keeps a failed flush from undoing theirs.
        super().__init__(
            bind=connection,
            sync_session_class=_Session,
            expire_on_commit=False,
            join_transaction_mode="create_savepoint" if is_shared else "rollback_only",
        )
        self._unit = unit
        self._is_shared = is_shared
        self._turn = turn
        self._home = HomeLoop("the session of a command")
        self._is_busy = False
        self._here.unit = unit

    @property
    def _here(self) -> _Session:
        return cast(_Session, self.sync_session)

    def set_on_commit(self, on_commit: OnCommit) -> None:
        """Sets the effect of ``commit()``."""
        self._here.on_commit = on_commit

    async def run_alone(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Awaits an operation of the session. Raises ``UnitOfWorkError`` during an operation of a different task."""
        self._home.check()
        self._unit.check_usable()
        if _inside.get() is self:  # an operation that is made of others
            return await work()
        if self._is_busy:
            raise UnitOfWorkError(
                "this session is in use by another task: one task may use a session at a time"
            )
        is_nested = self.in_nested_transaction()
        self._is_busy = True
        token = _inside.set(self)
        try:
            async with self._turn:
                # Cut off in the midst of a statement, SQLAlchemy would close SQLite's connection, and undo the
                # changes of other commands in the same transaction.
                return await (shielded(work()) if self._is_shared else work())
        except (DBAPIError, asyncio.CancelledError):
            # A savepoint undoes the statement that has failed; without one, half of the changes could be committed.
            if not is_nested:
                self._unit.fail("a statement of its session failed: let the error leave the handler")
            raise
        finally:
            _inside.reset(token)
            self._is_busy = False

    def begin_nested(self) -> AsyncSessionTransaction:
        return _Nested(self, nested=True)

    async def stream(self, *_arguments: Any, **_named: Any) -> Any:
        raise UnitOfWorkError("stream() was refused: use execute(), whose result is buffered")

    async def stream_scalars(self, *_arguments: Any, **_named: Any) -> Any:
        raise UnitOfWorkError("stream_scalars() was refused: use scalars(), whose result is buffered")

    async def invalidate(self) -> None:
        raise UnitOfWorkError(f"invalidate() was refused: {BY_DIPTYCH}")

    async def commit(self) -> None:
        await self.run_alone(super().commit)

    async def rollback(self) -> None:
        await self.run_alone(super().rollback)

    async def close(self) -> None:
        """Flushes, as the end of a ``with`` block does. The session ends with its command."""
        await self.flush()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            await self.flush()

    async def conclude(self) -> None:
        """Flushes the remaining changes. To be called at the end of the handler."""
        await self.run_alone(lambda: self.run_sync_here(_Session.conclude))

    async def run_sync_here(self, function: Callable[[Any], Any]) -> Any:
        """Calls a function with the synchronous session underneath."""
        return await super().run_sync(function)

    def note(self, entity: MappedEntity, row: Mapping[str, Any] | None, key: Mapping[str, Any]) -> None:
        """Has an instance held by the session show the row as left by ``ORMService``; None: deleted."""
        instance = self._held(entity, key)
        if instance is None:
            return
        if row is None:
            self.sync_session.expunge(instance)
            return
        for name, value in row.items():
            set_committed_value(instance, name, value)

    def expire_row(self, entity: Entity, key: Mapping[str, Any]) -> None:
        """Has an instance held by the session read this row again."""
        instance = self._held(entity, key)
        if instance is not None:
            self.sync_session.expire(instance)

    def _held(self, entity: MappedEntity | Entity, key: Mapping[str, Any]) -> Any:
        identity = tuple(key[name] for name in entity.primary_key)
        return self.sync_session.identity_map.get(identity_key(entity.model, identity))


def _alone(name: str) -> Callable[..., Awaitable[Any]]:
    operation = getattr(AsyncSession, name)

    async def call(self: CommandSession, *arguments: Any, **named: Any) -> Any:
        return await self.run_alone(lambda: operation(self, *arguments, **named))

    call.__name__, call.__doc__ = name, operation.__doc__
    return call


for _name in (
    *("refresh", "run_sync", "execute", "scalar", "scalars", "get", "get_one", "delete", "merge", "flush"),
    "connection",
):
    setattr(CommandSession, _name, _alone(_name))


class _Nested(AsyncSessionTransaction):
    """A savepoint of the handler's: begun and ended like the operations of its session."""

    async def start(self, is_ctxmanager: bool = False) -> Self:
        session = cast(CommandSession, self.session)
        return cast(Self, await session.run_alone(lambda: super(_Nested, self).start(is_ctxmanager)))

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        session = cast(CommandSession, self.session)
        await session.run_alone(lambda: super(_Nested, self).__aexit__(kind, error, trace))


async def open_session(
    connection: AsyncConnection, unit: Unit, turn: asyncio.Lock, exits: contextlib.ExitStack
) -> CommandSession:
    """Returns a session in the transaction of this connection. ``exits`` takes its listeners off again."""
    if not connection.in_transaction():
        await connection.begin()  # PostgreSQL has begun: the engine is told, and sends nothing
    exits.enter_context(watched(connection, unit))
    return CommandSession(unit, connection, turn)
