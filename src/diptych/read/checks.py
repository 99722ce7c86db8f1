"""The checks of a read model's declaration; each fault is a sentence with its remedy."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_origin, get_type_hints

import msgspec

from diptych.errors import WiringError
from diptych.read.address_checks import (
    KEY_TYPES,
    LOGGED,
    UNIQUE,
    check_also,
    check_form,
    check_key,
    compared,
    key_attributes,
    named,
    type_names,
)
from diptych.read.condition_checks import check_conditions
from diptych.read.declaration import Declaration, DocumentField, Join, ListOrder
from diptych.read.fitting import can_fill, has_set, takes_null
from diptych.read.lists.elements import check_each, check_elements, element_models
from diptych.read.lists.joined import fields_with, in_fields
from diptych.read.nested.checks import check_nested, check_order_of
from diptych.read.nested.form import check_nested_form, check_sorted_field, sorted_source
from diptych.read.nested.tree import nested_models
from diptych.sql.description import Column, Entity, Sorting

_NAME = re.compile(r"[\w,-]{1,200}", re.ASCII)

Entities = Mapping[type, Entity]


def joined_models(model: type[Declaration]) -> list[type]:
    """Returns the mapped classes joined by a read model or its lists, each once.

    Raises ``WiringError`` for malformed joins.
    """
    own = key_attributes(model)[0].class_
    problems = [*_check_joined_form(model), *check_nested_form(own, model.nested)] or [*check_each(model)]
    if problems:
        raise _wiring_error(model, problems)
    joined = (join.remote.class_ for join in model.joined.values())
    return list(dict.fromkeys((*joined, *element_models(model), *nested_models(model.nested))))


def check_declaration(model: type[Declaration], entity: Entity, joined: Entities) -> None:
    """Raises ``WiringError`` with every fault of the declaration."""
    problems = [*_check_form(model, entity)] or [*check_each(model)] or [*_check_names(model, entity, joined)]
    if not problems:
        problems = [
            *check_key(model, entity),
            *check_also(model, entity),
            *_check_lists(model, entity, joined),
            *check_elements(model, entity, joined),
            *check_conditions(model, entity),
            *_check_fields(model, entity, joined),
            *_check_joins(model, entity, joined),
            *check_nested(model.document, model.nested, entity, joined),
        ]
    if problems:
        raise _wiring_error(model, problems)


def _wiring_error(model: type, problems: Sequence[str]) -> WiringError:
    return WiringError([f"{model.__name__}: {problem}" for problem in problems])


def _check_form(model: type[Declaration], entity: Entity) -> Iterator[str]:
    missing = [name for name in ("key", "document") if not hasattr(model, name)]
    for name in missing:
        yield f"declares no `{name}`: see the reference of ReadModel"
    if type(model.revision) is not int:
        yield "`revision` must be a whole number"
    if "key" not in missing:
        yield from check_form(model, entity)
    yield from _check_joined_form(model)
    yield from check_nested_form(entity.model, model.nested)
    if not isinstance(model.lists, Sequence) or not all(isinstance(one, ListOrder) for one in model.lists):
        yield "`lists` must be a tuple of orders: (by(Book.author), by(Book.title))"
    if not missing:
        document: Any = model.document
        if not (isinstance(document, type) and issubclass(document, msgspec.Struct)):
            yield "`document` must be a msgspec.Struct: its fields are what goes out"
        elif document.__struct_config__.array_like:
            yield "`document` must not be array_like: its fields go out under their names"
        else:
            yield from _check_types(document)


def _check_types(document: type[msgspec.Struct]) -> Iterator[str]:
    """Checks for field types without support in msgspec."""
    try:
        msgspec.json.Decoder(document)
    except Exception as error:
        yield f"`document`: msgspec has no place for the types of {document.__name__}: {error}"
        return
    if has_set(document):
        yield (
            f"`document`: {document.__name__} has a set, whose values are in another order in each process: "
            "declare it as list[…]"
        )


def _check_joined_form(model: type[Declaration]) -> Iterator[str]:
    if not isinstance(model.joined, Mapping):
        yield "`joined` must be a dict of the document's fields: {'author_name': join(…)}"
        return
    for field, join in model.joined.items():
        if not isinstance(join, Join):
            yield f"`joined`: {field!r} must be made by join(value, local, remote)"
            continue
        parts = {"value": join.value, "local": join.local, "remote": join.remote}
        faulty = [part for part, a in parts.items() if not (hasattr(a, "key") and hasattr(a, "class_"))]
        for part in faulty:
            yield f"`joined`: the {part} of {field!r} must be a mapped attribute, such as Author.name"
        if not faulty and join.value.class_ is not join.remote.class_:
            yield (
                f"`joined`: {field!r} takes {named(join.value)} from the row found by {named(join.remote)}: "
                "both must be of one class"
            )


def _check_names(model: type[Declaration], entity: Entity, joined: Entities) -> Iterator[str]:
    elsewhere = {*model.joined, *model.nested}
    by_field = {s.name for order in model.lists for s in order.sorted_by if s.model is DocumentField}
    fields = [field.name for field in msgspec.structs.fields(model.document) if field.name not in elsewhere]
    orders = [in_fields(order, entity, model.joined) for order in model.lists]
    listed = [
        sorting.name
        for order in orders
        for sorting in order.sorted_by
        if sorting.model is entity.model
        and sorting.name not in elsewhere | by_field
        and sorting.element is None
    ]
    addresses = (attribute.key for attribute in (*key_attributes(model), *model.also))
    for name in dict.fromkeys((*addresses, *fields, *listed)):
        if name not in entity.columns:
            yield _unknown(name, entity)
    names = [order.name for order in model.lists]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"`lists`: {names.count(name)} lists are called {name!r}: give them other names, by(…, name='newest')"
    for order in model.lists:
        yield from _check_order(order, entity, model)
    for name in sorted(model.joined.keys() & model.nested.keys()):
        yield f"{name!r} is in `joined` and in `nested`: leave it in one of them"
    for field, join in model.joined.items():
        yield from _check_joined_names(model, field, join, entity, joined)


def _check_order(order: ListOrder, entity: Entity, model: type[Declaration]) -> Iterator[str]:
    if not order.columns:
        yield f"{order} names no column: name at least one, such as by({entity.name}.{entity.primary_key[0]})"
    elif all(sorting.model for sorting in order.sorted_by) and not _is_name(order.name):
        yield f"{order}: the name must be of letters, digits and the characters , _ - alone, at most 200 of them"
    for sorting in (sorting for sorting in order.sorted_by if sorting.element is None):
        name, owner = sorting.name, sorting.model
        if owner is None:
            yield (
                f"{order}: {name!r} is no mapped attribute. Lists are in the order of columns, such as by("
                f"{entity.name}.{entity.primary_key[0]}.desc()); for another order (without case, say) add a column "
                "that sorts so, and have the database or commands fill it"
            )
        elif owner is DocumentField:
            yield from (
                f"{order}: {problem}" for problem in check_sorted_field(name, model.nested, model.joined)
            )
        elif owner is not entity.model:
            yield from _check_joined_order(order, sorting, entity, model.joined)


def _check_joined_order(
    order: ListOrder, sorting: Sorting, entity: Entity, joined: Mapping[str, Join]
) -> Iterator[str]:
    fields, other = fields_with(sorting, joined), getattr(sorting.model, "__name__", "another class")
    column = f"{other}.{sorting.name}"
    if not fields:
        yield (
            f"{order}: {sorting.name!r} is of {other}: lists are in the order of {entity.name}'s own columns and of "
            f"those that `joined` has: declare a field with join({column}, …)"
        )
    elif len(fields) > 1:
        yield (
            f"{order}: {column} is in several joined fields ({', '.join(fields)}), of different rows: sort by a "
            f"column of {entity.name} that has the value of one of them"
        )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _check_joined_names(
    model: type[Declaration], field: str, join: Join, entity: Entity, joined: Entities
) -> Iterator[str]:
    if field not in {known.name for known in msgspec.structs.fields(model.document)}:
        yield f"`joined`: {field!r} is not a field of {model.document.__name__}"
    if field in entity.columns:
        yield f"`joined`: {field!r} is a column of {entity.name} too: give the document's field another name"
    if join.local.class_ is not entity.model:
        yield f"`joined`: the local column of {field!r} must be one of {entity.name}, not {named(join.local)}"
    elif join.local.key not in entity.columns:
        yield f"`joined`: {_unknown(join.local.key, entity)}"
    other = joined.get(join.remote.class_)
    if other is None:
        yield f"`joined`: {join.remote.class_.__name__}, which {field!r} is of, is unknown to the application"
    else:
        names = dict.fromkeys((join.value.key, join.remote.key))
        yield from (f"`joined`: {_unknown(name, other)}" for name in names if name not in other.columns)


def _check_lists(model: type[Declaration], entity: Entity, joined: Entities) -> Iterator[str]:
    for order in model.lists:
        for name, owner in ((s.name, s.model) for s in order.sorted_by if s.element is None):
            if owner is DocumentField:
                source = sorted_source(name, model.nested, model.joined)
                column = None if source is None else joined[source.class_].columns.get(source.key)
            else:
                column = None if owner is None else joined[owner].columns[name]
            problems = () if column is None else check_order_of(column)
            yield from (f"{order}: {name!r} {problem}" for problem in problems)


def _check_fields(model: type[Declaration], entity: Entity, joined: Entities) -> Iterator[str]:
    """Checks each field against its column: a field without a fitting value would make every document fail."""
    hints = get_type_hints(model.document, include_extras=True)
    for name in (
        field.name for field in msgspec.structs.fields(model.document) if field.name not in model.nested
    ):
        join = model.joined.get(name)
        column = entity.columns[name] if join is None else joined[join.value.class_].columns[join.value.key]
        shown = f"the column {name!r}" if join is None else f"`joined`: {named(join.value)}"
        if not can_fill(column, hints[name]):
            yield (
                f"{shown} has {_values_of(column)}, and none of them fits the document's field {name!r}, "
                f"{_type_name(hints[name])}: declare the field as what the column has, or map the column otherwise"
            )
        if not takes_null(hints[name]):
            if join is not None:
                yield (
                    f"`joined`: {name!r} is null where the joined row is missing, but the document's field may "
                    "not be: write `… | None`"
                )
            elif column.nullable:
                yield f"the column {name!r} may be null, but the document's field may not: write `… | None`"


def _values_of(column: Column) -> str:
    """Names a column's values in an error."""
    if column.type in (datetime.datetime, datetime.time):
        return f"{column.type.__name__} values {'with' if column.zoned else 'without'} a time zone"
    return f"{getattr(column.type, '__name__', 'such')} values"


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def _check_joins(model: type[Declaration], entity: Entity, joined: Entities) -> Iterator[str]:
    for field, join in model.joined.items():
        local = entity.columns[join.local.key]
        remote = joined[join.remote.class_].columns[join.remote.key]
        # Only what is unique is logged with its old value, by which the documents of a changed row are found.
        rules = {
            f"{named(join.remote)} {UNIQUE}, for one row at most may be joined": remote.unique,
            f"{named(join.remote)} {compared(remote)}": remote.bytewise,
            f"{named(join.remote)} must be of one of the types {type_names(KEY_TYPES)}": remote.type
            in KEY_TYPES,
            f"{named(join.remote)} {LOGGED}": remote.logged,
            f"{named(join.local)} {compared(local)}": local.bytewise,
            f"{named(join.local)} and {named(join.remote)} must be of the same type": local.type
            is remote.type,
        }
        yield from (f"`joined`: {field!r}: {rule}" for rule, holds in rules.items() if not holds)


def _unknown(name: str, entity: Entity) -> str:
    return f"{name!r} is not a mapped column of {entity.name}; its columns are: {', '.join(entity.columns)}"
