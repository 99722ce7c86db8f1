"""Translation of the database's errors into diptych's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

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
    SchemaError,
)
from diptych.sql.database import Database, Failure
from diptych.sql.entity import MappedEntity
from diptych.sql.sqlite.types import Unstorable

_SILENT = "it took too long to answer"
"""What a time-out would say, which has no words of its own."""


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
        return DatabaseBusyError("other writers held the SQL database for longer than DATABASE_TIMEOUT_MS")
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


def _unlike(failure: Failure, error: DBAPIError, entity: MappedEntity) -> SchemaError:
    mend = (
        f"grant the role of DATABASE_URL what it needs on the table {entity.full_name}"
        if failure == "denied"
        else f"the table {entity.full_name} and the mapping of {entity.name} differ: a migration was run, or is to "
        "be run; start the version of the application that fits the table"
    )
    return SchemaError([f"{words_of(error)}: {mend}"])


def words_of(error: DBAPIError) -> str:
    """Returns the driver's words for an error."""
    return str(error.orig).rpartition(">: ")[2] or _SILENT


def is_denied(error: DBAPIError) -> bool:
    """Returns whether the role lacks a right: to a table, to its owner's statements, or to any schema."""
    return getattr(error.orig, "sqlstate", None) in ("42501", "3F000")


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
