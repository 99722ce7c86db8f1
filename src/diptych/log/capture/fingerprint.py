"""Fingerprints of captured tables: an unchanged fingerprint proves every change logged.

A fingerprint is of the database's catalogue alone. Its ``triggers`` change when a trigger was disabled or dropped,
perhaps for a moment, the table was replaced, or a partition was attached. Its ``columns`` change when a column was
renamed, dropped, or made anew: no trigger fires then, though every row has other values. Its ``types`` are those of
PostgreSQL's columns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log.capture.table import FORMAT, CapturedColumn, CapturedTable, quoted

_SELECTS = {
    # Descendants are partitions, and tables that inherit: triggers of the parent do not fire for these. The labels of
    # an enum may be renamed, and attributes of a composite type be altered, which writes no row either: those of a
    # column's type, and of types within it, of elements, bounds and attributes, and the one under a domain. What
    # PostgreSQL brings itself has lower numbers. PostgreSQL 13 has neither multiranges nor the column for them.
    "postgresql": """
        WITH RECURSIVE given (table_name, id) AS (
            SELECT name, CAST(to_regclass(relation) AS oid)
            FROM unnest(CAST(:names AS text[]), CAST(:relations AS text[])) AS captured (name, relation)
        ), descendant (table_name, id) AS (
            SELECT table_name, id FROM given
          UNION ALL
            SELECT table_name, inhrelid FROM descendant JOIN pg_inherits ON inhparent = id
        )
        SELECT table_name, CAST(json_build_object(
            'triggers', string_agg(concat_ws('.', class.oid, class.relfilenode, (
                SELECT string_agg(
                    concat_ws('.', tg.oid, tg.xmin, tg.tgenabled, function.oid, function.xmin), '+' ORDER BY tg.oid)
                FROM pg_trigger AS tg JOIN pg_proc AS function ON function.oid = tg.tgfoid
                WHERE tg.tgrelid = class.oid AND tg.tgname IN ('diptych_capture', 'diptych_capture_truncate')
            )), ' ' ORDER BY class.oid),
            'rows', (
                SELECT json_object_agg(tgrelid, concat_ws('.', function.oid, function.xmin))
                FROM descendant AS its JOIN pg_trigger ON tgrelid = its.id
                JOIN pg_proc AS function ON function.oid = tgfoid
                WHERE its.table_name = descendant.table_name AND tgname = 'diptych_capture' AND tgenabled = 'A'
                    AND NOT EXISTS (
                        SELECT 1 FROM given JOIN pg_class AS whole ON whole.oid = given.id
                        WHERE given.table_name = descendant.table_name AND pg_has_role(relowner, 'USAGE')
                    )
            ),
            'columns', (
                SELECT json_object_agg(attname, concat_ws('.', attnum, attribute.xmin,
                CASE WHEN atttypid >= 16384 THEN (
                    WITH RECURSIVE made_of (id) AS (
                        SELECT atttypid
                      UNION
                        SELECT part.id FROM made_of JOIN pg_type AS type ON type.oid = made_of.id CROSS JOIN LATERAL (
                            VALUES (typelem), (typbasetype)
                          UNION ALL
                            SELECT rngsubtype FROM pg_range AS range
                            WHERE type.oid IN (rngtypid, CAST(to_jsonb(range) ->> 'rngmultitypid' AS oid))
                          UNION ALL
                            SELECT atttypid FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0
                        ) AS part (id) WHERE part.id >= 16384
                    )
                    SELECT nullif(concat_ws('.', (
                        SELECT string_agg(CAST(label.xmin AS text), '+' ORDER BY label.oid)
                        FROM pg_enum AS label WHERE enumtypid IN (SELECT id FROM made_of)
                    ), (
                        SELECT string_agg(CAST(part.xmin AS text), '+' ORDER BY attrelid, part.attnum)
                        FROM pg_attribute AS part JOIN pg_type AS type ON attrelid = typrelid
                        WHERE type.oid IN (SELECT id FROM made_of) AND part.attnum > 0
                    )), '')
                ) END) ORDER BY attnum)
                FROM given JOIN pg_attribute AS attribute ON attrelid = given.id
                WHERE given.table_name = descendant.table_name AND attnum > 0 AND NOT attisdropped
            ),
            'types', (
                SELECT json_object_agg(attname, CAST(atttypid AS text))
                FROM given JOIN pg_attribute ON attrelid = given.id
                WHERE given.table_name = descendant.table_name AND attnum > 0 AND NOT attisdropped
            )) AS text) AS fingerprint
        FROM descendant JOIN pg_class AS class ON class.oid = id GROUP BY table_name
    """,
    # ANALYZE and VACUUM change the number too, and a needless build follows: a trigger that was dropped for a moment
    # leaves no other trace.
    "sqlite": """
        SELECT "key" AS table_name, json_object(
            'triggers', CAST(schema_version AS TEXT),
            'columns', (SELECT json_group_object(name, CAST(cid AS TEXT)) FROM pragma_table_xinfo(value, 'main'))
        ) AS fingerprint
        FROM json_each(:tables), pragma_schema_version
    """,
}
_FINGERPRINTS = {database: sa.text(select) for database, select in _SELECTS.items()}
_LOOK = """
    SELECT present.table_name, present.fingerprint, noted.columns, noted.fingerprint AS stored, noted.format
    FROM ({}) AS present LEFT JOIN diptych_capture AS noted ON noted.table_name = present.table_name
