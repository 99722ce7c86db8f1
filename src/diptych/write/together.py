"""A change of a row and its row of the change log in one statement, on PostgreSQL.

The change is a ``WITH`` that the log's row is made from: a command goes to the server and back once less for each.
The image and the key are made there, of the row as it is after the change; ``log.append`` makes the same of the row
that has come back. This can be done where ``has_direct_columns``.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.ports import Change, CommandContext
from diptych.write import log
from diptych.write.direct import DirectStatement
from diptych.write.entities import MappedEntity
from diptych.write.failures import TransactionConflict
from diptych.write.log import LOG, TRANSACTION
from diptych.write.statements import (
    ColumnValues,
    RowValues,
    condition_of,
    equal,
    has_direct_columns,
    identity_of,
    named,
)

_NOT_SUPPORTED = "0A000"

Columns = tuple[sa.Column[Any], ...]


def is_possible(connection: AsyncConnection, entity: MappedEntity) -> bool:
    """Whether rows of this table can be changed like this."""
    return connection.dialect.name == "postgresql" and _is_possible(entity) and entity not in _refused


async def insert(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    """Adds a row. Raises what its engine does."""
    given = _constants(entity, "default", tuple(values)) | dict(values)
    arguments = log.heading(entity, "created", None, context) | _stored(given)
    *row, position, number = await _fetch_one(entity, _insertion(entity, tuple(given)), connection, arguments)
    return Change(entity.describe(connection.dialect), None, entity.row(row), position, number)


async def update(
    connection: AsyncConnection,
    entity: MappedEntity,
    before: RowValues,
    values: ColumnValues,
    context: CommandContext,
) -> Change:
    """Changes this row, which is locked. Raises what its engine does."""
    given = _constants(entity, "onupdate", tuple(values)) | dict(values)
    arguments = log.heading(entity, "updated", before, context) | _stored(given)
    arguments |= named(identity_of(entity, before))
    *row, position, number = await _fetch_one(entity, _update(entity, tuple(given)), connection, arguments)
    return Change(entity.describe(connection.dialect), before, entity.row(row), position, number)


async def delete(
    connection: AsyncConnection, entity: MappedEntity, before: RowValues, context: CommandContext
) -> Change:
    """Deletes this row, which is locked. Raises what its engine does."""
    arguments = log.heading(entity, "deleted", before, context) | log.picture(entity, before)
    arguments |= named(identity_of(entity, before))
    position, number = await _fetch_one(entity, _deletion(entity), connection, arguments)
    return Change(entity.describe(connection.dialect), before, None, position, number)


_refused: weakref.WeakSet[MappedEntity] = weakref.WeakSet()
"""Those whose tables have rules, which PostgreSQL does not follow in a ``WITH``."""


async def _fetch_one(
    entity: MappedEntity,
    statement: DirectStatement,
    connection: AsyncConnection,
    arguments: Mapping[str, Any],
) -> Sequence[Any]:
    try:
        rows = await statement.fetch_within(connection, arguments)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _NOT_SUPPORTED:
            _refused.add(entity)
            raise TransactionConflict("to be run again, with a statement for each") from error
        raise
    if not rows:  # a trigger has kept the row as it was
        raise NoResultFound("No row was found when one was required")
    return rows[0]


@functools.lru_cache(maxsize=1024)
def _is_possible(entity: MappedEntity) -> bool:
    defaults = [given for column in entity.table.columns for given in (column.default, column.onupdate)]
    # A function of Python is SQLAlchemy's to call, with its context.
    is_computed_here = any(default is not None and default.is_callable for default in defaults)
    return has_direct_columns(entity) and not is_computed_here


@functools.lru_cache(maxsize=1024)
def _constants(
    entity: MappedEntity, kind: Literal["default", "onupdate"], given: Columns
) -> dict[sa.Column[Any], Any]:
    """The defaults that are values of Python, of the columns that are not ``given``. The others are the server's."""
    defaults = {column: getattr(column, kind) for column in entity.table.columns if column not in given}
    return {column: one.arg for column, one in defaults.items() if one is not None and one.is_scalar}


@functools.lru_cache(maxsize=1024)
def _insertion(entity: MappedEntity, given: Columns) -> DirectStatement:
    return _with_picture(entity, sa.insert(entity.table).values(_parameters(given)))


@functools.lru_cache(maxsize=1024)
def _update(entity: MappedEntity, given: Columns) -> DirectStatement:
    return _with_picture(entity, sa.update(entity.table).where(*_is_it(entity)).values(_parameters(given)))


@functools.lru_cache(maxsize=1024)
def _deletion(entity: MappedEntity) -> DirectStatement:
    key = entity.columns[entity.primary_key[0]]
    deleted = sa.delete(entity.table).where(*_is_it(entity)).returning(key).cte("deleted")
    return DirectStatement(sa.select(*_logged(deleted, {}).c))


def _with_picture(entity: MappedEntity, change: Any) -> DirectStatement:
    """The change, and the log's row with image and key of the row that it returns."""
    changed = change.returning(*(column.label(name) for name, column in entity.columns.items())).cte(
        "changed"
    )
    known = sa.select(*(changed.c[name] for name in entity.identifying)).cte("known")
    logged = _logged(changed.join(known, sa.true()), {"image": _json(changed), "key": _json(known)})
    return DirectStatement(sa.select(*changed.c, *logged.c).select_from(changed.join(logged, sa.true())))


def _logged(changed: sa.FromClause, picture: Mapping[str, sa.ColumnElement[str]]) -> sa.CTE:
    """The log's row for the row of ``changed``; what is not of its ``picture`` comes as a parameter of its name."""
    values = {name: picture.get(name, sa.bindparam(name, type_=LOG.c[name].type)) for name in log.GIVEN}
    # ★ The position is drawn for a row that has come out of the change, so while that is locked: the positions of one
    # row are in the order of its commits.
    rows = sa.select(*values.values()).select_from(changed)
    appended = sa.insert(LOG).from_select(list(values), rows, include_defaults=False)
    return appended.returning(LOG.c.position, TRANSACTION.label("number")).cte("logged")


def _json(row: sa.CTE) -> sa.ColumnElement[str]:
    return sa.cast(sa.func.row_to_json(row.table_valued()), sa.Text)


def _is_it(entity: MappedEntity) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(equal(condition_of({entity.columns[name]: name for name in entity.primary_key})))


def _parameters(given: Columns) -> dict[sa.Column[Any], sa.BindParameter[Any]]:
    return {column: sa.bindparam(_name(n), type_=column.type) for n, column in enumerate(given)}


def _stored(values: ColumnValues) -> dict[str, Any]:
    return {_name(number): value for number, value in enumerate(values.values())}


def _name(number: int) -> str:
    return f"given_{number}"
