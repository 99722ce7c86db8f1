"""Defaults of columns made in this process: the constants and the functions of a mapping.

A function that takes SQLAlchemy's context of an execution is left to SQLAlchemy, and with it all defaults of its
table: such a function may look at the values made before it. A default that is an expression of SQL is part of the
statement.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa

from diptych.sql.entity import MappedEntity

Kind: TypeAlias = Literal["default", "onupdate"]
"""Kind of a default: for new rows, or for each change of a row."""


class _Defaults(NamedTuple):
    constants: Mapping[sa.Column[Any], Any]
    functions: Mapping[sa.Column[Any], Callable[[Any], Any]]


def with_defaults(
    entity: MappedEntity, kind: Kind, values: Mapping[sa.Column[Any], Any]
) -> Mapping[sa.Column[Any], Any]:
    """Returns the values, completed by the defaults of the other columns: each function is called once."""
    constants, functions = _defaults_of(entity, kind)
    completed = {**constants, **values} if constants else dict(values)
    for column, function in functions.items():
        if column not in completed:
            completed[column] = function(None)
    return completed


@functools.lru_cache(maxsize=1024)
def has_sendable_defaults(entity: MappedEntity) -> bool:
    """Returns whether ``with_defaults`` makes all defaults not made by the database."""
    columns = entity.table.columns
    defaults = [default for column in columns for default in (column.default, column.onupdate)]
    return all(default is None or _is_sendable(default) for default in defaults)


@functools.lru_cache(maxsize=1024)
def _defaults_of(entity: MappedEntity, kind: Kind) -> _Defaults:
    if not has_sendable_defaults(entity):
        return _Defaults({}, {})
    defaults = [(column, getattr(column, kind)) for column in entity.table.columns]
    return _Defaults(
        {column: default.arg for column, default in defaults if default is not None and default.is_scalar},
        {column: default.arg for column, default in defaults if default is not None and default.is_callable},
    )


def _is_sendable(default: Any) -> bool:
    if default.is_callable:
        return getattr(default.arg, "__code__", None) in _WITHOUT_CONTEXT
    return bool(default.is_scalar or default.is_clause_element or default.is_sequence)


_WITHOUT_CONTEXT = {
    default.arg.__code__  # type: ignore[attr-defined]
    for default in (sa.ColumnDefault(lambda: None), sa.ColumnDefault(time.time))
}
"""Code of the functions by which SQLAlchemy calls, without the context, a function that takes none.

SQLAlchemy has one for functions with a readable signature, and one for functions of C.
"""
