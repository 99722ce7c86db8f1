"""The checks of the columns and types of nested fields; each fault is a sentence with its remedy."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import msgspec.inspect

from diptych.read.address_checks import (
    KEY_TYPES,
    LOGGED,
    UNIQUE,
    compared,
    named,
    sorted_differently,
    type_names,
)
from diptych.read.condition_checks import check_condition
from diptych.read.declaration.nested import Computed, Nested
from diptych.read.fitting import can_fill, item_of, takes, takes_null
from diptych.read.lists.ordering import SORTED_TYPES, sorted_as
from diptych.read.nested.form import element_of
from diptych.read.nested.tree import Step, followed, steps_of, struct_of
from diptych.sql.columns import is_floating
from diptych.sql.description import Column, Entity

Entities = Mapping[type, Entity]

_OF_NUMBERS = ("total", "average")
_ONE_ROW = "is one row: the document's field must be a struct or None, and no list"


def check_nested(
    document: type[msgspec.Struct],
    nested: Mapping[str, Nested | Computed],
    entity: Entity,
    entities: Entities,
    where: str = "`nested`",
) -> Iterator[str]:
    """Yields the faults of the columns and types of nested fields. Their form must be without faults."""
    hints = _hints_of(document)
    for name, given in nested.items():
        shown = f"{where}: {name!r}"
        if name not in hints:
            yield f"{shown} is not a field of {document.__name__}"
        elif name in entity.columns:
            yield f"{shown} is a column of {entity.name} too: give the document's field another name"
        elif isinstance(given, Computed):
            keys = (str(column.key) for column in given.columns)
            yield from (
                f"{shown} is computed from {_unknown(key, entity)}"
                for key in keys
                if key not in entity.columns
            )
        elif given.depth == 0:
            yield from (f"{shown} {problem}" for problem in _check_end(given, hints[name]))
        else:
            problems = [
                f"{shown} {problem}" for problem in _check_field(given, hints[name], entity, entities)
            ]
            yield from problems
            if not problems:
                yield from _check_document(name, given, hints[name], entities, f"{where} of {name!r}")


def _check_end(given: Nested, hint: Any) -> Iterator[str]:
    """Checks the type of the field below the declared depth."""
    if given.kind == "one" and not takes_null(hint):
        yield "is null below its depth, but the document's field may not be: write `… | None`"
    elif given.kind == "many" and not takes([], hint):
        yield "is an empty list below its depth, which the document's field does not take"
    elif given.kind == "one" and takes([], hint):
        yield _ONE_ROW


def _check_document(name: str, given: Nested, hint: Any, entities: Entities, where: str) -> Iterator[str]:
    document, element = struct_of(hint), entities[element_of(given)]
    if document is None or given.column is not None or given.kind not in ("one", "many"):
        return
    if getattr(msgspec.inspect.type_info(document), "array_like", False):
        yield f"{where}: {document.__name__} must not be array_like: its fields go out under their names"
        return
    hints = _hints_of(document)
    inner = dict(given.nested)
    if given.depth is not None:
        if name not in hints:
            yield f"{where} has a depth: {document.__name__} must have the field {name!r} too, for the next row"
            return
        # The same struct once more has the same faults.
        is_last = struct_of(hints[name]) == document
        inner[name] = msgspec.structs.replace(given, depth=0 if is_last else given.depth - 1)
    for field in (field for field in hints if field not in inner):
        shown = f"{where}: the field {field!r} of {document.__name__}"
        if field not in element.columns:
            columns = ", ".join(element.columns)
            yield f"{shown} is neither in `nested=` nor a column of {element.name}; its columns are: {columns}"
        else:
            problems = _check_value(element.columns[field], hints[field])
            yield from (
                f"{shown} has the column {element.name}.{field}, which {problem}" for problem in problems
            )
    yield from check_nested(document, inner, element, entities, where)


def _check_field(given: Nested, hint: Any, entity: Entity, entities: Entities) -> Iterator[str]:
    link = followed(given.relationship)
    if isinstance(link, str):
        return
    steps = steps_of(link, entities)
    element = steps[-1].entity
    yield from _check_steps(entity, steps)
    if not link.is_collection and not given.order and not _is_one_row(steps):
        mend = f"{element.name}.{steps[0].remote} {UNIQUE}; or " if len(steps) == 1 else ""
        yield (
            f"is one {element.name} by the mapping, of which the database may have several: {mend}say in which "
            "order it is the first, order=…"
        )
    if given.where is not None:
        yield from (f"has a condition: {problem}" for problem in check_condition(given.where, element))
    for sorting in given.order:
        yield from _check_sorted(element, sorting.name)
    if given.column is not None:
        yield from _check_column(given, element, hint)
    yield from _check_hint(given, hint)


def _is_one_row(steps: tuple[Step, ...]) -> bool:
    return len(steps) == 1 and steps[0].entity.columns[steps[0].remote].unique


def _check_steps(entity: Entity, steps: tuple[Step, ...]) -> Iterator[str]:
    before = entity
    for step in steps:
        local, remote = before.columns[step.local], step.entity.columns[step.remote]
        problems = [
            *_check_linking(before, local, must_be_logged=before is not entity or len(steps) > 1),
            *_check_linking(step.entity, remote, must_be_logged=True),
        ]
        yield from problems
        if not problems and local.type is not remote.type:
            yield f"is linked by {before.name}.{local.name} and {step.entity.name}.{remote.name}, of different types"
        before = step.entity


def _check_linking(entity: Entity, column: Column, *, must_be_logged: bool) -> Iterator[str]:
    """Yields the first reason why rows can't be linked by this column: the others would follow from it."""
    rules = {
        compared(column): column.bytewise,
        f"must be of one of the types {type_names(KEY_TYPES)}": column.type in KEY_TYPES and not column.texts,
        LOGGED: column.logged,
        "must be in the entries of the change log: make it a foreign key, or unique": (
            not must_be_logged or column.name in entity.in_entries
        ),
    }
    broken = (rule for rule, holds in rules.items() if not holds)
    yield from (
        f"is linked by {entity.name}.{column.name}, which {rule}" for rule in itertools.islice(broken, 1)
    )


