"""Lists and fields whose SQL no index serves, and the indexes that would."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.read.lists.sorted_columns import SortedColumn
from diptych.sql.entity import MappedEntity
from diptych.sql.schema.indexes import IndexTerm, TableIndexes, indexes_of, sqlite_term
from diptych.sql.schema.relationships import in_python

_LONGEST_NAME = 63
"""Length of a name in PostgreSQL, in bytes; longer ones are cut."""


class Needed(NamedTuple):
    """A list of a read model, or a field of other rows, that needs an index on these columns in this order.

    Columns of other rows in a list's order are in no index.
    """

    read_model: str
    name: str
    entity: MappedEntity
    columns: Sequence[SortedColumn]
    is_field: bool = False

    @property
    def indexed(self) -> list[SortedColumn]:
        """The columns that an index can have: all before the first column of another row."""
        return list(itertools.takewhile(lambda column: not column.is_joined, self.columns))


class MissingIndex(NamedTuple):
    """A list or field whose SQL no index serves. ``python`` is the text of SQLAlchemy's ``Index`` that would.

    ``python`` is empty if none can: a page of the list sorts all rows that it selects. It ``aggregates`` if it
    computes a nested field of each of them.
    """

    read_model: str
    name: str
    table: str
    python: str
    is_field: bool
    aggregates: bool


async def missing_indexes(connection: AsyncConnection, all_needed: Iterable[Needed]) -> list[MissingIndex]:
    """Returns what no index of the database serves; by the catalogue, and not by what is in the table.

    An index serves a list if it has its rows in the list's order, or in the opposite one; it may go on with further
    columns. Indexes of some rows only, or that are not valid, don't.
    """
    missing: list[MissingIndex] = []
    known: dict[str, TableIndexes] = {}
    taken: dict[str, dict[tuple[IndexTerm, ...], str]] = {}
    for each in all_needed:
        table = each.entity.full_name
        if table not in known:
            known[table], taken[table] = await indexes_of(connection, each.entity.table), {}
        wanted = tuple(term for column in each.indexed for term in _terms(column))
        if not wanted or any(index.serves(wanted) for index in known[table].found):
            if len(each.indexed) < len(each.columns):
                missing.append(_missing(each, ""))
            continue
        proposed = taken[table]
        if wanted not in proposed:  # several lists and fields may share an index
            name = _free_name(each, {*known[table].names, *proposed.values()})
            proposed[wanted] = name
        missing.append(_missing(each, _text(each, proposed[wanted])))
    return missing


def _missing(needed: Needed, python: str) -> MissingIndex:
    aggregates = any(column.is_nested for column in needed.columns)
    return MissingIndex(
        needed.read_model, needed.name, needed.entity.full_name, python, needed.is_field, aggregates
    )


def _terms(column: SortedColumn) -> list[IndexTerm]:
    sorting = column.sorting
    name = str(_own(column).name)
    if column.is_of_sqlite:
        ranks = [sqlite_term(name, sorting.nulls_first, is_rank=True)] if column.has_rank else []
        return [*ranks, sqlite_term(name, sorting.descending)]
    nulls_first = sorting.nulls_first if column.is_nullable else sorting.descending
    return [IndexTerm(name, sorting.descending, nulls_first, _collation(column))]


def _own(column: SortedColumn) -> sa.Column[object]:
    """Returns the column itself, without what is needed to compare it."""
    value = column.plain
    while not isinstance(value, sa.Column):
        value = value.left if isinstance(value, sa.BinaryExpression) else value.clause  # COLLATE, CAST
    return value


def _collation(column: SortedColumn) -> str | None:
    """Returns the collation that the index needs, None for the column's own. An enum is found, and not in order."""
    return None if isinstance(column.plain, sa.Column) else "C"


def _text(needed: Needed, name: str) -> str:
    model = in_python(needed.entity.model, needed.entity.table)
    terms = (term for column in needed.indexed for term in _term_texts(model, column))
    return f"Index({name!r}, {', '.join(terms)})".replace("'", '"')


def _term_texts(model: str, column: SortedColumn) -> Iterable[str]:
    sorting = column.sorting
    own = f"{model}.{sorting.name}"
    if column.has_rank:
        yield f"{own}.is_(None){'.desc()' if sorting.nulls_first else ''}"
    text = own if _collation(column) is None or column.is_of_sqlite else f'{own}.collate("C")'
    text += ".desc()" if sorting.descending else ""
    if column.is_nullable and not column.is_of_sqlite and sorting.nulls_first != sorting.descending:
        text += ".nulls_first()" if sorting.nulls_first else ".nulls_last()"
    yield text


def _free_name(needed: Needed, taken: set[str]) -> str:
    name = re.sub(r"\W+", "_", f"ix_{needed.entity.table.name}_{needed.name}", flags=re.ASCII)
    found, number = name[:_LONGEST_NAME], 2
    while found in taken:
        end = f"_{number}"
        found, number = name[: _LONGEST_NAME - len(end)] + end, number + 1
    return found
