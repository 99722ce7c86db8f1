"""Capture on SQLite: a trigger for each kind of change, to log the address of each changed row.

The triggers call no function of diptych and read no table of its processes: they run in every program that writes the
file. So they know nothing of commands, whose entries get their command afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diptych.log import KEY_FORMAT
from diptych.log.capture.table import (
    PREFIX,
    TOUCHED,
    CapturedColumn,
    CapturedTable,
    in_groups,
    literal,
    quoted,
)
from diptych.log.row_id import KeyPart, in_sqlite

_INSERT = (
    'INSERT INTO diptych_log (entity, table_name, "key", old_key, kind, version, command_id, recorded_at,'
    " row_id, old_row_id)"
)


class UniqueColumn(NamedTuple):
    """A column of a unique index or key, with the collation of its comparisons there.

    Or an ``expression`` over columns, of which ``name`` is none.
    """

    name: str
    collation: str
    expression: str = ""
    columns: Sequence[str] = ()

    def is_same(self, there: str, other: str, operator: str = "=") -> str:
        """Returns the condition for a row of the table that is read, ``there``, to have the value of another row."""
        # As the index has it, collation and all: by other words the planner would not find the row by the index.
        one = f"({self.expression})" if self.expression else f"{there}.{quoted(self.name)}"
        return f"{one} COLLATE {quoted(self.collation)} {operator} {self._of(other)}"

    def _of(self, row: str) -> str:
        if not self.expression:
            return f"{row}.{quoted(self.name)}"
        columns = ", ".join(f"{row}.{quoted(name)} AS {quoted(name)}" for name in self.columns)
        return f"(SELECT {self.expression} FROM (SELECT {columns}))"  # noqa: S608


class UniqueSet(NamedTuple):
    """Columns of which no two rows have the same values; with a ``condition``, no two rows that fulfil it."""

    columns: Sequence[UniqueColumn]
    condition: str = ""

    def is_in_the_way(self, there: str) -> str:
        """Returns the condition for a row of the table that is read to have the values of the new row.

        Whether the new row fulfils the ``condition`` is left out: its values are not final yet, such as those of a
        primary key that SQLite numbers. Of each set one row at most is logged without need.
        """
        same = [column.is_same(there, "NEW") for column in self.columns]
        return " AND ".join([*same, f"({self.condition})"] if self.condition else same)


_PART = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \[[^\]]*\] | `[^`]*` | --[^\n]* | /\*.*?\*/ | [(),] | [^'"\[`(),/-]+ | .""",
    re.VERBOSE | re.DOTALL,
)


def parts_of(index: str) -> tuple[list[str], str]:
    """Returns the terms of an index and its condition, if any, from the text of its ``CREATE INDEX``."""
    terms, rest, depth = [""], None, 0
    for found in _PART.findall(index):
        part = " " if found.startswith(("--", "/*")) else found
        depth -= part == ")"
        if rest is not None:
            rest += part
        elif depth == 0 and terms != [""]:
            rest = ""
        elif depth == 1 and part == ",":
            terms.append("")
        elif depth:
            terms[-1] += part
        depth += part == "("
    condition = re.sub(r"(?i)^\s*where\b", "", rest or "").strip()
    return [re.sub(r"(?i)\s+(asc|desc)\s*$", "", term).strip() for term in terms], condition


def unique_set(
    rows: Sequence[tuple[str | None, str]], index: str | None, columns: Sequence[str]
) -> UniqueSet:
    """Returns the set of an index: given are name and collation of each of its terms, and its statement."""
    terms, condition = parts_of(index or "")
    found = []
    for number, (name, collation) in enumerate(rows):
        expression = "" if name is not None else terms[number]
        words = set(re.findall(r"\w+", expression.lower()))
        used = [
            column for column in columns if expression and set(re.findall(r"\w+", column.lower())) <= words
        ]
        found.append(UniqueColumn(name or "", collation, expression, tuple(used)))
    return UniqueSet(tuple(found), condition)


