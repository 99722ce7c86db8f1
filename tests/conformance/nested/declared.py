"""Generated read models with nested fields."""

from __future__ import annotations

import datetime
import enum
import random
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from diptych import ReadModel, average, by, count, each, field, many, maximum, minimum, one, total
from tests.conformance.nested.oracle import Body, Field, Order, Row
from tests.conformance.nested.tables import (
    RELS,
    Book,
    Chapter,
    Kind,
    Publisher,
    Tag,
    Writer,
    columns_of,
    type_of,
)

ROOTS = (Book, Book, Book, Chapter, Writer, Publisher)
_FUNCTIONS: dict[str, Any] = {"one": one, "many": many, "minimum": minimum, "maximum": maximum}


class Declared:
    """A generated read model: the class ``model``, its ``body``, and the conditions of it and of its lists."""

    def __init__(self, chance: random.Random, name: str) -> None:
        self._chance = chance
        self._count = 0
        self._name = name
        root = chance.choice(ROOTS)
        self.body = self._body(root, chance.choice([1, 2, 2, 3]), 4, first="id")
        where, self.shows = condition(chance, root, 0.3)
        self.has: dict[str, Callable[[Row], bool]] = {}
        self.fields = {each.name: each for each in self.body.fields}
        nested = {each.name: each.made for each in self.body.fields}
        also = (Book.code,) if root is Book and chance.random() < 0.4 else ()
        attributes = {
            "key": root.id,
            "also": also,
            "document": self.body.document,
            "nested": nested,
            "where": where,
            "lists": tuple(self._list(root, f"list-{n}") for n in range(chance.randint(1, 3))),
        }
        self.model: Any = type(name, (ReadModel,), attributes)

    def _list(self, root: Any, name: str) -> Any:
        chance = self._chance
        where, self.has[name] = condition(chance, root, 0.2)
        names = [*columns_of(root), *[each.name for each in self.body.fields if each.is_sortable] * 2]
        columns = []
        for column in dict.fromkeys(chance.sample(names, min(len(names), chance.randint(1, 3)))):
            given = field(column) if column in self.fields else getattr(root, column)
            columns.append(_directed(chance, given)[0])
        if root is Book and chance.random() < 0.3:
            columns.insert(chance.randint(0, 1), each(Book.tags, Tag.name))
        return by(*columns, name=name, where=where)

    # Fields

    def _body(
        self, model: Any, steps: int, most: int, *, first: str = "", rest: str = "", is_list: bool = False
    ) -> Body:
        """``rest`` is the name of a field that is added by a depth, as a list or as one row."""
        chance, own = self._chance, [name for name in columns_of(model) if name != "ratio"]
        columns = sorted(chance.sample(own, chance.randint(1, min(4, len(own)))))
        if first:
            columns = [first, *(name for name in columns if name != first)]
        fields: list[Field] = []
        taken = {*columns_of(model), rest}
        if RELS[model] and steps:
            for _ in range(chance.randint(1 if first else 0, most)):
                made = self._field(model, steps, taken)
                taken.add(made.name)
                fields.append(made)
        is_camel = chance.random() < 0.3
        types = [(name, type_of(columns_of(model)[name])) for name in columns]
        types += [(each.name, each.hint) for each in fields]
        self._count += 1
        name = f"{self._name}Document{self._count}"
        if rest:
            types.append((rest, f"list[{name}]" if is_list else f"{name} | None"))
        document = msgspec.defstruct(name, types, rename="camel" if is_camel else None, module=__name__)
        setattr(sys.modules[__name__], name, document)  # where the struct looks for itself
        return Body(model, tuple(columns), tuple(fields), is_camel, document)

    def _field(self, model: Any, steps: int, taken: set[str]) -> Field:
        chance = self._chance
        relation = chance.choice(list(RELS[model]))
        rel = RELS[model][relation]
        kind = _kind(chance, rel.is_collection, rel.target)
        relationship = getattr(model, relation)
        free = [name for name in (relation,) if name not in taken and chance.random() < 0.5]
        name = free[0] if free else f"{kind}_{relation}_{len(taken)}"
        where, has = condition(chance, rel.target, 0.3)
        made = Field(name, kind, relation, rel, None, None, has=has)
        if kind == "count":
            return made._replace(made=count(relationship, where=where), hint=int)
        if kind in ("total", "average"):
            return self._number(made, relationship, where)
        return self._rows(made, relationship, where, steps, None if f"all_{relation}" in taken else model)

    def _number(self, made: Field, relationship: Any, where: Any) -> Field:
        chance, target = self._chance, made.rel.target
        column = chance.choice(_numbers(target))
        attribute, is_whole = getattr(target, column), columns_of(target)[column].type.python_type is int
        if made.kind == "total":
            hint: Any = float if chance.random() < 0.2 else int if is_whole else Decimal
            given = total(relationship, attribute, where=where)
            return made._replace(made=given, hint=hint, column=column)
        places = chance.choice([0, 1, 2, 3, 6])
        given = average(relationship, attribute, places=places, where=where)
        hint = chance.choice([Decimal, float]) | None
        return made._replace(made=given, hint=hint, column=column, places=places)

    def _rows(self, made: Field, relationship: Any, where: Any, steps: int, model: Any) -> Field:
        chance, target = self._chance, made.rel.target
        given: dict[str, Any] = {"where": where}
        if made.kind in ("minimum", "maximum"):
            column = chance.choice([name for name in columns_of(target) if name != "ratio"])
            value = _FUNCTIONS[made.kind](relationship, getattr(target, column), **given)
            return made._replace(made=value, hint=_or_none(target, column), column=column, limit=1)
        if made.kind == "many" or made.rel.is_collection or chance.random() < 0.2:
            given["order"], made = self._order(made)
        if made.kind == "many" and chance.random() < 0.6:
            made = made._replace(limit=chance.randint(1, 4))
            given["limit"] = made.limit
        if made.kind == "one":
            made = made._replace(limit=1)
        if chance.random() < 0.3:
            column = chance.choice([name for name in columns_of(target) if name != "ratio"])
            value = _FUNCTIONS[made.kind](relationship, getattr(target, column), **given)
            item: Any = type_of(columns_of(target)[column])
            hint = list[item] if made.kind == "many" else _or_none(target, column)
            return made._replace(made=value, hint=hint, column=column)
        rest = ""
        if target is model and chance.random() < 0.6:
            rest, given["depth"] = f"all_{made.relation}", chance.randint(1, 3)
            made = made._replace(name=rest, depth=given["depth"])
        body = self._body(target, steps - 1, 2, rest=rest, is_list=made.kind == "many")
        given["nested"] = {each.name: each.made for each in body.fields}
        hint = list[body.document] if made.kind == "many" else body.document | None  # type: ignore[name-defined]
        value = _FUNCTIONS[made.kind](relationship, **given)
        return made._replace(made=value, hint=hint, body=body)

    def _order(self, made: Field) -> tuple[Any, Field]:
        chance, target = self._chance, made.rel.target
        names = chance.sample(list(columns_of(target)), chance.randint(1, 2))
        directed = [_directed(chance, getattr(target, name), name) for name in names]
        given = tuple(column for column, _ in directed)
        order = tuple(order for _, order in directed)
        return given[0] if len(given) == 1 else given, made._replace(order=order)