"""
_LOOKS = {database: sa.text(_LOOK.format(select)) for database, select in _SELECTS.items()}


class Fingerprint(msgspec.Struct):
    """A fingerprint read: of the triggers, and of each column and its type by its name.

    ``rows`` are the functions of the row triggers that fire always, by the numbers of table and partitions; None if
    there is none, or the role owns the table and can make them anew.
    """

    triggers: str = ""
    columns: Mapping[str, str] = {}
    types: Mapping[str, str] = {}
    rows: Mapping[str, str] | None = None


_fingerprint = msgspec.json.Decoder(Fingerprint).decode
_columns = msgspec.json.Decoder(list[CapturedColumn]).decode


class Look:
    """A captured table as it is now, and as at the time when its triggers were last known to be right.

    ``stored`` are the texts and the format of ``diptych_capture`` (None: never right), ``present`` is the present
    fingerprint.
    """

    def __init__(
        self, database: str, captured: CapturedTable, stored: tuple[str, str, int] | None, present: str
    ) -> None:
        self.captured = captured
        self._stored = stored
        self._present = present
        self._read = _read_of_sqlite if database == "sqlite" else _read

    @property
    def is_right(self) -> bool:
        """True if the triggers are known to have logged every change, and name all columns due.

        Columns that the mapping does not have may have changed: processes with another mapping look after these.
        """
        return self._is_of_now and self._names_enough and self._is_as_noted

    @property
    def has_gap(self) -> bool:
        """True if changes may have been made without an entry since the triggers were last known to be right."""
        return self._stored is not None and not self._is_as_noted

    @property
    def has_triggers(self) -> bool:
        """True if PostgreSQL's triggers are unchanged, though rows, partitions or columns have changed.

        So after TRUNCATE: the role of the application, which may do that, need not be allowed to make triggers. So
        after the owner has made a further partition: PostgreSQL has made its row trigger like that of the table. Not
        once a column that they name has another type: open sessions keep the plan for the former one until then.
        """
        if "." not in self._now.triggers or not (self._is_of_now and self._names_enough):
            return False
        types = ((self._now.types.get(name), self._then.types.get(name)) for _, name, *_ in self._named)
        are_there = all(now is not None and now == then for now, then in types)
        then, now, rows = _by_table(self._then), _by_table(self._now), self._now.rows or {}
        former = now.keys() & then.keys()
        are_alike = all(rows.get(each, "") in map(rows.get, former) for each in now.keys() - former)
        return are_there and are_alike and all(now[each] == then[each] for each in former)

    @property
    def contested(self) -> Sequence[tuple[CapturedColumn, CapturedColumn]]:
        """Columns whose attributes are other columns for those who made the triggers, with these; all are there."""
        others = {column.attribute: column for column in self._named if column.name in self._now.columns}
        pairs = ((own, others.get(own.attribute, own)) for own in self.captured.columns)
        return [
            (own, other) for own, other in pairs if own.name != other.name and own.name in self._now.columns
        ]

    @cached_property
    def to_be_named(self) -> CapturedTable:
        """The table with the columns to be named by its triggers, as far as the columns exist.

        A trigger that names a column which a migration has dropped would fail, and the application's write with it.
        Columns of other processes stay: versions of an application that run side by side map different ones.
        """
        named = {column.attribute: column for column in (*self._named, *self.captured.columns)}
        there = [column for column in named.values() if column.name in self._now.columns]
        has_row_id = all(name in self._now.columns for name, _ in self.captured.row_id)
        return self.captured._replace(columns=there, row_id=self.captured.row_id if has_row_id else ())

    @property
    def _is_of_now(self) -> bool:
        return self._stored is not None and self._stored[2] >= FORMAT

    @property
    def _is_as_noted(self) -> bool:
        """True if neither the triggers nor a mapped column are other than they were noted."""
        if self._stored is None or self._stored[1] == self._present:
            return self._stored is not None
        then, now = self._then, self._now
        return then.triggers == now.triggers and all(
            then.columns.get(name) == now.columns.get(name) for name in self.captured.mapped
        )

    @cached_property
    def _named(self) -> Sequence[CapturedColumn]:
        return [] if self._stored is None else _columns(self._stored[0])

    @property
    def _names_enough(self) -> bool:
        own = (column for column in self.captured.columns if column.name in self._now.columns)
        return set(own) <= set(self._named)

    @cached_property
    def _then(self) -> Fingerprint:
        return Fingerprint() if self._stored is None else self._read(self._stored[1])

    @cached_property
    def _now(self) -> Fingerprint:
        return self._read(self._present)


class _NoCase(dict[str, str]):
    """Columns by their names, as SQLite compares these."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


