"""Relationships of mapped classes: by which columns rows are linked to each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty, registry
from sqlalchemy.sql import operators

from diptych.sql.mappings import resolve_mappings

_ASSOCIATION = "diptych_association"
"""Name, in the ``info`` of a table, of the class that was made for it."""


class Link(NamedTuple):
    """The attributes by which the elements of a relationship are linked to their row.

    The ``remote`` of an ``element`` equals the ``local`` of the row. Many to many, ``near`` of an ``association``
    equals the ``local``, and its ``far`` the ``remote``. Unless the relationship ``is_collection`` there is one
    element at most.
    """

    element: type
    local: str
    remote: str
    is_collection: bool
    association: type | None = None
    near: str = ""
    far: str = ""


def link_of(model: type, name: str) -> Link | str:
    """Returns the link of a relationship of this class, or the reason why there is none that can be followed."""
    mapper: object = sa.inspect(model, raiseerr=False)
    resolve_mappings()
    found = mapper.relationships.get(name) if isinstance(mapper, Mapper) else None
    if found is None:
        return f"{name!r} is no relationship of {model.__name__}, as Book.tags would be"
    if found.entity.is_aliased_class or not isinstance(found.mapper.local_table, sa.Table):
        return f"{name!r} leads to a query: what can be followed leads to a class that is mapped to a table"
    try:
        link = _linked(found)
    except sa.exc.SQLAlchemyError:
        link = None
    if link is None:
        return (
            f"{name!r} is not joined by one pair of equal columns alone: what can be followed is one foreign key "
            "of one column to either side. Add a relationship that is joined so, with viewonly=True if there is "
            "another"
        )
    return link


def _linked(found: RelationshipProperty[Any]) -> Link | None:
    own, other = found.parent, found.mapper
    pairs = [_equal_columns(join) for join in (found.primaryjoin, found.secondaryjoin) if join is not None]
    if None in pairs:
        return None
    if found.direction is not RelationshipDirection.MANYTOMANY:
        [(local, remote)] = found.local_remote_pairs
        return Link(other.class_, _name(own, local), _name(other, remote), bool(found.uselist))
    table = found.secondary
    if not isinstance(table, sa.Table) or len(pairs) != 2:
        return None
    (near, local), (far, remote) = (_first_of(table, pair) for pair in pairs)
    association = _association(found, table, near, far)
    through: Mapper[Any] = sa.inspect(association)
    return Link(
        other.class_,
        _name(own, local),
        _name(other, remote),
        bool(found.uselist),
        association,
        _name(through, near),
        _name(through, far),
    )


def _equal_columns(join: Any) -> tuple[sa.Column[Any], sa.Column[Any]] | None:
    """Returns the two columns that a join compares, None if it compares anything else."""
    if not isinstance(join, sa.BinaryExpression) or join.operator is not operators.eq:
        return None
    sides = (join.left, join.right)
    return sides if all(isinstance(side, sa.Column) for side in sides) else None  # type: ignore[return-value]


def _first_of(table: sa.Table, pair: Any) -> tuple[sa.Column[Any], sa.Column[Any]]:
    """Returns both columns, that of this table first."""
    one, other = pair
    return (one, other) if one.table.fullname == table.fullname else (other, one)


def _name(mapper: Mapper[Any], column: sa.ColumnElement[Any]) -> str:
    return str(mapper.get_property_by_column(column).key)


def _association(
    found: RelationshipProperty[Any], table: sa.Table, near: sa.Column[Any], far: sa.Column[Any]
) -> type:
    """Returns the class of a table that links many to many: the application's own, or one that is made."""
    for mapper in found.parent.registry.mappers:
        if mapper.local_table is table:
            return mapper.class_
    made: Any = table.info.get(_ASSOCIATION)
    if made is None or sa.inspect(made).local_table is not table:  # a copied table has a copy of ``info``
        made = type(str(table.name), (), {})
        # The table may have no primary key; what its rows link is all that is asked of them.
        key = [table.c[str(near.key)], table.c[str(far.key)]]
        registry().map_imperatively(made, table, primary_key=key)
        table.info[_ASSOCIATION] = made
    return made  # type: ignore[no-any-return]


def in_python(model: type, table: sa.Table) -> str:
    """Returns what comes before the name of a column in Python: the class, or for one that was made, the table."""
    return f"{table.name}.c" if table.info.get(_ASSOCIATION) is model else model.__name__
