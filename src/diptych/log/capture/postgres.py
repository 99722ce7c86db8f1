"""Capture on PostgreSQL: a row trigger to log the address of each changed row, a statement trigger for TRUNCATE.

The triggers log no image: a value in NEW may be changed again by a later trigger, lacks virtual columns, and has the
forms of the writer's session. Nothing in them can fail, since their failure would be that of the application's write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from diptych.log import KEY_FORMAT
from diptych.log.capture.table import (
    PREFIX,
    TOUCHED,
    CapturedColumn,
    CapturedTable,
    in_groups,
    quoted,
)
from diptych.log.capture.table import literal as plain_literal
from diptych.log.row_id import KeyPart, as_driver_gives, in_postgresql
from diptych.sql.entity import marker

ROW_TRIGGER = PREFIX
TRUNCATE_TRIGGER = f"{PREFIX}_truncate"

HINT_LOCK = (0x64697074, 1)
"""Advisory lock of the transaction that notifies: one at a time, since each NOTIFY takes a lock at its commit."""

HINT_CHANNEL = "diptych_capture"


def functions(captured: CapturedTable, log_schema: str, *, hints: bool) -> Sequence[str]:
    """Returns the statements to make, or replace, the functions of a table's triggers."""
    return [
        _function(
            _row_function(captured, log_schema), log_schema, _row_body(captured, log_schema, hints=hints)
        ),
        _function(_truncate_function(captured, log_schema), log_schema, _truncate_body(captured, log_schema)),
    ]


def install(
    captured: CapturedTable, log_schema: str, token: str, partitions: Sequence[str] = (), *, hints: bool
) -> Sequence[str]:
    """Returns the statements to make, or replace, the functions and triggers of a table.

    ``partitions`` are its partitions, and theirs, as they are written in SQL.
    """
    table = _table(captured)
    mark = marker(token, captured.name)
    own = f"left(current_query(), {len(mark)}) IS DISTINCT FROM {literal(mark)} OR pg_trigger_depth() > 0"
    return [
        *functions(captured, log_schema, hints=hints),
        f"DROP TRIGGER IF EXISTS {ROW_TRIGGER} ON {table}",
        f"CREATE TRIGGER {ROW_TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW"
        f" WHEN ({own}) EXECUTE FUNCTION {_row_function(captured, log_schema)}()",
        # Logical replication and session_replication_role fire no other triggers.
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {ROW_TRIGGER}",
        # PostgreSQL makes the triggers of rows on partitions too, and not those of statements.
        *(each for name in (table, *partitions) for each in _on_truncate(name, captured, log_schema)),
    ]


def _on_truncate(table: str, captured: CapturedTable, log_schema: str) -> Sequence[str]:
    return [
        f"DROP TRIGGER IF EXISTS {TRUNCATE_TRIGGER} ON {table}",
        f"CREATE TRIGGER {TRUNCATE_TRIGGER} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT"
        f" EXECUTE FUNCTION {_truncate_function(captured, log_schema)}()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {TRUNCATE_TRIGGER}",
    ]


def function_names(captured: CapturedTable) -> tuple[str, str]:
    """Returns the names of the functions of a table's triggers: for rows, and for TRUNCATE."""
    # No two tables may share a function, whatever their names: `a` and `a_t`, or those that are long and alike.
    digest = hashlib.sha256(captured.name.encode()).hexdigest()[:16]
    return captured.object_name, f"{PREFIX}_truncate_{digest}"


def _row_function(captured: CapturedTable, log_schema: str) -> str:
    return f"{quoted(log_schema)}.{quoted(function_names(captured)[0])}"


def _truncate_function(captured: CapturedTable, log_schema: str) -> str:
    return f"{quoted(log_schema)}.{quoted(function_names(captured)[1])}"


def _table(captured: CapturedTable) -> str:
    table = quoted(captured.table)
    return table if captured.schema is None else f"{quoted(captured.schema)}.{table}"


def _function(name: str, log_schema: str, body: str) -> str:
    # SECURITY DEFINER: a role that may write the table need not be able to write the log. The path is fixed, so that
    # nobody puts a function of his own in the place of one that is called here.
    quote = "$diptych$"
    while quote in body:
        quote = f"{quote[:-1]}_$"
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
        f" SET search_path = pg_catalog, {quoted(log_schema)}, pg_temp AS {quote}\n{body}\n{quote}"
    )


# Positions are taken only where a database was put elsewhere without its sequences, as logical replication does. The
# application's write must not fail by that; adoption, which is due then, has every read model built anew.
_OR_NOTHING = "ON CONFLICT (position) DO NOTHING"

_COLUMNS = (
    "entity, table_name, key, old_key, kind, version, command_id, correlation_id, actor, recorded_at,"
    " row_id, old_row_id"
)


def literal(text: str) -> str:
    """Returns a text as a constant, whatever ``standard_conforming_strings`` is where the function runs."""
    return "E" + plain_literal(text.replace("\\", "\\\\")) if "\\" in text else plain_literal(text)


