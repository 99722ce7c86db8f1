"""PostgreSQL's driver under an engine's connection, with errors as raised by an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.sql.postgres.connecting import is_of_broken_connection
from diptych.sql.statements.raw import RawStatement


async def fetch_raw(
    connection: AsyncConnection, statement: RawStatement, values: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    """Returns the rows of a statement sent past the engine, in the connection's transaction.

    Raises the errors of an engine.
    """
    driver = driver_of(connection)
    fetching = statement.fetch(driver, values)
    with engine_errors(driver):
        return await fetching


@contextlib.contextmanager
def engine_errors(driver: Any) -> Iterator[None]:
    """Inside the block, errors of the driver are raised in an engine's form."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        is_constraint = str(getattr(error, "sqlstate", None)).startswith("23")
        kind = IntegrityError if is_constraint else DBAPIError
        is_broken = driver.is_closed() or is_of_broken_connection(error)
        raise kind(None, None, error, connection_invalidated=is_broken) from error


def driver_of(connection: AsyncConnection) -> Any:
    """Returns asyncpg's connection under an engine's."""
    return cast(sa.Connection, connection.sync_connection).connection.driver_connection


def adapter_of(connection: AsyncConnection) -> Any:
    """Returns SQLAlchemy's adapter between an engine's connection and asyncpg's, with the interface of PEP 249."""
    return cast(sa.Connection, connection.sync_connection).connection.dbapi_connection
