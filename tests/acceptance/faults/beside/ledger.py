"""The ledger: every change of an open item or owner, whoever has made it, in the order of the commits of each row.

diptych's log has no values of changes by others. So triggers of the application's own write the values down, in the
same transaction and under the lock of the row. Each transaction of more than one statement signs first: it writes the
number of its write into ``signatures``. A value that was changed is that number itself.
"""

from __future__ import annotations

import sqlalchemy as sa

from tests.acceptance.faults.history import MARKS, OPEN_ITEM, OPEN_OWNER, LogRow
from tests.acceptance.faults.models import Base, OpenMark

_TABLES = {OPEN_ITEM: ("open_items", "key", "value"), OPEN_OWNER: ("open_owners", "id", "name")}
"""By entity: its table, its column of keys, and that of values."""

_COLUMNS = "entity, kind, old_key, key, value, owner_id, write"

_MARKS = (
    "INSERT INTO open_item_marks (item_id, mark_id) SELECT NEW.id, id FROM open_marks "
    "WHERE number IN (NEW.value % 3, 3 + NEW.owner_id % 2)",
    "DELETE FROM open_item_marks WHERE item_id = OLD.id",
)
"""What gives an item its marks (see ``history.marks_of``), and what takes them."""

_ON_POSTGRESQL = (
    "CREATE TABLE signatures (id bigserial PRIMARY KEY, write bigint NOT NULL, "
    "transaction xid8 NOT NULL DEFAULT pg_current_xact_id())",
    "CREATE INDEX ON signatures (transaction)",
    "CREATE TABLE ledger (position bigserial PRIMARY KEY, entity text, kind text, old_key text, key text, "
    "value text, owner_id bigint, write bigint)",
    f"""
    CREATE FUNCTION enter_in_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        key_column text := TG_ARGV[1]; value_column text := TG_ARGV[2];
        was jsonb := CASE TG_OP WHEN 'INSERT' THEN NULL ELSE to_jsonb(OLD) END;
        becomes jsonb := CASE TG_OP WHEN 'DELETE' THEN NULL ELSE to_jsonb(NEW) END;
        shown jsonb := coalesce(becomes, was);
    BEGIN
        INSERT INTO ledger ({_COLUMNS}) VALUES (
            TG_ARGV[0],
            CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END,
            was->>key_column, shown->>key_column, shown->>value_column, (shown->>'owner_id')::bigint,
            CASE WHEN becomes->>value_column IS DISTINCT FROM was->>value_column AND becomes IS NOT NULL
                THEN (becomes->>value_column)::bigint
                ELSE (SELECT write FROM signatures WHERE transaction = pg_current_xact_id() ORDER BY id DESC LIMIT 1)
            END
        );
        RETURN NULL;
    END $$
    """,
    *(
        f"CREATE TRIGGER ledger AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW "
        f"EXECUTE FUNCTION enter_in_ledger('{entity}', '{key}', '{value}')"
        for entity, (table, key, value) in _TABLES.items()
    ),
    f"""
    CREATE FUNCTION enter_truncation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO ledger ({_COLUMNS}) SELECT '{OPEN_ITEM}', 'deleted', key, key, value, owner_id,
            (SELECT write FROM signatures WHERE transaction = pg_current_xact_id() ORDER BY id DESC LIMIT 1)
        FROM open_items;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER ledger_truncate BEFORE TRUNCATE ON open_items "
    "FOR EACH STATEMENT EXECUTE FUNCTION enter_truncation()",
    """
    CREATE FUNCTION name_owner() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE open_owners SET name = NEW.value WHERE id = NEW.owner_id;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER name_owner AFTER UPDATE OF value ON open_items "
    "FOR EACH ROW WHEN (NEW.value % 7 = 0) EXECUTE FUNCTION name_owner()",
    f"""
    CREATE FUNCTION mark_item() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN {_MARKS[1]}; END IF;
        IF TG_OP <> 'DELETE' THEN {_MARKS[0]}; END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER mark_item AFTER INSERT OR DELETE OR UPDATE OF value, owner_id ON open_items "
    "FOR EACH ROW EXECUTE FUNCTION mark_item()",
)


def _on_sqlite(entity: str, table: str, key: str, value: str) -> list[str]:
    owner = {True: "{row}.owner_id", False: "NULL"}[entity == OPEN_ITEM]
    signed = "(SELECT write FROM signatures ORDER BY id DESC LIMIT 1)"
    of_value = f"CAST(NEW.{value} AS INTEGER)"

    def trigger(event: str, kind: str, old_key: str, row: str, write: str) -> str:
        values = (
            f"'{entity}', '{kind}', {old_key}, {row}.{key}, {row}.{value}, {owner.format(row=row)}, {write}"
        )
        return (
            f"CREATE TRIGGER ledger_{table}_{kind} AFTER {event} ON {table} "
            f"BEGIN INSERT INTO ledger ({_COLUMNS}) VALUES ({values}); END"
        )

    changed = f"CASE WHEN NEW.{value} <> OLD.{value} THEN {of_value} ELSE {signed} END"
    return [
        trigger("INSERT", "created", "NULL", "NEW", of_value),
        trigger("UPDATE", "updated", f"OLD.{key}", "NEW", changed),
        trigger("DELETE", "deleted", f"OLD.{key}", "OLD", signed),
    ]


_ON_SQLITE = (
    "CREATE TABLE signatures (id INTEGER PRIMARY KEY AUTOINCREMENT, write INTEGER NOT NULL)",
    "CREATE TABLE ledger (position INTEGER PRIMARY KEY AUTOINCREMENT, entity TEXT, kind TEXT, old_key TEXT, "
    "key TEXT, value TEXT, owner_id INTEGER, write INTEGER)",
    *(statement for entity, columns in _TABLES.items() for statement in _on_sqlite(entity, *columns)),
    "CREATE TRIGGER name_owner AFTER UPDATE OF value ON open_items WHEN NEW.value % 7 = 0 "
    "BEGIN UPDATE open_owners SET name = CAST(NEW.value AS TEXT) WHERE id = NEW.owner_id; END",
    f"CREATE TRIGGER mark_new AFTER INSERT ON open_items BEGIN {_MARKS[0]}; END",
    "CREATE TRIGGER mark_changed AFTER UPDATE OF value, owner_id ON open_items "
    f"BEGIN {_MARKS[1]}; {_MARKS[0]}; END",
    f"CREATE TRIGGER unmark AFTER DELETE ON open_items BEGIN {_MARKS[1]}; END",
)


def open_ledger(engine: sa.Engine) -> None:
    """Makes the tables, and all that writes the ledger of open items and owners."""
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        marks = [{"id": number + 1, "number": number} for number in range(MARKS)]
        connection.execute(sa.insert(OpenMark), marks)
        for statement in _ON_SQLITE if engine.dialect.name == "sqlite" else _ON_POSTGRESQL:
            connection.execute(sa.text(statement))


def read_ledger(engine: sa.Engine) -> list[LogRow]:
    """The ledger as it is now, in its order."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text(f"SELECT position, {_COLUMNS} FROM ledger ORDER BY position"))
        return [_log_row(*row) for row in rows]


def _log_row(
    position: int,
    entity: str,
    kind: str,
    old_key: str | None,
    key: str,
    value: str,
    owner_id: int | None,
    write: int | None,
) -> LogRow:
    shown = int(value) if entity == OPEN_ITEM else value
    return LogRow(position, entity, kind, old_key, key, shown, owner_id, write or 0)
