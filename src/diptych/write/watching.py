"""The connection under a session, watched: statements are screened, ends refused, and savepoints followed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import RollbackToSavepointClause, SavepointClause

from diptych.errors import UnitOfWorkError
from diptych.write.screening import check_statement, check_text

BY_DIPTYCH = "the command's transaction is ended by diptych: let the handler return, or raise an error"


class Unit(Protocol):
    """The unit of work of a session."""

    @property
    def change_count(self) -> int:
        """Number of the changes made so far by ``ORMService``."""

    def undo(self, change_count: int) -> None:
        """Forgets the changes after the first ``change_count``: a savepoint has undone these."""

    def check_usable(self) -> None:
        """Raises ``UnitOfWorkError`` if the unit of work is over, or a statement of the unit has failed."""

    def fail(self, reason: str) -> None:
        """Has the unit of work refuse everything from now on, its commit too."""


@contextlib.contextmanager
def watched(connection: AsyncConnection, unit: Unit) -> Iterator[None]:
    """Inside the block, statements given to the connection itself are screened, and its ends are refused.

    On SQLite other commands may be in the transaction. On PostgreSQL a flush that fails rolls the transaction back,
    which sends nothing: the unit of work does, at its end.
    """
    sync = cast(sa.Connection, connection.sync_connection)
    root: Any = sync.get_transaction()
    watch = _watches.get(sync)
    if watch is None:
        watch = _watches[sync] = _Watch(sync)
    watch.begin(unit)
    replaced = {**_REFUSING, "invalidate": _invalidating(sync)}
    for name, method in replaced.items():
        setattr(sync, name, method)
    try:
        yield
    finally:
        watch.unit = None
        for name in replaced:
            delattr(sync, name)
        # ★ A refused end has SQLAlchemy take the transaction for ended: on SQLite it would not commit what other
        # commands have changed in it.
        if sync.dialect.name == "sqlite":
            sync._transaction = root
        present: Any = sync.get_transaction()
        if present is root:
            present.is_active = True


def _refusing(name: str) -> Callable[..., None]:
    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise UnitOfWorkError(f"the connection's {name}() was refused: {BY_DIPTYCH}")

    return refuse


_REFUSING = {name: _refusing(name) for name in ("commit", "rollback", "close")}
"""Refusals in place of the methods of a connection that end its transaction."""


def _invalidating(connection: sa.Connection) -> Callable[..., None]:
    """Returns a method in place of ``invalidate``, which SQLAlchemy calls with the error of a broken connection."""

    def invalidate(exception: BaseException | None = None) -> None:
        if exception is None:
            raise UnitOfWorkError(f"the connection's invalidate() was refused: {BY_DIPTYCH}")
        type(connection).invalidate(connection, exception)

    return invalidate


class _Watch:
    """Listeners of a connection, which stay as long as the connection does. They act while it has a ``unit``."""

    def __init__(self, connection: sa.Connection) -> None:
        self.unit: Unit | None = None
        self._counts: dict[str, int] = {}
        # To listen costs as much as a short statement: the connection is kept for other commands.
        for name in ("before_cursor_execute", "commit", "rollback"):
            sa.event.listen(connection, name, getattr(self, name))

    def begin(self, unit: Unit) -> None:
        """Acts for this unit of work from now on."""
        self.unit = unit
        self._counts.clear()

    def before_cursor_execute(
        self, _connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        unit = self.unit
        if unit is None:
            return
        unit.check_usable()
        if context is None or context.compiled is None:
            check_text(statement)
            return
        sent = context.compiled.statement
        check_statement(sent)
        # ★ The end of the command brings its changes to Redis: a change that a savepoint has undone would be told to
        # every query.
        if isinstance(sent, SavepointClause):
            self._counts[sent.ident] = unit.change_count
        elif isinstance(sent, RollbackToSavepointClause):
            unit.undo(self._counts[sent.ident])

    def commit(self, _connection: sa.Connection) -> None:
        if self.unit is not None:
            self.unit.fail("its connection was to be committed: let the error leave the handler")
            _REFUSING["commit"]()

    def rollback(self, connection: sa.Connection) -> None:
        if self.unit is not None:
            self.unit.fail("its connection was rolled back: let the error leave the handler")
            if connection.dialect.name == "sqlite":
                _REFUSING["rollback"]()


_watches: WeakKeyDictionary[sa.Connection, _Watch] = WeakKeyDictionary()