_ALTERED = "syntax_error_or_access_rule_violation"
"""The class of errors after a migration has renamed, dropped or altered a column that a function names.

So undefined_column; and datatype_mismatch in every session that keeps a plan from before. The entry names no row
then, and the next pass finds that the functions have to be made anew, which takes the plans from the sessions.
"""

_COMMAND = "coalesce(current_setting('diptych.command', true), '')"


def _values(
    captured: CapturedTable,
    kind: str,
    key: str,
    old_key: str,
    row_id: str = "NULL",
    old_row_id: str = "NULL",
    command: str = _COMMAND,
) -> str:
    return (
        f"{literal(captured.entity)}, {literal(captured.name)}, {key}, {old_key}, {kind}, {KEY_FORMAT},"
        f" {command},"
        " nullif(current_setting('diptych.correlation', true), ''),"
        f" CASE {command} WHEN '' THEN session_user::text"
        " ELSE nullif(current_setting('diptych.actor', true), '') END, clock_timestamp(),"
        f" {row_id}, {old_row_id}"
    )


def _row_body(captured: CapturedTable, log_schema: str, *, hints: bool) -> str:
    old, new = _key_of("OLD", captured.columns), _key_of("NEW", captured.columns)
    old_id, new_id = _row_id_of("OLD", captured), _row_id_of("NEW", captured)
    kind = "CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END"
    names = ("row_key", "row_old_key", "its_id", "its_old_id", "by_command")
    first, second = HINT_LOCK
    # A transaction notifies once: a savepoint that is rolled back takes the note back together with the notification.
    hint = (
        "  IF by_command = '' AND coalesce(current_setting('diptych.has_notified', true), '') = ''"
        f" AND pg_try_advisory_xact_lock({first}, {second}) THEN\n"
        f"    PERFORM pg_notify({literal(HINT_CHANNEL)}, ''), set_config('diptych.has_notified', '1', true);\n"
        "  END IF;\n"
    )
    return (
        f"DECLARE\n  by_command text := {_COMMAND};\n"
        "  row_key text; row_old_key text; its_id text; its_old_id text;\nBEGIN\n  BEGIN\n"
        f"    row_key := CASE TG_OP WHEN 'DELETE' THEN {old} ELSE {new} END;\n"
        f"    row_old_key := CASE TG_OP WHEN 'INSERT' THEN NULL ELSE {old} END;\n"
        f"    its_id := CASE TG_OP WHEN 'DELETE' THEN {old_id} ELSE {new_id} END;\n"
        f"    its_old_id := CASE TG_OP WHEN 'UPDATE' THEN nullif({old_id}, {new_id}) END;\n"
        # Nothing is written in this block: it costs no transaction number.
        f"  EXCEPTION WHEN {_ALTERED} THEN\n"
        "    row_key := '{}'; row_old_key := '{}'; its_id := NULL; its_old_id := NULL;\n  END;\n"
        f"  {_insert(log_schema)}\n  VALUES ({_values(captured, kind, *names)}) {_OR_NOTHING};\n"
        f"{hint if hints else ''}  RETURN NULL;\nEND"
    )


def _truncate_body(captured: CapturedTable, log_schema: str) -> str:
    """Returns the body to log every row of the truncated table as touched: ``ONLY`` its own, partitions log theirs.

    ★ And an entry that names no row: TRUNCATE removes rows, too, that were committed after the snapshot of its
    transaction. Nobody can bring that entry in: who rests on it waits for a pass, which notices the table's new file.
    """
    key = _key_of("gone", captured.columns)
    values = _values(captured, literal(TOUCHED), key, key, _row_id_of("gone", captured))
    statement = f"{_insert(log_schema)} SELECT {values}".replace("%", "%%")
    source = f"' FROM ONLY %I.%I AS gone {_OR_NOTHING}', TG_TABLE_SCHEMA, TG_TABLE_NAME"
    of_any = f"{_insert(log_schema)}\n  VALUES ({_values(captured, literal(TOUCHED), literal('{}'), literal('{}'))})"
    return (
        f"BEGIN\n  {of_any} {_OR_NOTHING};\n"
        f"  BEGIN\n    EXECUTE format({literal(statement)} || {source});\n"
        f"  EXCEPTION WHEN {_ALTERED} THEN NULL;\n  END;\n  RETURN NULL;\nEND"
    )


def _insert(log_schema: str) -> str:
    return f"INSERT INTO {quoted(log_schema)}.diptych_log ({_COLUMNS})"


def _key_of(row: str, columns: Sequence[CapturedColumn]) -> str:
    objects = []
    for group in in_groups(columns):
        pairs = (f"{literal(column.attribute)}, {_value(row, column)}" for column in group)
        objects.append(f"json_build_object({', '.join(pairs)})::text")
    if len(objects) == 1:
        return objects[0]
    return "('{' || " + " || ', ' || ".join(f"left(substr({each}, 2), -1)" for each in objects) + " || '}')"


def _value(row: str, column: CapturedColumn) -> str:
    value = f"{row}.{quoted(column.name)}"
    return as_driver_gives(value) if column.is_date else value


def _row_id_of(row: str, captured: CapturedTable) -> str:
    return in_postgresql([KeyPart(f"{row}.{quoted(name)}", kind) for name, kind in captured.row_id])
