"""The checks of a read model's key and of its second addresses; each fault is a sentence with its remedy."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from diptych.errors import WiringError
from diptych.read.declaration import Declaration
from diptych.sql.description import Column, Entity

KEY_TYPES = (str, int, datetime.date, uuid.UUID)
UNIQUE = "must be unique by itself, in the database too (unique=True or the primary key, not deferrable)"
LOGGED = "must be of a type that the change log gives back as it was"

_BYTEWISE = "make it text of a deterministic collation (see code_point_text), a number, a date or a UUID"
_UNIQUE_TOGETHER = (
    "must be unique together: by a primary key, a unique constraint or a unique index of just these columns, not "
    "deferrable"
)


def key_attributes(model: type[Declaration]) -> tuple[Any, ...]:
    """Returns the mapped attributes of the key, in their order. Raises ``WiringError`` for a malformed key."""
    key = getattr(model, "key", None)
    attributes = key if isinstance(key, tuple) else (key,)
    if not attributes or not all(map(is_attribute, attributes)):
        raise WiringError(
            [
                f"{model.__name__}: `key` must be a mapped attribute, such as Book.title, or several: "
                "(OrderLine.order_id, OrderLine.number)"
            ]
        )
    return attributes


def is_attribute(given: Any) -> bool:
    """Returns whether this is a mapped attribute."""
    return hasattr(given, "key") and hasattr(given, "class_")


def check_form(model: type[Declaration], entity: Entity) -> Iterator[str]:
    """Yields the faults of ``key`` and ``also`` that are none of the columns'."""
    attributes = key_attributes(model)
    names = [attribute.key for attribute in attributes]
    if isinstance(model.key, tuple) and len(names) == 1:
        yield f"`key` is a tuple of one column: write key = {named(attributes[0])}"
    if len(set(names)) < len(names):
        yield f"`key` names a column twice: {', '.join(names)}"
    if not isinstance(model.also, tuple) or not all(map(is_attribute, model.also)):
        yield "`also` must be a tuple of mapped attributes: (Book.isbn,)"
        return
    also = [attribute.key for attribute in model.also]
    if len(set(also)) < len(also):
        yield f"`also` names a column twice: {', '.join(also)}"
    if len(names) == 1 and names[0] in also:
        yield f"`also` names {names[0]!r}, which is the key: leave it out"
    for attribute in (*attributes, *model.also):
        if attribute.class_ is not entity.model:
            yield f"{named(attribute)} is no column of {entity.name}: `key` and `also` are of one class"


def check_key(model: type[Declaration], entity: Entity) -> Iterator[str]:
    """Yields the faults of the key's columns."""
    # A key that two rows may share, or that is equal for different bytes, would let one document's changes
    # overtake another's: positions are in commit order for one row only.
    columns = [entity.columns[attribute.key] for attribute in key_attributes(model)]
    for column in columns:
        if column.nullable:
            yield f"the key {column.name!r} must be NOT NULL"
        if len(columns) == 1 and not column.unique:
            yield f"the key {column.name!r} {UNIQUE}{_mend(entity, [column])}"
        yield from (f"the key {column.name!r} {rule}" for rule in _broken_rules(column))
    names = [column.name for column in columns]
    # What holds some of the columns unique holds all of them so.
    if len(names) > 1 and not any(unique <= set(names) for unique in entity.unique):
        yield f"the columns of the key, {', '.join(names)}, {_UNIQUE_TOGETHER}{_mend(entity, columns)}"
    elif left_out := [name for name in names if len(names) > 1 and name not in entity.in_entries]:
        yield (
            f"the columns of the key, {', '.join(names)}, must all be in the entries of the change log, and "
            f"{', '.join(left_out)} is not: let the mapping have a UniqueConstraint of just these columns"
        )


def _mend(entity: Entity, columns: Sequence[Column]) -> str:
    names = [column.in_table for column in columns]
    if not set(entity.in_entries) >= {column.name for column in columns}:
        return ""  # the mapping has nothing of that kind
    index = "_".join((entity.table.replace(".", "_"), *names))
    return (
        f". The table {entity.table} has nothing like that (what is deferrable, partial or of an expression does not "
        f"count): let a migration do `CREATE UNIQUE INDEX {index} ON {entity.table} ({', '.join(names)})`"
    )


def check_also(model: type[Declaration], entity: Entity) -> Iterator[str]:
    """Yields the faults of the columns of ``also``. They may be null: such a row has no second address."""
    for column in (entity.columns[attribute.key] for attribute in model.also):
        not_unique = [] if column.unique else [UNIQUE + _mend(entity, [column])]
        yield from (f"`also`: {column.name!r} {rule}" for rule in [*not_unique, *_broken_rules(column)])


def _broken_rules(column: Column) -> Iterator[str]:
    rules = {
        compared(column): column.bytewise,
        f"must be of one of the types {type_names(KEY_TYPES)}": column.type in KEY_TYPES,
        LOGGED: column.logged,
    }
    return (rule for rule, holds in rules.items() if not holds)


def compared(column: Column) -> str:
    """Returns the rule for columns used to find rows.

    Redis finds a key by its bytes: a column for which SQL finds further rows would have the two routes disagree.
    """
    found = f", and is {column.compared}" if column.compared else ""
    return f"must be compared byte for byte{found}: {_BYTEWISE}"


def sorted_differently(column: Column) -> str:
    """Returns the rule for columns of lists, which both routes have to order alike."""
    return f"is {column.misordered}, which the database orders by rules of its own: {_BYTEWISE}"


def named(attribute: Any) -> str:
    """Returns a mapped attribute as it is written in code."""
    return f"{attribute.class_.__name__}.{attribute.key}"


def type_names(types: Sequence[type]) -> str:
    """Returns the names of types for an error."""
    return ", ".join(kind.__name__ for kind in types)