def triggers(captured: CapturedTable, unique: Sequence[UniqueSet]) -> Mapping[str, str]:
    """Returns the statements to make the triggers of a table, by the triggers' names.

    ``unique`` are the unique sets of columns, the primary key first. ``INSERT OR REPLACE`` deletes a row in the way
    without a DELETE trigger, unless the connection has ``recursive_triggers``: that row is logged before, as touched.
    With ``OR IGNORE`` that is a false alarm, and harmless, since the row is read again.
    """
    table = quoted(captured.table)
    # Conditions of indexes may name the table; a table called NEW or OLD would hide the row of the trigger.
    there = "there" if captured.table.lower() in ("new", "old") else table
    new, old = _key_of("NEW", captured.columns), _key_of("OLD", captured.columns)
    in_the_way = " OR ".join(f"({each.is_in_the_way(there)})" for each in unique)
    there_key, there_id = _key_of(there, captured.columns), _row_id_of(there, captured)
    new_id, old_id = _row_id_of("NEW", captured), _row_id_of("OLD", captured)
    source = f"FROM {table} AS {there} WHERE"
    touched = f"{_INSERT} SELECT {_values(captured, there_key, there_key, TOUCHED, there_id)} {source}"
    own = unique[0].columns if unique and not unique[0].condition else ()
    same = " AND ".join(column.is_same(there, "OLD", "IS") for column in own) or "0"
    bodies = {
        "i": ("AFTER INSERT", _insert(captured, new, "NULL", "created", new_id)),
        "u": ("AFTER UPDATE", _insert(captured, new, old, "updated", new_id, f"nullif({old_id}, {new_id})")),
        "d": ("AFTER DELETE", _insert(captured, old, old, "deleted", old_id)),
    }
    if unique:
        bodies["bi"] = ("BEFORE INSERT", f"{touched} ({in_the_way})")
        bodies["bu"] = ("BEFORE UPDATE", f"{touched} NOT ({same}) AND ({in_the_way})")
    return {
        (name := f"{captured.object_name}_{suffix}"): (
            f"CREATE TRIGGER {quoted(name)} {when} ON {table} BEGIN {body}; END"
        )
        for suffix, (when, body) in bodies.items()
    }


def is_ours(trigger: str) -> bool:
    """Returns whether a trigger of this name belongs to capture."""
    return trigger.startswith(f"{PREFIX}_")


def _insert(
    captured: CapturedTable, key: str, old_key: str, kind: str, row_id: str, old_row_id: str = "NULL"
) -> str:
    return f"{_INSERT} VALUES ({_values(captured, key, old_key, kind, row_id, old_row_id)})"


def _values(
    captured: CapturedTable, key: str, old_key: str, kind: str, row_id: str, old_row_id: str = "NULL"
) -> str:
    return (
        f"{literal(captured.entity)}, {literal(captured.name)}, {key}, {old_key}, '{kind}', {KEY_FORMAT}, '',"
        f" strftime('%Y-%m-%d %H:%M:%f000', 'now'), {row_id}, {old_row_id}"
    )


def _key_of(row: str, columns: Sequence[CapturedColumn]) -> str:
    # JSON has no bytes, and json_object fails for them: a key of another type than its column's is null.
    objects = []
    for group in in_groups(columns):
        pairs = (f"{literal(column.attribute)}, {_value(row, column.name)}" for column in group)
        objects.append(f"json_object({', '.join(pairs)})")
    if len(objects) == 1:
        return objects[0]
    # Their values are no objects: nothing but the braces around is taken away.
    return "('{' || " + " || ',' || ".join(f"trim({each}, '{{}}')" for each in objects) + " || '}')"


def _row_id_of(row: str, captured: CapturedTable) -> str:
    return in_sqlite([KeyPart(_value(row, name), kind) for name, kind in captured.row_id])


def _value(row: str, column: str) -> str:
    value = f"{row}.{quoted(column)}"
    return f"CASE typeof({value}) WHEN 'blob' THEN NULL WHEN 'real' THEN printf('%!.17g', {value}) ELSE {value} END"