def _kind(chance: random.Random, is_collection: bool, target: Any) -> str:
    if not is_collection:
        return "one"
    kinds = ["many", "many", "many", "one", "count", "minimum", "maximum"]
    return chance.choice([*kinds, "total", "total", "average", "average"] if _numbers(target) else kinds)


def _numbers(model: Any) -> list[str]:
    kinds = {name: column.type.python_type for name, column in columns_of(model).items()}
    return [name for name, kind in kinds.items() if kind in (int, Decimal)]


def _or_none(model: Any, column: str) -> Any:
    return columns_of(model)[column].type.python_type | None


def _directed(chance: random.Random, column: Any, name: str = "") -> tuple[Any, Order]:
    """A column in one of its orders."""
    way = chance.randint(0, 3)
    if way == 0:
        return column, Order(name, descending=False, nulls_first=False)
    if way == 1:
        return column.desc(), Order(name, descending=True, nulls_first=True)
    if way == 2:
        return column.nulls_first(), Order(name, descending=False, nulls_first=True)
    return column.desc().nulls_last(), Order(name, descending=True, nulls_first=False)


def condition(chance: random.Random, model: Any, likely: float) -> tuple[Any, Callable[[Row], bool]]:
    """A condition on rows of a class, and its meaning; None for all rows."""
    if chance.random() > likely:
        return None, lambda _row: True
    name = chance.choice(list(columns_of(model)))
    column, attribute = columns_of(model)[name], getattr(model, name)
    kind = column.type.python_type
    if column.nullable and chance.random() < 0.3:
        return attribute.is_(None), lambda row: row[name] is None
    if kind is bool:
        return attribute.is_(True), lambda row: row[name] is True
    if issubclass(kind, enum.Enum):
        return attribute != Kind.GAMMA, lambda row: row[name] not in (None, Kind.GAMMA)
    least: Any = {int: 1, Decimal: Decimal(1), datetime.date: datetime.date(2026, 1, 2)}.get(kind)
    if least is not None:
        return attribute > least, lambda row: row[name] is not None and row[name] > least
    if kind is str:
        wanted: Sequence[str] = ("", "a", "é", "B", "b1")
        return attribute.not_in(wanted), lambda row: row[name] is not None and row[name] not in wanted
    return attribute.is_not(None), lambda row: row[name] is not None