def _read_of_sqlite(text: str) -> Fingerprint:
    found = _read(text)
    columns = _NoCase({name.lower(): column for name, column in found.columns.items()})
    return Fingerprint(found.triggers, columns)


def _read(text: str) -> Fingerprint:
    try:
        return _fingerprint(text)
    except msgspec.DecodeError:  # there is no such table, or another version of diptych has noted this
        return Fingerprint()


def _by_table(fingerprint: Fingerprint) -> Mapping[str, str]:
    """Returns the triggers' part of PostgreSQL's fingerprint, by the numbers of the table and its partitions."""
    parts = (table.split(".", 2) for table in fingerprint.triggers.split(" "))
    return {table: "".join(triggers) for table, _, *triggers in parts}


async def looks(
    connection: AsyncConnection, tables: Sequence[CapturedTable], *, is_new: bool = False
) -> list[Look]:
    """Returns a look at each of these tables; ``is_new`` is true while diptych has no tables of this version."""
    database = connection.dialect.name
    if is_new:
        present = await fingerprints(connection, tables)
        return [Look(database, captured, None, present.get(captured.name, "")) for captured in tables]
    rows = await connection.execute(_LOOKS[database], _values(database, tables))
    found = {row.table_name: row for row in rows}
    return [_look(database, captured, found.get(captured.name)) for captured in tables]


def _look(database: str, captured: CapturedTable, row: Any) -> Look:
    if row is None:
        return Look(database, captured, None, "")
    stored = None if row.stored is None else (row.columns, row.stored, row.format)
    return Look(database, captured, stored, row.fingerprint)


async def fingerprints(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> dict[str, str]:
    """Returns the present fingerprint of each existing table, by its name."""
    found = await connection.execute(*fingerprint_select(connection.dialect.name, tables))
    return {row.table_name: row.fingerprint for row in found}


def fingerprint_select(
    database: str, tables: Sequence[CapturedTable]
) -> tuple[sa.TextClause, dict[str, Any]]:
    """Returns the select of names and fingerprints of these tables, and its parameters."""
    return _FINGERPRINTS[database], _values(database, tables)


def _values(database: str, tables: Sequence[CapturedTable]) -> dict[str, Any]:
    if database == "sqlite":
        return {"tables": msgspec.json.encode({each.name: str(each.table) for each in tables}).decode()}
    names = [captured.name for captured in tables]
    return {"names": names, "relations": [relation_of(captured) for captured in tables]}


def relation_of(captured: CapturedTable) -> str:
    """Returns the name of the table in the form of PostgreSQL's ``to_regclass``."""
    table = quoted(captured.table)
    return table if captured.schema is None else f"{quoted(captured.schema)}.{table}"


def columns_text(columns: Collection[CapturedColumn]) -> str:
    """Returns the text in ``diptych_capture`` for the columns named by a table's triggers."""
    return msgspec.json.encode(columns).decode()
