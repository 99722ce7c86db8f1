"""The checks of nested fields; each fault is a sentence with its remedy."""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import msgspec

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
from diptych.read.fitting import can_fill, takes_null
from diptych.read.lists.ordering import SORTED_TYPES, sorted_as
from diptych.read.nested.tree import Step, followed, steps_of, struct_of
from diptych.sql.description import Column, Entity

Entities = Mapping[type, Entity]

_MOST_DEPTH = 20
_MOST_PLACES = 30
_OF_NUMBERS = ("total", "average")
_OF_COLUMNS = (*_OF_NUMBERS, "minimum", "maximum")


def check_nested_form(owner: type, nested: Any, where: str = "`nested`") -> Iterator[str]:
    """Yields the faults of nested fields of rows of ``owner`` that are none of the columns'."""
    if not isinstance(nested, Mapping):
        yield f"{where} must be a dict of the document's fields: {{'reviews': many(Book.reviews)}}"
        return
    for name, given in nested.items():
        shown = f"{where}: {name!r}"
        if isinstance(given, Computed):
            yield from (f"{shown} {problem}" for problem in _check_computed(owner, given))
        elif not isinstance(given, Nested):
            yield (
                f"{shown} must be made by one, many, count, total, average, minimum, maximum or computed; a column "
                "of the class needs no declaration"
            )
        else:
            problems = [*_check_relationship(owner, given)] or [*_check_arguments(given)]
            yield from (f"{shown} {problem}" for problem in problems)
            if not problems:
                yield from check_nested_form(_element(given), given.nested, f"{where} of {name!r}")


def check_sorted_field(name: str, nested: Mapping[str, Any], joined: Mapping[str, Any]) -> Iterator[str]:
    """Yields the fault of a list in the order of this field of the document."""
    given = nested.get(name)
    if name in joined:
        return
    if given is None:
        yield f"{name!r} is in neither `nested` nor `joined`: `field` sorts by those, and a column by Book.title"
    elif isinstance(given, Computed):
        yield f"{name!r} is computed by a function, which SQL does not know: sort by a column that commands fill"
    elif given.kind == "many" or (given.kind == "one" and given.column is None):
        yield f"{name!r} is no single value: sort by a number, or by one(…) of a column"


def _element(given: Nested) -> type:
    link = followed(given.relationship)
    if isinstance(link, str):
        raise ValueError(link)
    return link.element


def _check_computed(owner: type, given: Computed) -> Iterator[str]:
    if not callable(given.function):
        yield "is computed by what is no function: computed(label_of, Book.title)"
    if not given.columns:
        yield "is computed from no column: a field without a column is the same for all rows"
    for column in given.columns:
        if getattr(column, "class_", None) is not owner:
            yield f"is computed from {_shown(column)}, which is no mapped attribute of {owner.__name__}"


def _check_relationship(owner: type, given: Nested) -> Iterator[str]:
    link = followed(given.relationship)
    if isinstance(link, str):
        yield f"can't be followed: {link}"
    elif given.relationship.class_ is not owner:
        yield f"starts at {_shown(given.relationship)}, which is no relationship of {owner.__name__}"
    elif not link.is_collection and given.kind != "one":
        yield f"is of one {link.element.__name__} and no collection: declare it by one({_shown(given.relationship)})"
    elif link.is_collection and given.kind == "one" and not given.order:
        yield (
            f"is the first of several {link.element.__name__}: say in which order, "
            f"one({_shown(given.relationship)}, order={link.element.__name__}.….desc())"
        )
    elif given.depth is not None and link.element is not owner:
        yield f"has a depth, which is for a relationship of {owner.__name__} to itself"


