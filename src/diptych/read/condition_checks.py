"""The checks of declared conditions, of a read model and of its lists; each fault is a sentence with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

from diptych.read.address_checks import sorted_differently, type_names
from diptych.read.declaration import Declaration
from diptych.read.lists.ordering import SORTED_TYPES, sorted_as
from diptych.sql.conditions.parse import condition_of
from diptych.sql.conditions.tree import Compared, Condition, Operator, Unsupported, leaves_of
from diptych.sql.description import Column, Entity


def check_conditions(model: type[Declaration], entity: Entity) -> Iterator[str]:
    """Yields the faults of ``where`` of a read model and of its lists."""
    if model.where is not None:
        yield from check_condition(condition_of(model.where), entity)
    for order in model.lists:
        if order.where is not None:
            yield from (f"{order}: {problem}" for problem in check_condition(order.where, entity))


def check_condition(condition: Condition, entity: Entity) -> Iterator[str]:
    """Yields the faults of a condition on rows of this class."""
    for leaf in leaves_of(condition):
        if isinstance(leaf, Unsupported):
            yield leaf.reason
        elif leaf.model is not entity.model:
            yield (
                f"`where` compares {leaf.name!r} of {leaf.model.__name__}: conditions are over {entity.name}'s own "
                f"columns; keep what decides in a column of {entity.name}"
            )
        elif leaf.name not in entity.columns:
            yield (
                f"`where` compares {leaf.name!r}, which is not a mapped column of {entity.name}; its columns are: "
                f"{', '.join(entity.columns)}"
            )
        else:
            yield from _check_comparison(leaf, entity.columns[leaf.name])


def _check_comparison(compared: Compared, column: Column) -> Iterator[str]:
    name = f"`where` compares {column.name!r}, which"
    if compared.test in (Operator.NULL, Operator.NOT_NULL):
        if column.type is None:
            yield f"{name} is of a type that alone knows what it makes of null: compare another column"
    elif sorted_as(column) is None:
        yield f"{name} must be of one of the types {type_names(SORTED_TYPES)}, or an enum"
    elif column.misordered:
        yield f"{name} {sorted_differently(column)}"
    else:
        for value in compared.values:
            try:
                column.fit(value)
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                yield f"{name} can't hold the constant {value!r}: it {error}"
