"""The indexes of a table, as the catalogue of the database has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


class IndexTerm(NamedTuple):
    """A term of an index: a column, or its ``is_rank``, whether it is null.

    ``collation`` orders text, None if that is the column's own. On SQLite, which has nulls below all values and knows
    nothing else, ``nulls_first`` is as in PostgreSQL by itself: true in descending order.
    """

    column: str
    descending: bool = False
    nulls_first: bool = False
    collation: str | None = None
    is_rank: bool = False

    def turned(self) -> IndexTerm:
        """Returns the term as it is in the index read backwards."""
        return self._replace(descending=not self.descending, nulls_first=not self.nulls_first)


class FoundIndex(NamedTuple):
    """An index that has all rows of its table in order; the terms end before one that is no column."""

    name: str
    terms: tuple[IndexTerm, ...]

    def serves(self, wanted: tuple[IndexTerm, ...]) -> bool:
        """Returns whether the index has the rows in this order, or in the opposite one."""
        there = self.terms[: len(wanted)]
        return there == wanted or tuple(term.turned() for term in there) == wanted


class TableIndexes(NamedTuple):
    """The indexes of a table that have all of its rows in order, and the names of all its indexes."""

    found: tuple[FoundIndex, ...]
    names: frozenset[str]


async def indexes_of(connection: AsyncConnection, table: sa.Table) -> TableIndexes:
    """Returns the indexes of this table; none if there is no such table."""
    if connection.dialect.name == "postgresql":
        return await _of_postgresql(connection, table)
    return await _of_sqlite(connection, table)


# Bits of indoption: 1 is descending, 2 is nulls first.
_POSTGRESQL = sa.text("""
    SELECT relname AS name, CAST(attname AS text) AS column_name, option & 1 > 0 AS descending,
        option & 2 > 0 AS nulls_first,
        CASE WHEN collation_id <> attcollation THEN CAST(collname AS text) END AS collation,
        amname = 'btree' AND indisvalid AND indpred IS NULL AND opcdefault AS is_usable
    FROM pg_index JOIN pg_class AS class ON class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
        CROSS JOIN LATERAL unnest(
            CAST(indkey AS smallint[]), CAST(indoption AS smallint[]), CAST(indcollation AS oid[]),
            CAST(indclass AS oid[])
        ) WITH ORDINALITY AS term (number, option, collation_id, class_id, place)
        JOIN pg_opclass ON pg_opclass.oid = class_id
        LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number AND number > 0
        LEFT JOIN pg_collation ON pg_collation.oid = collation_id
    WHERE indrelid = to_regclass(:table_name) AND place <= indnkeyatts
    ORDER BY relname, place
""")


async def _of_postgresql(connection: AsyncConnection, table: sa.Table) -> TableIndexes:
    name = connection.dialect.identifier_preparer.format_table(table)
    rows = (await connection.execute(_POSTGRESQL, {"table_name": name})).all()
    terms: dict[str, list[IndexTerm | None]] = {}
    for row in rows:
        term = IndexTerm(str(row.column_name), row.descending, row.nulls_first, row.collation)
        is_known = row.is_usable and row.column_name is not None
        terms.setdefault(row.name, []).append(term if is_known else None)
    return TableIndexes(tuple(_found(terms)), frozenset(terms))


def _found(terms: Mapping[str, Iterable[IndexTerm | None]]) -> Iterator[FoundIndex]:
    for name, of_index in terms.items():
        known: list[IndexTerm] = []
        for term in of_index:
            if term is None:
                break
            known.append(term)
        yield FoundIndex(name, tuple(known))


# With what SQLite adds to each index, so that it tells rows apart: their number, or the primary key.
_SQLITE = sa.text("""
    SELECT i.name, c.cid, c.name AS column_name, c."desc" AS descending, c.coll AS collation, s.sql,
        i.partial OR c.coll <> 'BINARY' AS is_unusable
    FROM pragma_index_list(:table_name, :schema) AS i, pragma_index_xinfo(i.name, :schema) AS c
        LEFT JOIN sqlite_master AS s ON s.type = 'index' AND s.name = i.name
    ORDER BY i.name, c.seqno
""")
_SQLITE_ROW_NUMBER = sa.text("""
    SELECT name FROM pragma_table_info(:table_name, :schema) AS own
    WHERE pk = 1 AND upper(type) = 'INTEGER'
        AND NOT EXISTS (SELECT 1 FROM pragma_table_info(:table_name, :schema) WHERE pk > 1)
        AND NOT EXISTS (SELECT 1 FROM pragma_index_list(:table_name, :schema) WHERE origin = 'pk')
""")
_ROW_NUMBER, _EXPRESSION = -1, -2


async def _of_sqlite(connection: AsyncConnection, table: sa.Table) -> TableIndexes:
    """Reads the indexes. The row's number, which SQLite has an INTEGER PRIMARY KEY for, is an index by itself."""
    values = {"table_name": table.name, "schema": table.schema or "main"}
    numbers = (await connection.execute(_SQLITE_ROW_NUMBER, values)).scalars().all()
    mapped = {str(column.name).lower(): str(column.name) for column in table.columns}
    terms: dict[str, list[IndexTerm | None]] = {}
    for row in (await connection.execute(_SQLITE, values)).all():
        of_index = terms.setdefault(row.name, [])
        name, is_rank = row.column_name, False
        if row.cid == _ROW_NUMBER:
            name = next(iter(numbers), None)
        elif row.cid == _EXPRESSION:
            name, is_rank = _ranked_column(row.sql, len(of_index)), True
        column = mapped.get((name or "").lower())
        is_known = column is not None and not row.is_unusable
        descending = bool(row.descending)
        of_index.append(sqlite_term(column or "", descending, is_rank=is_rank) if is_known else None)
    own = [FoundIndex("", (sqlite_term(mapped.get(name.lower(), name)),)) for name in numbers]
    return TableIndexes((*own, *_found(terms)), frozenset(terms))


def sqlite_term(column: str, descending: bool = False, *, is_rank: bool = False) -> IndexTerm:
    """Returns a term of an index of SQLite."""
    return IndexTerm(column, descending, descending, is_rank=is_rank)


_RANK = re.compile(
    r"""\(*\s*["`\[]?(?P<name>[^"`\]()]+?)["`\]]?\s+(IS\s+NULL|ISNULL)\s*\)*\s*(ASC|DESC)?""", re.IGNORECASE
)


def _ranked_column(sql: str | None, number: int) -> str | None:
    """Returns the column whose being null is this term of an index; None for another expression."""
    terms = _terms_in(sql or "")
    matched = _RANK.fullmatch(terms[number].strip()) if number < len(terms) else None
    return matched["name"] if matched else None


def _terms_in(sql: str) -> list[str]:
    """Returns the terms in the text of a ``CREATE INDEX``, of which the catalogue does not tell the expressions."""
    terms, depth, quote = [""], 0, ""
    for character in sql[_start_of_terms(sql) :]:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'`[":
            quote = "]" if character == "[" else character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                break
        elif character == "," and depth == 0:
            terms.append("")
            continue
        terms[-1] += character
    return terms


def _start_of_terms(sql: str) -> int:
    """Returns the place behind the parenthesis that opens the terms: names of index and table come before it."""
    quoted = re.match(r"""(?:"[^"]*"|`[^`]*`|\[[^\]]*\]|[^"`\[(])*\(""", sql)
    return quoted.end() if quoted else len(sql)
