"""Uniqueness in a table: its primary key, and the columns under unique constraints and indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

_DIALECTS = ("postgresql", "sqlite")


def primary_key_of(mapper: Mapper[Any], table: sa.Table) -> Sequence[sa.Column[Any]]:
    """Returns the primary key of the mapping.

    That is the table's, in its order, unless the mapping names a different key: ``__mapper_args__ = {"primary_key":
    …}``.
    """
    own = tuple(table.primary_key.columns)
    return own if set(own) == set(mapper.primary_key) else mapper.primary_key  # type: ignore[return-value]


def unique_alone(table: sa.Table, columns: Mapping[str, sa.Column[Any]]) -> Iterable[str]:
    """Yields attributes whose column alone can't hold a value twice.

    Deferrable constraints and partial indexes don't count.
    """
    singles = {frozenset(table.primary_key.columns)}
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint) and not constraint.deferrable:
            singles.add(frozenset(constraint.columns))
    for index in table.indexes:
        if index.unique and not any(index.dialect_kwargs.get(f"{d}_where") is not None for d in _DIALECTS):
            singles.add(frozenset(c for c in index.columns))
    return (name for name, column in columns.items() if frozenset([column]) in singles)


def in_unique(table: sa.Table, names: Mapping[sa.Column[Any], str]) -> Iterable[str]:
    """Yields attributes whose column takes part in any unique constraint or index."""
    unique = [c for c in table.constraints if isinstance(c, sa.UniqueConstraint)]
    taken = {column for constraint in unique for column in constraint.columns}
    taken |= {column for index in table.indexes if index.unique for column in index.columns}
    return (names[column] for column in table.columns if column in taken and column in names)