def _check_sorted(element: Entity, name: str) -> Iterator[str]:
    column = element.columns.get(name)
    if column is None:
        yield f"is ordered by {_unknown(name, element)}"
    else:
        yield from (f"is ordered by {name!r}, which {problem}" for problem in check_order_of(column))


def check_order_of(column: Column) -> Iterator[str]:
    """Yields the reason why rows can't be in the order of this column."""
    if sorted_as(column) is None:
        yield f"must be of one of the types {type_names(SORTED_TYPES)}, or an enum"
    elif column.misordered:
        yield sorted_differently(column)


def _check_column(given: Nested, element: Entity, hint: Any) -> Iterator[str]:
    column = element.columns.get(str(given.column.key))
    if column is None:
        yield f"takes {_unknown(str(given.column.key), element)}"
    elif given.kind in _OF_NUMBERS:
        if column.type not in (int, decimal.Decimal) or is_floating(given.column):
            yield (
                f"adds up {named(given.column)}, which must have whole numbers or be Numeric (with Decimal values): "
                "the sum of other numbers depends on the order of the rows"
            )
        elif not takes(_number_of(given, column), hint):
            kind = type(_number_of(given, column))
            yield f"is a {'whole number' if kind is int else 'Decimal'}, which the document's field does not take"
    else:
        if given.kind in ("minimum", "maximum"):
            yield from _check_sorted(element, column.name)
        item = item_of(hint) if given.kind == "many" else hint
        problems = _check_value(column, item, is_kept=given.kind == "many")
        yield from (f"takes {named(given.column)}, which {problem}" for problem in problems)


def _number_of(given: Nested, column: Column) -> int | decimal.Decimal:
    """Returns a sample."""
    return 1 if given.kind == "total" and column.type is int else decimal.Decimal("1.5")


def _check_hint(given: Nested, hint: Any) -> Iterator[str]:
    """Checks the type of the field, apart from what is in it."""
    is_struct = given.kind in ("one", "many") and given.column is None
    if given.kind == "many" and not takes([], hint):
        yield "is a list, which the document's field does not take: declare it as list[…]"
    elif is_struct and struct_of(hint) is None:
        what = "list[ReviewDocument]" if given.kind == "many" else "PublisherDocument | None"
        yield f"has documents of its own: declare the field with their struct, such as {what}, or name a column"
    elif given.kind == "one" and is_struct and takes([], hint):
        yield _ONE_ROW
    elif given.kind in ("one", "average", "minimum", "maximum") and not takes_null(hint):
        yield "is null where there is no row, but the document's field may not be: write `… | None`"
    elif given.kind == "count" and not takes(1, hint):
        yield "is a whole number, which the document's field does not take"


def _check_value(column: Column, hint: Any, *, is_kept: bool = True) -> Iterator[str]:
    if not can_fill(column, hint):
        kind = getattr(column.type, "__name__", "such")
        yield f"has {kind} values, and the document's field takes none of them"
    elif is_kept and column.nullable and not takes_null(hint):
        yield "may be null, but the document's field may not: write `… | None`"


def _hints_of(document: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(document)}


def _unknown(name: str, entity: Entity) -> str:
    return f"{name!r}, which is not a mapped column of {entity.name}; its columns are: {', '.join(entity.columns)}"