def _check_arguments(given: Nested) -> Iterator[str]:
    element = _element(given)
    if given.kind in _OF_COLUMNS and given.column is None:
        yield f"needs a column of {element.__name__}"
    if given.column is not None and getattr(given.column, "class_", None) is not element:
        yield f"takes {_shown(given.column)}, which is no mapped attribute of {element.__name__}"
    for sorting in given.order:
        if sorting.model is not element:
            yield f"is in the order of {sorting.name!r}, which is no mapped attribute of {element.__name__}"
    if given.kind == "many" and given.limit is not None and not _is_whole(given.limit, 1, 1_000_000):
        yield "has a limit that is no whole number from 1 on"
    if given.kind == "average" and not _is_whole(given.places, 0, _MOST_PLACES):
        yield f"needs places=, the number of decimal places, from 0 to {_MOST_PLACES}"
    if given.depth is not None and not _is_whole(given.depth, 1, _MOST_DEPTH):
        yield f"has a depth that is no whole number from 1 to {_MOST_DEPTH}"
    if given.column is not None and (given.nested or given.depth is not None):
        yield "has the values of a column, and so neither nested fields nor a depth"


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def check_nested(
    document: type[msgspec.Struct],
    nested: Mapping[str, Nested | Computed],
    entity: Entity,
    entities: Entities,
    where: str = "`nested`",
) -> Iterator[str]:
    """Yields the faults of the columns and types of nested fields. Their form must be without faults."""
    hints = get_type_hints(document, include_extras=True)
    for name, given in nested.items():
        shown = f"{where}: {name!r}"
        if name not in hints:
            yield f"{shown} is not a field of {document.__name__}"
        elif name in entity.columns:
            yield f"{shown} is a column of {entity.name} too: give the document's field another name"
        elif isinstance(given, Computed):
            columns = (str(column.key) for column in given.columns)
            yield from (f"{shown}: {_unknown(key, entity)}" for key in columns if key not in entity.columns)
        elif given.depth != 0:
            problems = [
                f"{shown} {problem}" for problem in _check_field(given, hints[name], entity, entities)
            ]
            yield from problems
            if not problems:
                yield from _check_document(name, given, hints[name], entities, f"{where} of {name!r}")


def _check_document(name: str, given: Nested, hint: Any, entities: Entities, where: str) -> Iterator[str]:
    document, element = struct_of(hint), entities[_element(given)]
    if document is None or given.column is not None or given.kind not in ("one", "many"):
        return
    inner = dict(given.nested)
    if given.depth is not None:
        inner[name] = msgspec.structs.replace(given, depth=0)
    hints = get_type_hints(document, include_extras=True)
    for field in (field.name for field in msgspec.structs.fields(document) if field.name not in inner):
        if field not in element.columns:
            yield f"{where}: {document.__name__}: {_unknown(field, element)}"
        else:
            yield from (
                f"{where}: {problem}"
                for problem in _check_value(
                    element, element.columns[field], hints[field], f"the field {field!r}"
                )
            )
    if given.depth is not None and name not in hints:
        yield f"{where} has a depth: {document.__name__} must have the field {name!r} too, for the next row"
        return
    yield from check_nested(document, inner, element, entities, where)


def _check_field(given: Nested, hint: Any, entity: Entity, entities: Entities) -> Iterator[str]:
    link = followed(given.relationship)
    if isinstance(link, str):
        return
    steps = steps_of(link, entities)
    element = steps[-1].entity
    yield from _check_steps(entity, steps)
    if not link.is_collection and not given.order and not _is_one_row(steps):
        yield (
            f"is one {element.name} by the mapping, so {element.name}.{steps[0].remote} {UNIQUE}; or say in which "
            "order it is the first of several"
        )
    if given.where is not None:
        yield from check_condition(given.where, element)
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
        yield from _check_linking(before, local, must_be_logged=before is not entity or len(steps) > 1)
        yield from _check_linking(step.entity, remote, must_be_logged=True)
        if local.type is not remote.type:
            yield f"is linked by {before.name}.{local.name} and {step.entity.name}.{remote.name}, of different types"
        before = step.entity


def _check_linking(entity: Entity, column: Column, *, must_be_logged: bool) -> Iterator[str]:
    shown = f"is linked by {entity.name}.{column.name}, which"
    rules = {
        compared(column): column.bytewise,
        f"must be of one of the types {type_names(KEY_TYPES)}": column.type in KEY_TYPES and not column.texts,
        LOGGED: column.logged,
        "must be in the entries of the change log: make it a foreign key, or unique": (
            not must_be_logged or column.name in entity.in_entries
        ),
    }
    yield from (f"{shown} {rule}" for rule, holds in rules.items() if not holds)


