"""Values for generated rows that no constraint refuses: the least, the greatest and odd ones are among them."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from tests.conformance.nested.oracle import Tables
from tests.conformance.nested.tables import MODELS, Kind, columns_of

TEXTS = (
    *("", "a", "A", "ab", "é", "e\u0301", "ß", "B", "b ", " b", "_", "\U0010ffff", "a\U0010ffffz", "日本"),
    "it's \"\\\n",
)
NUMBERS = (-7, -1, 0, 1, 2, 3, 10, 2**31 - 1)
BIG = (-(2**63), -(2**62), -1, 0, 1, 2**53 + 1, 2**62, 2**63 - 1)
MOMENTS = [datetime.datetime(2026, 1, day, 23, 59, 59, day) for day in (1, 2, 3)]
UIDS = [uuid.UUID(int=number * 0x1111_0000_0000_0000_0000_0000_0000_0001) for number in range(15)]
DECIMALS = {
    "weight": ("-1.25", "-0.13", "0.00", "0.12", "1.5", "999999.99"),
    "ratio": ("-0.125", "0", "0.1", "0.0000000001", "3", "1000"),
    "price": ("-1.50", "0.00", "2.25", "10.00", "10.01"),
    "share": ("0.0001", "0.25", "0.3333", "1", "-0.5"),
}
WHOLE = ("-3", "0", "1", "900000000000001")


class Values:
    """Values for new and for changed rows, in view of the rows that there are."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.tables: Tables = {}

    def ids(self, model: Any) -> list[Any]:
        return sorted(row["id"] for row in self.tables.get(model.__tablename__, ()))

    def row(self, model: Any, number: Any) -> dict[str, Any]:
        return {name: self.value(model, name) for name in columns_of(model) if name != "id"} | {"id": number}

    def value(self, model: Any, name: str) -> Any:
        """A value that no constraint refuses."""
        chance, column = self.chance, columns_of(model)[name]
        if column.nullable and chance.random() < 0.2:
            return None
        for key in column.foreign_keys:
            found = [row[key.column.name] for row in self.tables[key.column.table.name]]
            taken = {row[name] for row in self.tables[model.__tablename__]} if column.unique else {None}
            found = sorted({value for value in found if value is not None} - taken, key=str)
            return chance.choice(found) if found else None
        if column.unique:
            taken = {row[name] for row in self.tables[model.__tablename__]}
            return chance.choice([value for value in _distinct(column) if value not in taken])
        return self._any(name, column.type)

    def _any(self, name: str, kind: Any) -> Any:
        chance = self.chance
        if isinstance(kind, sa.Enum):
            return chance.choice(list(Kind))
        if isinstance(kind, sa.Numeric):
            return Decimal(chance.choice(DECIMALS.get(name, WHOLE)))
        if isinstance(kind, sa.BigInteger):
            return chance.choice(BIG)
        if isinstance(kind, sa.DateTime):
            moment = chance.choice(MOMENTS)
            return moment.replace(tzinfo=datetime.UTC) if kind.timezone else moment
        if isinstance(kind, sa.Boolean):
            return chance.random() < 0.6
        if isinstance(kind, sa.Date):
            return datetime.date(2026, 1, chance.randint(1, 3))
        if isinstance(kind, sa.Integer):
            return chance.choice(NUMBERS[:-1] if isinstance(kind, sa.SmallInteger) else NUMBERS)
        return chance.choice(TEXTS)

    def changed(self, model: Any) -> dict[str, Any]:
        names = [name for name in columns_of(model) if name != "id"]
        names = self.chance.sample(names, self.chance.randint(1, min(3, len(names))))
        values = {name: self.value(model, name) for name in names}
        return {
            name: value
            for name, value in values.items()
            if value is not None or columns_of(model)[name].nullable
        }

    def some(self) -> tuple[Any, Any]:
        """A class, and the id of one of its rows."""
        model = self.chance.choice([model for model in MODELS if self.ids(model)])
        return model, self.chance.choice(self.ids(model))


def _distinct(column: Any) -> Sequence[Any]:
    if isinstance(column.type, sa.Uuid):
        return UIDS
    return [f"{text[:5]}{number}" for text in TEXTS for number in (1, 2)]
