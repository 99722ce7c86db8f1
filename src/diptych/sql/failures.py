"""Translation of the database's errors into diptych's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from diptych.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DiptychError,
    DuplicateError,
    Fault,
    InvalidValueError,
)
from diptych.sql.database import Database
from diptych.sql.entity import MappedEntity
from diptych.sql.sqlite.types import Unstorable


class TransactionConflict(DiptychError):
    """Raised when a concurrent transaction won: the unit of work is run again. Never reaches a user."""


@contextlib.contextmanager
def translated(database: Database, entity: MappedEntity | None = None) -> Iterator[None]:
    """Inside the block, errors of the database are raised as diptych's own, with the cause kept.

    ``entity`` is the mapped class of the statements, named in the errors.
    """
    try:
        yield
    except DBAPIError as error:
        known = _translate(database, error, entity)
        if known is None:
            raise
        raise known from error
    except StatementError as error:
        # Raised by the column's type, before the statement was sent.
        raise _misfit(entity, error.orig) from error
    except PoolTimeoutError as error:
        raise DatabaseBusyError(
            "every SQL connection was in use for longer than DATABASE_TIMEOUT_MS: "
            "raise DATABASE_POOL_SIZE, or shorten what holds them"
        ) from error
    except OSError as error:
        raise DatabaseUnavailableError("the SQL database can't be reached") from error


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
        return DatabaseBusyError("other writers held the SQL database for longer than DATABASE_TIMEOUT_MS")
    if failure == "misfit":
        return _misfit(entity)
    if failure == "refused":
        return DatabaseUnavailableError(
            "the SQL database refused the connection, or the file is none: check the user, the password and the name "
            "of the database in DATABASE_URL"
        )
    if failure == "lost":
        return DatabaseUnavailableError("the SQL database can't be reached, or broke the connection")
    return None


def _misfit(entity: MappedEntity | None, reason: BaseException | None = None) -> InvalidValueError:
    # Neither error tells the value at fault; the driver's text may quote the value and stays in the cause.
    words = str(reason) if isinstance(reason, Unstorable) else "does not fit the type of its column"
    return InvalidValueError(_name_of(entity), [Fault("a value", words)])


def _name_of(entity: MappedEntity | None) -> str:
    return entity.name if entity else "the database"


def _constraint(database: Database, error: IntegrityError, entity: MappedEntity | None) -> ConstraintError:
    model = _name_of(entity)
    columns = database.unique_columns_of(error)
    if columns is None:
        # The driver's text may quote values of the row and stays in the cause, for the log alone.
        return ConstraintError(model, (), "the change breaks a constraint of the database")
    by_column = {column.name: name for name, column in entity.columns.items()} if entity else {}
    return DuplicateError(model, [by_column.get(name, name) for name in columns])