def _check_sorted(element: Entity, name: str) -> Iterator[str]:
    column = element.columns.get(name)
    if column is None:
        yield _unknown(name, element)
    elif sorted_as(column) is None:
        yield f"is ordered by {name!r}, which must be of one of the types {type_names(SORTED_TYPES)}, or an enum"
    elif column.misordered:
        yield f"is ordered by {name!r}, which {sorted_differently(column)}"


def _check_column(given: Nested, element: Entity, hint: Any) -> Iterator[str]:
    column = element.columns.get(str(given.column.key))
    if column is None:
        yield _unknown(str(given.column.key), element)
    elif given.kind in _OF_NUMBERS:
        if column.type not in (int, decimal.Decimal):
            yield (
                f"adds up {named(given.column)}, which must have whole numbers or be Numeric (with Decimal values): "
                "the sum of other numbers depends on the order of the rows"
            )
        elif not _takes_number(given, column, hint):
            yield f"is a {_number_of(given, column)}, which the document's field does not take"
    else:
        if given.kind in ("minimum", "maximum"):
            yield from _check_sorted(element, column.name)
        item = _item_of(hint) if given.kind == "many" else hint
        shown = f"the column {named(given.column)}"
        yield from _check_value(element, column, item, shown, is_kept=given.kind == "many")


def _number_of(given: Nested, column: Column) -> str:
    return "whole number" if given.kind == "total" and column.type is int else "Decimal"


def _takes_number(given: Nested, column: Column, hint: Any) -> bool:
    sample: Any = 1 if given.kind == "total" and column.type is int else decimal.Decimal("1.5")
    try:
        msgspec.json.encode(msgspec.convert(sample, hint))
    except msgspec.ValidationError as error:
        return "got `" not in str(error)
    return True


def _item_of(hint: Any) -> Any:
    arguments = [each for each in getattr(hint, "__args__", ()) if each is not ...]
    return arguments[0] if len(arguments) == 1 else Any


def _check_hint(given: Nested, hint: Any) -> Iterator[str]:
    """Checks the type of the field, apart from what is in it."""
    is_struct = given.kind in ("one", "many") and given.column is None
    if given.kind == "many" and not _takes([], hint):
        yield "is a list, which the document's field does not take: declare it as list[…]"
    elif is_struct and struct_of(hint) is None:
        what = "list[ReviewDocument]" if given.kind == "many" else "PublisherDocument | None"
        yield f"has documents of its own: declare the field with their struct, such as {what}, or name a column"
    elif given.kind == "one" and is_struct and _takes([], hint):
        yield "is one row: the document's field must be a struct or None, and no list"
    elif given.kind in ("one", "average", "minimum", "maximum") and not takes_null(hint):
        yield "is null where there is no row, but the document's field may not be: write `… | None`"
    elif given.kind == "count" and not _takes(1, hint):
        yield "is a whole number, which the document's field does not take"


def _takes(sample: Any, hint: Any) -> bool:
    try:
        msgspec.convert(sample, hint)
    except msgspec.ValidationError as error:
        return "got `" not in str(error)
    return True


def _check_value(
    entity: Entity, column: Column, hint: Any, shown: str, *, is_kept: bool = True
) -> Iterator[str]:
    if not can_fill(column, hint):
        kind = getattr(column.type, "__name__", "such")
        yield f"{shown} has {kind} values of {entity.name}.{column.name}, which the document's field does not take"
    elif is_kept and column.nullable and not takes_null(hint):
        yield f"{shown} may be null, but the document's field may not: write `… | None`"


def _unknown(name: str, entity: Entity) -> str:
    return f"{name!r} is not a mapped column of {entity.name}; its columns are: {', '.join(entity.columns)}"


def _shown(given: Any) -> str:
    is_attribute = hasattr(given, "key") and hasattr(given, "class_")
    return named(given) if is_attribute else repr(given)
