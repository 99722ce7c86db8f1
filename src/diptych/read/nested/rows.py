"""The values of nested fields, read from SQL: a statement for each field, for many rows at once.

The number of the same rows, and the total and the average of one of their columns, have one statement together.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from diptych.read.nested.numbers import Sum
from diptych.read.nested.statements import FieldStatements
from diptych.read.nested.tree import NUMBERS, Body, NestedField
from diptych.sql.description import Row, Unreadable
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import FewValues, PreparedSelect

Fetch: TypeAlias = Callable[
    [sa.Select[Any] | PreparedSelect, Mapping[str, Any]], Awaitable[Sequence[Sequence[Any]]]
]
"""Returns the rows of a SELECT with parameters."""

_MOST_PARENTS = 500
"""Number of rows whose related rows one statement looks for."""

_MOST_ROWS = 20_000
"""Number of related rows in memory at once. A single document may have more."""


class _TooManyError(Exception):
    """Raised where more related rows are found than may be in memory at once."""


class NestedRows:
    """The nested fields of the rows of ``entity``. ``entity_of`` returns the entity of a mapped class."""

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        fields: Sequence[NestedField],
    ) -> None:
        self._readers = [_Reader(dialect, entity_of, entity, some) for some in _by_statement(fields)]

    def linking(self) -> Iterator[tuple[str, MappedEntity, str]]:
        """Yields the columns that link rows, with the field: those of ``entity``, and of all on the way."""
        for reader in self._readers:
            yield from reader.linking()

    async def added_to(self, rows: Sequence[Row], fetch: Fetch) -> AsyncIterator[list[Row]]:
        """Yields the rows with the values of their nested fields; in parts, if these have many related rows."""
        parts = [rows]
        while parts:
            some = parts.pop()
            try:
                yield await self._filled(some, _Budget(fetch, _MOST_ROWS if len(some) > 1 else None))
            except _TooManyError:
                half = len(some) // 2
                parts += [some[half:], some[:half]]

    async def whole(self, rows: Sequence[Row], fetch: Fetch) -> list[Row]:
        """Returns all the rows with the values of their nested fields."""
        return [row async for some in self.added_to(rows, fetch) for row in some] if rows else []

    async def _filled(self, rows: Sequence[Row], budget: _Budget) -> list[Row]:
        filled: list[Row] = [dict(row) for row in rows]
        for reader in self._readers:
            await reader.fill(filled, budget)
        return filled


class _Budget:
    """The reading of related rows, ``most`` of them at once; None for no bound."""

    def __init__(self, fetch: Fetch, most: int | None) -> None:
        self._fetch = fetch
        self._left = most

    @property
    def limit(self) -> int | None:
        """The number of related rows that a statement may return."""
        return None if self._left is None else _MOST_ROWS + 1

    async def fetch(
        self, select: sa.Select[Any] | PreparedSelect, values: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        """Returns the rows of a SELECT. Raises ``_TooManyError`` if there are too many."""
        found = await self._fetch(select, values)
        if self._left is not None:
            self._left -= len(found)
            if self._left < 0:
                raise _TooManyError
        return found


def _by_statement(fields: Sequence[NestedField]) -> list[list[NestedField]]:
    """Returns the fields in groups that one statement reads each."""
    groups: list[list[NestedField]] = []
    for field in fields:
        group = next((group for group in groups if _is_read_with(field, group)), None)
        if group is None:
            groups.append([field])
        else:
            group.append(field)
    return groups


def _is_read_with(field: NestedField, group: Sequence[NestedField]) -> bool:
    columns = {each.column for each in (field, *group)} - {None}
    are_numbers = field.kind in NUMBERS and group[0].kind in NUMBERS
    return are_numbers and len(columns) <= 1 and field.has_same_rows(group[0])


class _Reader:
    """The reading of a nested field, or of several that one statement reads."""

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        owner: MappedEntity,
        fields: Sequence[NestedField],
    ) -> None:
        self._fields = fields
        field = self._field = next((each for each in fields if each.column is not None), fields[0])
        self._entities = [owner, *(entity_of(step.entity.model) for step in field.steps)]
        self._statements = FieldStatements(dialect, entity_of, field)
        self._related = self._statements.related
        local = owner.columns[field.steps[0].local]
        # Of another type, the column may be one that can't hold all values of the row's.
        self._is_same_type = repr(local.type) == repr(self._related.near.type)
        inner = _nested_in(field.body)
        self._inner = [
            _Reader(dialect, entity_of, self._related.entity, some) for some in _by_statement(inner)
        ]
        wanted = sa.bindparam("wanted", type_=self._related.near.type, expanding=True)
        self._several = self._statements.select(wanted)
        self._few = FewValues()

    def linking(self, field: str = "") -> Iterator[tuple[str, MappedEntity, str]]:
        """Yields the columns that link rows, the owner's first; ``field`` is the name of the enclosing field."""
        names = [f"{field}.{each.name}" if field else each.name for each in self._fields]
        for name in names:
            for step, (before, there) in zip(
                self._field.steps, itertools.pairwise(self._entities), strict=True
            ):
                yield from ((name, before, step.local), (name, there, step.remote))
        for inner in self._inner:
            yield from inner.linking(names[0])

    async def fill(self, rows: Sequence[Row], budget: _Budget) -> None:
        """Puts the values of the fields into each row, under their names."""
        local = self._field.steps[0].local
        found = await self._read(dict.fromkeys(row[local] for row in rows), budget)
        for field in self._fields:
            values = {near: self._value(field, each) for near, each in found.items()}
            for row in rows:
                row[field.name] = values.get(row[local], self._nothing(field))  # type: ignore[index]

    async def _read(self, wanted: Iterable[Any], budget: _Budget) -> dict[Any, Any]:
        """Returns what belongs to each of these values: documents or values, or a ``Sum``."""
        held = [value for value in wanted if self._holds(value)]
        found: dict[Any, Any] = {}
        for start in range(0, len(held), _MOST_PARENTS):
            read = await self._fetched(held[start : start + _MOST_PARENTS], budget)
            if self._field.kind in NUMBERS:
                self._count(read, found)
            else:
                for near, made in zip(
                    [each[0] for each in read], await self._made(read, budget), strict=True
                ):
                    found.setdefault(near, []).append(made)
        return found

    async def _fetched(self, wanted: Sequence[Any], budget: _Budget) -> Sequence[Sequence[Any]]:
        """Returns the related rows of rows with these values, behind the value that each belongs to."""
        limit, statements = budget.limit, self._statements
        few = self._few.get(
            limit,
            wanted,
            self._related.near.type,
            lambda given: statements.limited(
                statements.select(given), is_of_one=len(given) == 1, limit=limit
            ),
        )
        if few is not None:
            return await budget.fetch(*few)
        several = statements.limited(self._several, is_of_one=False, limit=limit)
        return await budget.fetch(several, {"wanted": wanted})

    def _holds(self, value: Any) -> bool:
        related = self._related
        if value is None or isinstance(value, Unreadable):
            return False
        return self._is_same_type or related.near_of.holds(related.near_name, value)

    async def _made(self, read: Sequence[Sequence[Any]], budget: _Budget) -> list[Any]:
        """Returns the documents of related rows, or their values, in their order."""
        body = self._field.body
        if body is None:
            return [each[1] for each in read]
        rows: list[Row] = [dict(zip(self._statements.names, each[1:], strict=True)) for each in read]
        for inner in self._inner:
            await inner.fill(rows, budget)
        return [document_of(body, row) for row in rows]

    def _count(self, read: Sequence[Sequence[Any]], found: dict[Any, Any]) -> None:
        for near, number, *values in read:
            each = found.setdefault(near, Sum())
            each.rows += number
            if len(values) == 1:
                each.add(values[0], number)
            elif values:
                count, added = values
                # PostgreSQL's sum of whole numbers is Numeric.
                is_whole = added is not None and self._statements.scale is None
                each.add(int(added) if is_whole else added, count, is_sum=True)

    def _value(self, field: NestedField, found: Any) -> Any:
        match field.kind:
            case "many":
                return found
            case "count":
                return found.rows
            case "total":
                return found.total(self._statements.scale)
            case "average":
                return found.average(field.places or 0)
        return found[0]

    def _nothing(self, field: NestedField) -> Any:
        return Sum().total(self._statements.scale) if field.kind == "total" else field.nothing


def document_of(body: Body, row: Row) -> dict[str, Any]:
    """Returns the document of a row with the values of its nested fields, as values under the names in JSON."""
    made = {encoded: row[name] for encoded, name in body.columns}
    made.update((body.encoded[field.name], row[field.name]) for field in body.nested)
    for field in body.computed:
        made[body.encoded[field.name]] = field.value(row)
    made.update(body.ends)
    return made


def _nested_in(body: Body | None) -> tuple[NestedField, ...]:
    return () if body is None else body.nested
