"""The connection under a session, watched: statements are screened, ends refused, and savepoints followed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import RollbackToSavepointClause, SavepointClause

from diptych.errors import UnitOfWorkError
from diptych.write.screening import check_statement, check_text

BY_DIPTYCH = "the command's transaction is ended by diptych: let the handler return, or raise an error"

_ENDS = ("commit", "rollback", "close", "invalidate")
"""Methods of a connection that end its transaction."""


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
    listeners = [*_of_statements(unit), *_of_ends(unit)]
    for name, listener in listeners:
        sa.event.listen(sync, name, listener)
    for name in _ENDS:
        setattr(sync, name, _refusing(name))
    try:
        yield
    finally:
        for name in _ENDS:
            delattr(sync, name)
        for name, listener in listeners:
            sa.event.remove(sync, name, listener)
        # ★ A refused end has SQLAlchemy take the transaction for ended: on SQLite it would not commit what other
        # commands have changed in it.
        if sync.dialect.name == "sqlite":
            sync._transaction = root
        present: Any = sync.get_transaction()
        if present is root:
            present.is_active = True


_Listener = tuple[str, Callable[..., None]]


def _refusing(name: str) -> Callable[..., None]:
    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise UnitOfWorkError(f"the connection's {name}() was refused: {BY_DIPTYCH}")

    return refuse


def _of_statements(unit: Unit) -> Iterator[_Listener]:
    counts: dict[str, int] = {}

    def screen(
        _connection: Any, _cursor: Any, statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        unit.check_usable()
        if context is None or context.compiled is None:
            check_text(statement)
            return
        sent = context.compiled.statement
        check_statement(sent)
        # ★ The end of the command brings its changes to Redis: a change that a savepoint has undone would be told to
        # every query.
        if isinstance(sent, SavepointClause):
            counts[sent.ident] = unit.change_count
        elif isinstance(sent, RollbackToSavepointClause):
            unit.undo(counts[sent.ident])

    yield "before_cursor_execute", screen


def _of_ends(unit: Unit) -> Iterator[_Listener]:
    def commit(_connection: sa.Connection) -> None:
        unit.fail("its connection was to be committed: let the error leave the handler")
        _refusing("commit")()

    def roll_back(connection: sa.Connection) -> None:
        unit.fail("its connection was rolled back: let the error leave the handler")
        if connection.dialect.name == "sqlite":
            _refusing("rollback")()

    yield "commit", commit
    yield "rollback", roll_back
