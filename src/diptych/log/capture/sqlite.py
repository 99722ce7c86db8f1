"""Capture on SQLite: triggers for each kind of change, which log which row has changed.

The triggers call no function of diptych and read no table of its processes: they run in every program that writes the
file. So they know nothing of commands, whose entries get their command afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diptych.log import CAPTURE_FORMAT
from diptych.log.capture.table import (
    PREFIX,
    TOUCHED,
    CapturedColumn,
    CapturedTable,
    literal,
    quoted,
)

_INSERT = (
    'INSERT INTO diptych_log (entity, table_name, "key", old_key, kind, version, command_id, recorded_at)'
)


def triggers(captured: CapturedTable, unique: Sequence[Sequence[str]]) -> Mapping[str, str]:
    """Returns the statements that make the triggers of a table, by the triggers' names.

    ``unique`` are the sets of columns of which no two rows have the same values. ``INSERT OR REPLACE`` deletes such
    a row without a DELETE trigger, unless the connection has ``recursive_triggers``: the row in the way is logged
    before, as touched. With ``OR IGNORE`` that is a false alarm, and harmless, since the row is read again.
    """
    table = quoted(captured.table)
    new, old = _key_of("NEW", captured.columns), _key_of("OLD", captured.columns)
    in_the_way = " OR ".join(
        "(" + " AND ".join(f"there.{quoted(name)} = NEW.{quoted(name)}" for name in names) + ")"
        for names in unique
    )
    there = _key_of("there", captured.columns)
    source = f"FROM {table} AS there WHERE"
    touched = f"{_INSERT} SELECT {_values(captured, there, there, TOUCHED)} {source}"
    same = " AND ".join(f"there.{quoted(name)} IS OLD.{quoted(name)}" for name in unique[0]) if unique else ""
    bodies = {
        "i": ("AFTER INSERT", _insert(captured, new, "NULL", "created")),
        "u": ("AFTER UPDATE", _insert(captured, new, old, "updated")),
        "d": ("AFTER DELETE", _insert(captured, old, old, "deleted")),
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
    """Returns whether a trigger of this name is one of capture's."""
    return trigger.startswith(f"{PREFIX}_")


def _insert(captured: CapturedTable, key: str, old_key: str, kind: str) -> str:
    return f"{_INSERT} VALUES ({_values(captured, key, old_key, kind)})"


def _values(captured: CapturedTable, key: str, old_key: str, kind: str) -> str:
    return (
        f"{literal(captured.entity)}, {literal(captured.name)}, {key}, {old_key}, '{kind}', {CAPTURE_FORMAT}, '',"
        " strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    )


def _key_of(row: str, columns: Sequence[CapturedColumn]) -> str:
    # JSON has no bytes, and json_object fails for them: a key of another type than its column's is null.
    pairs = (
        f"{literal(column.attribute)}, CASE typeof({row}.{quoted(column.name)})"
        f" WHEN 'blob' THEN NULL WHEN 'real' THEN printf('%!.17g', {row}.{quoted(column.name)})"
        f" ELSE {row}.{quoted(column.name)} END"
        for column in columns
    )
    return f"json_object({', '.join(pairs)})"
