"""Translation of the database's errors into diptych's own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Mapper

from diptych.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DiptychError,
    DuplicateError,
    Fault,
    InvalidValueError,
    SchemaError,
)
from diptych.sql.database import Database, Failure
from diptych.sql.entity import MappedEntity
from diptych.sql.sqlite.types import Unstorable

_MIGRATED = "a migration was run, or is to be run; start the version of the application that fits the table"

_SILENT = "it took too long to answer"
"""What a time-out would say, which has no words of its own."""

_REMEDIES = {
    "55P03": "shorten what holds the lock, or raise lock_timeout if that was too short",
    "57014": "shorten the statement, or what it waits for, or raise statement_timeout if that has ended it",
    "53300": "lower DATABASE_POOL_SIZE, or raise max_connections",
}
"""What helps against an error by which PostgreSQL refuses to wait, by SQLSTATE."""


class TransactionConflict(DiptychError):
    """Raised when a concurrent transaction won: the unit of work is run again. Never reaches a user."""


def translated(database: Database, entity: MappedEntity | None = None) -> AbstractContextManager[None]:
    """Inside the block, errors of the database are raised as diptych's own, with the cause kept.

    ``entity`` is the mapped class of the statements, named in the errors.
    """
    return _Translating(database, entity)


class _Translating:
    """The block of ``translated``. A generator would cost each command several times as much."""

    __slots__ = ("_database", "_entity")

    def __init__(self, database: Database, entity: MappedEntity | None) -> None:
        self._database = database
        self._entity = entity

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, DBAPIError):
            known = _translate(self._database, error, self._entity)
            if known is not None:
                raise known from error
        elif isinstance(error, StatementError):
            # Raised by the column's type, before the statement was sent.
            raise _misfit(self._entity, error.orig) from error
        elif isinstance(error, PoolTimeoutError):
            raise DatabaseBusyError(
                "every SQL connection was in use for longer than DATABASE_TIMEOUT_MS: "
                "raise DATABASE_POOL_SIZE, or shorten what holds them"
            ) from error
        elif isinstance(error, OSError):
            raise DatabaseUnavailableError(
                f"the SQL database can't be reached ({self._database.address}): {error if str(error) else _SILENT}"
            ) from error


@contextlib.contextmanager
def translated_reading(database: Database, entity: MappedEntity | None = None) -> Iterator[None]:
    """Like ``translated``, for statements that are not run again: a conflict becomes ``DatabaseBusyError``."""
    try:
        with translated(database, entity):
            yield
    except TransactionConflict as error:
        raise DatabaseBusyError(
            "a concurrent transaction changed the same row, or altered the table"
        ) from error


def _translate(database: Database, error: DBAPIError, entity: MappedEntity | None) -> DiptychError | None:
    failure = database.failure_of(error)
    if failure == "conflict":
        return TransactionConflict("a concurrent transaction changed the same rows")
    if isinstance(error, IntegrityError):
        return _constraint(database, error, entity)
    if failure == "busy":
        return DatabaseBusyError(_busy(error))
    if failure == "misfit":
        return _misfit(entity)
    if failure == "refused":
        return DatabaseUnavailableError(
            f"the SQL database refused the connection, or the file is none ({database.address}): {words_of(error)}; "
            "check the user, the password and the name of the database in DATABASE_URL"
        )
    if failure == "lost":
        return DatabaseUnavailableError(
            f"the SQL database can't be reached, or broke the connection ({database.address}): {words_of(error)}"
        )
    if entity is not None and failure in ("schema", "denied"):
        return _unlike(failure, error, entity)
    return None


def _busy(error: DBAPIError) -> str:
    remedy = _REMEDIES.get(_sqlstate(error) or "")
    if remedy is None:
        return "other writers held the SQL database for longer than DATABASE_TIMEOUT_MS"
    # The time-outs are the server's, the role's or the transaction's: DATABASE_TIMEOUT_MS has no part in them.
    return f"the SQL database has given up: {words_of(error)}; {remedy}"


def _unlike(failure: Failure, error: DBAPIError, entity: MappedEntity) -> SchemaError:
    words, table = words_of(error), entity.full_name
    # A document is read from other tables too, by joins and for nested fields.
    is_named = re.search(rf"\b{re.escape(entity.table.name)}\b", words) is not None
    if failure == "denied":
        mend = "grant the role of DATABASE_URL what it needs " + (
            f"on the table {table}"
            if is_named
            else f"there, for what is read or written with the table {table}"
        )
    elif is_named:
        mend = f"the table {table} and the mapping of {entity.name} differ: {_MIGRATED}"
    else:
        mend = f"a table that is read or written with {table} and its mapping differ: {_MIGRATED}"
    return SchemaError([f"{words}: {mend}"])


def words_of(error: DBAPIError) -> str:
    """Returns the driver's words for an error."""
    return str(error.orig).rpartition(">: ")[2] or _SILENT


def is_denied(error: DBAPIError) -> bool:
    """Returns whether the role lacks a right: to a table, to its owner's statements, or to any schema."""
    return _sqlstate(error) in ("42501", "3F000")


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _misfit(entity: MappedEntity | None, reason: BaseException | None = None) -> InvalidValueError:
    # Neither error tells the value at fault; the driver's text may quote the value and stays in the cause.
    words = str(reason) if isinstance(reason, Unstorable) else "does not fit the type of its column"
    return InvalidValueError(_name_of(entity), [Fault("a value", words)])


def _name_of(entity: MappedEntity | None) -> str:
    return entity.name if entity else "the database"


def _constraint(database: Database, error: IntegrityError, entity: MappedEntity | None) -> ConstraintError:
    columns = database.unique_columns_of(error)
    if columns is None:
        # The driver's text may quote values of the row and stays in the cause, for the log alone.
        return ConstraintError(_name_of(entity), (), "the change breaks a constraint of the database")
    mapper = _mapper_of(database, error, entity)
    if mapper is None:
        return DuplicateError(_name_of(entity), columns)
    by_column = {str(column.name): prop.key for prop in mapper.column_attrs for column in prop.columns}
    return DuplicateError(mapper.class_.__name__, [by_column.get(name, name) for name in columns])


def _mapper_of(database: Database, error: IntegrityError, entity: MappedEntity | None) -> Mapper[Any] | None:
    """Returns the mapper of the table that an error is of.

    That may be another table than the statement's, by a trigger or a cascade; and of a session's statement, or of
    one of the application's own, nobody has said which entity it is for.
    """
    table = database.table_of(error)
    own = None if entity is None else entity.mapper
    if table is None or (own is not None and _is_of(own, table)):
        return own
    found: dict[Any, Mapper[Any]] = {}
    for one in database.mappers():
        if _is_of(one, table):
            found[one.local_table] = one.base_mapper if one.local_table in found else one
    if not found:
        return own  # a partition of the table, the table behind a view, or a table without a class
    return next(iter(found.values())) if len(found) == 1 else None  # of two schemas, it may be either's


def _is_of(mapper: Mapper[Any], table: str) -> bool:
    return isinstance(mapper.local_table, sa.Table) and mapper.local_table.name == table
