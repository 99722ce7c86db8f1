"""The checks of the form of nested fields: what is no matter of columns. Each fault is a sentence with its remedy."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from diptych.read.address_checks import is_attribute, named
from diptych.read.declaration.nested import Computed, Nested
from diptych.read.nested.tree import followed
from diptych.sql.schema.relationships import Link

_MOST_DEPTH = 20
_MOST_PLACES = 30
_MOST_ROWS = 1_000_000
_OF_COLUMNS = ("total", "average", "minimum", "maximum")


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
                yield from _check_inner(name, given, where)


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


def sorted_source(name: str, nested: Mapping[str, Any], joined: Mapping[str, Any]) -> Any:
    """Returns the mapped attribute of which such a field has values; None for a number."""
    if name in joined:
        return joined[name].value
    return nested[name].column if nested[name].kind == "one" else None


def element_of(given: Nested) -> type:
    """Returns the class of the rows of a field. Its relationship must be without faults."""
    return _link(given).element


def _link(given: Nested) -> Link:
    link = followed(given.relationship)
    if isinstance(link, str):
        raise ValueError(link)
    return link


def _check_inner(name: str, given: Nested, where: str) -> Iterator[str]:
    yield from check_nested_form(element_of(given), given.nested, f"{where} of {name!r}")
    if given.depth is not None and isinstance(given.nested, Mapping) and name in given.nested:
        yield f"{where} of {name!r}: {name!r} is there by its depth already: leave it out, or the depth"


def _check_computed(owner: type, given: Computed) -> Iterator[str]:
    if not callable(given.function):
        yield "is computed by what is no function: computed(label_of, Book.title)"
    elif inspect.iscoroutinefunction(given.function):
        yield "is computed by an asynchronous function, which would have no value: make it a plain one"
    elif problem := _not_called_with(given):
        yield f"is computed from {len(given.columns)} columns, which its function does not take: {problem}"
    if not given.columns:
        yield "is computed from no column: a field without a column is the same for all rows"
    for column in given.columns:
        if getattr(column, "class_", None) is not owner:
            yield f"is computed from {_shown(column)}, which is no mapped attribute of {owner.__name__}"


def _not_called_with(given: Computed) -> str:
    try:
        inspect.signature(given.function).bind(*given.columns)
    except TypeError as error:
        return str(error)
    except ValueError:
        pass  # a function of C may not tell what it takes
    return ""


def _check_relationship(owner: type, given: Nested) -> Iterator[str]:
    link, shown = followed(given.relationship), _shown(given.relationship)
    if isinstance(link, str):
        yield f"can't be followed: {link}"
    elif given.relationship.class_ is not owner:
        yield f"starts at {shown}, which is no relationship of {owner.__name__}"
    elif not link.is_collection and given.kind != "one":
        yield f"is of one {link.element.__name__} and no collection: declare it by one({shown})"
    elif link.is_collection and given.kind == "one" and not given.order:
        yield (
            f"is the first of several {link.element.__name__}: say in which order, "
            f"one({shown}, order={link.element.__name__}.….desc())"
        )
    elif given.kind == "many" and not given.order and given.relationship.property.order_by:
        yield (
            f"is in the order that the mapping gives {shown} (order_by), which documents do not follow: say the "
            f"order here, order={link.element.__name__}.…"
        )
    elif given.depth is not None and link.element is not owner:
        yield f"has a depth, which is for a relationship of {owner.__name__} to itself"


def _check_arguments(given: Nested) -> Iterator[str]:
    element = element_of(given)
    if given.kind in _OF_COLUMNS and given.column is None:
        yield f"needs a column of {element.__name__}"
    if given.column is not None and getattr(given.column, "class_", None) is not element:
        remedy = ": let the database compute a column of it, and name that column"
        yield (
            f"takes {_shown(given.column)}, which is no mapped attribute of {element.__name__}"
            f"{remedy if _is_expression(given.column) else ''}"
        )
    for sorting in given.order:
        if sorting.model is not element or sorting.element is not None:
            yield (
                f"is in the order of {str(sorting)!r}, which is no mapped attribute of {element.__name__}: "
                f"order={element.__name__}.….desc()"
            )
    if given.kind == "many" and given.limit is not None and not _is_whole(given.limit, 1, _MOST_ROWS):
        yield f"has a limit that is no whole number from 1 to {_MOST_ROWS:_}"
    if given.kind == "average" and not _is_whole(given.places, 0, _MOST_PLACES):
        yield f"needs places=, the number of decimal places, from 0 to {_MOST_PLACES}"
    if given.depth is not None and not _is_whole(given.depth, 1, _MOST_DEPTH):
        yield f"has a depth that is no whole number from 1 to {_MOST_DEPTH}"
    if given.column is not None and (given.nested or given.depth is not None):
        yield "has the values of a column, and so neither nested fields nor a depth"


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _shown(given: Any) -> str:
    if is_attribute(given):
        return named(given)
    return f"`{given}`" if _is_expression(given) else repr(given)


def _is_expression(given: Any) -> bool:
    """Returns whether this is an expression of SQLAlchemy's, of which nothing may be imported here."""
    return hasattr(given, "self_group") and not is_attribute(given)
