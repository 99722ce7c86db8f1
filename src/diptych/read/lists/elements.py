"""Lists with an entry for each element of a collection: their checks, and the collections of a read model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from diptych.read.address_checks import (
    KEY_TYPES,
    LOGGED,
    compared,
    key_attributes,
    sorted_differently,
    type_names,
)
from diptych.read.declaration import Association, Collection, Declaration, DocumentField, ListOrder
from diptych.read.lists.ordering import SORTED_TYPES, sorted_as
from diptych.sql.description import Column, Entity, Sorting
from diptych.sql.schema.relationships import Link, link_of

Entities = Mapping[type, Entity]


def check_each(model: type[Declaration]) -> Iterator[str]:
    """Yields the faults of each ``each`` that are none of the columns': the classes behind it can't be told then."""
    own = key_attributes(model)[0].class_
    orders = model.lists if isinstance(model.lists, tuple | list) else ()
    for order in (order for order in orders if isinstance(order, ListOrder)):
        of_elements = [sorting for sorting in order.sorted_by if sorting.element is not None]
        if len(of_elements) > 1:
            yield f"{order}: a list has one `each` at most: make it several lists, with one each"
        for sorting in of_elements:
            yield from (f"{order}: {problem}" for problem in _check(model, own, order, sorting))


def _check(model: type[Declaration], own: type, order: ListOrder, sorting: Sorting) -> Iterator[str]:
    element = sorting.element
    if element is None:
        return
    if sorting.model is not own:
        whose = "no mapped attribute" if sorting.model is None else f"of {sorting.model.__name__}"
        yield f"{sorting.name!r} is {whose}: `each` takes a relationship of {own.__name__}"
        return
    link = link_of(own, sorting.name)
    if isinstance(link, str):
        yield f"`each` takes a collection: {link}"
        return
    if not link.is_collection:
        yield (
            f"{sorting.name!r} is one {link.element.__name__} and no collection: give the document a field of "
            "`joined` with its column, and sort by that column"
        )
        return
    if sorting.name in model.joined:
        yield (
            f"{sorting.name!r} is a field of `joined` too, and a filter could mean either: give the document's field "
            "another name"
        )
    if any(other.model is DocumentField and other.name == sorting.name for other in order.sorted_by):
        yield (
            f"{sorting.name!r} is a field that the list is ordered by, too: give the document's field another name"
        )
    if element.model is not link.element:
        whose = "no mapped attribute" if element.model is None else f"of {element.model.__name__}"
        yield (
            f"{element.name!r} is {whose}: {sorting.name!r} has elements of {link.element.__name__}, and `each` "
            "takes one of their columns, without a direction, since a page has one value of it"
        )


def element_models(model: type[Declaration]) -> list[type]:
    """Returns the mapped classes whose rows lists with an ``each`` need. ``check_each`` must have no fault."""
    found: list[type] = []
    for link in (_link(order) for order in model.lists):
        if link is not None:
            found += [link.element] if link.association is None else [link.element, link.association]
    return found


def _link(order: ListOrder) -> Link | None:
    for sorting in order.sorted_by:
        if sorting.element is not None and sorting.model is not None:
            link = link_of(sorting.model, sorting.name)
            return None if isinstance(link, str) else link
    return None


def collection_of(order: ListOrder, entities: Entities) -> Collection | None:
    """Returns the collection of whose elements a list has the values; None for a list without an ``each``."""
    link = _link(order)
    if link is None:
        return None
    [sorting] = [sorting for sorting in order.sorted_by if sorting.element is not None]
    through = None if link.association is None else entities[link.association]
    association = None if through is None else Association(through, link.near, link.far)
    value = "" if sorting.element is None else sorting.element.name
    return Collection(sorting.name, link.local, entities[link.element], link.remote, value, association)


def with_element(entity: Entity, collection: Collection | None) -> Entity:
    """Returns the entity with the values of elements as a column, called like the relationship."""
    if collection is None:
        return entity
    value = collection.entity.columns[collection.value]
    column = msgspec.structs.replace(value, name=collection.name, unique=False)
    return msgspec.structs.replace(entity, columns={**entity.columns, collection.name: column})


def check_elements(model: type[Declaration], entity: Entity, entities: Entities) -> Iterator[str]:
    """Yields the faults of the columns of each ``each``."""
    for order in model.lists:
        collection = collection_of(order, entities)
        if collection is not None:
            yield from (f"{order}: {problem}" for problem in _check_columns(entity, collection))


def _check_columns(entity: Entity, collection: Collection) -> Iterator[str]:
    elements = collection.entity
    value = elements.columns.get(collection.value)
    if value is None:
        yield f"{collection.value!r} is no mapped column of {elements.name}"
    elif sorted_as(value) is None:
        yield f"{elements.name}.{value.name} must be of one of the types {type_names(SORTED_TYPES)}, or an enum"
    elif value.misordered:
        yield f"{elements.name}.{value.name} {sorted_differently(value)}"
    pairs = [(entity, collection.local, False), (elements, collection.remote, True)]
    if collection.association is not None:
        through, near, far = collection.association
        pairs[1:1] = [(through, near, True), (through, far, True)]
    yield from (problem for pair in pairs for problem in _check_linking(*pair))
    for (one, name, _), (other, equal, _) in zip(pairs[::2], pairs[1::2], strict=True):
        if one.columns[name].type is not other.columns[equal].type:
            yield f"{one.name}.{name} and {other.name}.{equal}, which link rows, must be of the same type"


def _check_linking(entity: Entity, name: str, must_be_logged: bool) -> Iterator[str]:
    column: Column = entity.columns[name]
    shown = f"{entity.name}.{name}, which links rows,"
    rules = {
        compared(column): column.bytewise,
        f"must be of one of the types {type_names(KEY_TYPES)}": column.type in KEY_TYPES and not column.texts,
        LOGGED: column.logged,
        "must be in the entries of the change log: make it a foreign key, or unique": (
            not must_be_logged or name in entity.in_entries
        ),
    }
    yield from (f"{shown} {rule}" for rule, holds in rules.items() if not holds)
