"""Connections by asyncpg: opened alike under SQLAlchemy 2.0 and 2.1, and given up when they are broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import ExceptionContext


def connect(dialect: Any, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Opens a connection as the dialect does; a listener for the event ``do_connect`` of an engine.

    Raises asyncpg's errors as the dialect's ``Error``, which the engine wraps in a ``DBAPIError``. SQLAlchemy 2.1
    does so by itself; 2.0 lets asyncpg's own errors through while it connects.
    """
    import asyncpg

    try:
        return dialect.connect(*arguments, **options)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        adapted = dialect.dbapi.Error(str(error))
        adapted.sqlstate = getattr(error, "sqlstate", None)
        raise adapted from error


def refuse_broken(context: ExceptionContext) -> None:
    """Raises ``OSError`` for a statement on a broken connection; a listener for the event ``handle_error``.

    A server that ends a session says so before it closes the connection. Between the two asyncpg refuses every
    statement by an error of its own, which SQLAlchemy lets through as it is.
    """
    if is_of_broken_connection(context.original_exception):
        raise OSError("PostgreSQL has ended the session") from context.original_exception


def is_of_broken_connection(error: BaseException) -> bool:
    """Returns whether asyncpg has refused a statement because the connection is between two states."""
    return type(error).__name__ == "InternalClientError"
