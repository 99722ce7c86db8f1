"""Opening connections by asyncpg, alike under SQLAlchemy 2.0 and 2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def connect(dialect: Any, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Opens a connection as the dialect does; a listener for the event ``do_connect`` of an engine.

    Raises asyncpg's errors as the dialect's ``Error``, which the engine wraps in a ``DBAPIError``. SQLAlchemy 2.1
    does so by itself; 2.0 lets asyncpg's own errors through while it connects.
    """
    import asyncpg

    try:
        return dialect.connect(*arguments, **options)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        adapted = dialect.dbapi.Error(str(error))
        adapted.sqlstate = getattr(error, "sqlstate", None)
        raise adapted from error
