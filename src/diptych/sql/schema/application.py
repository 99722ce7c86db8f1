"""The tables of the application at the start: every mapped table has to be there, with its mapped columns."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Mapper

from diptych.errors import SchemaError
from diptych.sql.database import Database
from diptych.sql.mappings import resolve_mappings
from diptych.sql.schema.own import Role, role_of

_log = logging.getLogger("diptych.write")


class _Needed(NamedTuple):
    """A mapped table: its class, the names of its mapped columns, and whether documents are made from its rows."""

    table: sa.Table
    mapped_by: str
    columns: Collection[str]
    is_read: bool


class _Found(NamedTuple):
    """A table in the database: its columns, the columns that the role can't read, and the role's missing rights.

    ``kind`` is what it is if it is no table with rows of its own: a view.
    """

    schema: str
    is_at_hand: bool
    may_use_schema: bool = True
    columns: Collection[str] = ()
    unreadable: Collection[str] = ()
    refused: Collection[str] = ()
    kind: str = ""


def check_schemas(database: Database, metadata: sa.MetaData | None) -> None:
    """Raises ``SchemaError`` for tables whose mapping names a further file (schema) of an SQLite database."""
    tables = () if metadata is None or database.name != "sqlite" else metadata.tables.values()
    problems = [
        f"the table {table.fullname} is mapped to the schema {table.schema}: SQLite has no schemas but attached "
        "files, and diptych has one file. Leave the schema out on SQLite"
        for table in tables
        if table.schema not in (None, "main")
    ]
    if problems:
        raise SchemaError(problems)


async def check_tables(database: Database, mappers: Iterable[Mapper[Any]], read: Collection[type]) -> None:
    """Checks the mapped tables: each has to be there with all mapped columns, and the tables of ``read`` readable.

    ``read`` are the classes whose rows documents are made from. Rights to write these that the role lacks are logged
    as a warning: somebody else may write them. Raises ``SchemaError`` with everything that is missing, and
    ``WiringError`` for mappings that can't be resolved.
    """
    resolve_mappings()  # else the first look at a mapper's columns raises what SQLAlchemy says
    needed = [each for mapper in mappers for each in _needed(mapper, mapper.class_ in read)]
    async with database.reader.connect() as connection:
        role = await connection.run_sync(role_of)
        look = _in_postgresql if database.name == "postgresql" else _in_sqlite
        found = await look(connection, {each.table for each in needed})
    problems = [
        problem for each in needed for problem in _problems(each, found.get(each.table, ()), role, database)
    ]
    if problems:
        raise SchemaError(problems)


def _needed(mapper: Mapper[Any], is_read: bool) -> Iterable[_Needed]:
    columns: dict[sa.Table, list[str]] = {}
    for attribute in mapper.column_attrs:
        for column in attribute.columns:
            if isinstance(column, sa.Column) and isinstance(column.table, sa.Table):
                columns.setdefault(column.table, []).append(column.name)
    for table, names in columns.items():
        yield _Needed(table, mapper.class_.__name__, names, is_read)


def _problems(needed: _Needed, found: Collection[_Found], role: Role, database: Database) -> Iterable[str]:
    name, by = needed.table.fullname, needed.mapped_by
    there = next((each for each in found if each.is_at_hand or not each.may_use_schema), None)
    if there is None:
        where = f" for the role {role.name}" if role.name else ""
        yield f"the table {name} ({by}) is not there{where}, in {database.address}: " + (
            f"there is one in the schema {found[0].schema}: name the schema in the table's arguments "  # type: ignore[index]
            f'(__table_args__ = {{"schema": …}}), or in the search_path of the role'
            if found
            else "run the application's migrations first"
        )
    elif not there.may_use_schema:
        yield (
            f"the role {role.name} may not use the schema {there.schema} of the table {name} ({by}): let the "
            f'owner of the schema do `GRANT USAGE ON SCHEMA "{there.schema}" TO "{role.name}"`'
        )
    elif needed.is_read and there.kind:
        yield (
            f"{name} ({by}) is a {there.kind}, whose changes no trigger can log: make the documents from the tables "
            "behind it, with `joined` for values of other tables"
        )
    elif missing := [column for column in needed.columns if column not in there.columns]:
        yield (
            f"the table {name} has no column {', '.join(missing)}, which {by} maps: run the application's migrations "
            "first, or start the version of the application that fits the table"
        )
    elif needed.is_read:
        yield from _refused(needed, there, role)


def _refused(needed: _Needed, there: _Found, role: Role) -> Iterable[str]:
    name = needed.table.fullname
    unreadable = [column for column in needed.columns if column in there.unreadable]
    if unreadable:
        yield (
            f"the role {role.name} may not read {', '.join(unreadable)} of the table {name}: let its owner do "
            f'`GRANT SELECT ON {name} TO "{role.name}"`'
        )
    if there.refused:
        rights = ", ".join(there.refused)
        _log.warning(
            "the role %s may not do %s on the table %s: commands that do will fail; if there are any, let its "
            'owner do `GRANT %s ON %s TO "%s"`',
            *(role.name, rights, name, rights, name, role.name),
        )


_POSTGRESQL = sa.text("""
    SELECT nspname, relname, pg_table_is_visible(class.oid) AS is_visible,
        has_schema_privilege(space.oid, 'USAGE') AS may_use,
        ARRAY(SELECT CAST(attname AS text) FROM pg_attribute
            WHERE attrelid = class.oid AND NOT attisdropped) AS columns,
        ARRAY(SELECT CAST(attname AS text) FROM pg_attribute
            WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped
                AND NOT has_column_privilege(class.oid, attnum, 'SELECT')) AS unreadable,
        array_remove(ARRAY[
            CASE WHEN NOT has_any_column_privilege(class.oid, 'INSERT') THEN 'INSERT' END,
            CASE WHEN NOT has_any_column_privilege(class.oid, 'UPDATE') THEN 'UPDATE' END,
            CASE WHEN NOT has_table_privilege(class.oid, 'DELETE') THEN 'DELETE' END], NULL) AS refused,
        CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE '' END
            AS kind
    FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
    WHERE relname = ANY(CAST(:names AS name[])) AND relkind IN ('r', 'p', 'v', 'm', 'f')
    ORDER BY nspname
""")


async def _in_postgresql(
    connection: AsyncConnection, tables: Collection[sa.Table]
) -> Mapping[sa.Table, Collection[_Found]]:
    """Returns the tables of these names, in any schema; at hand is the one that statements would find."""
    rows = (await connection.execute(_POSTGRESQL, {"names": [table.name for table in tables]})).all()
    return {
        table: [
            _Found(
                row.nspname,
                row.is_visible if table.schema is None else row.nspname == table.schema,
                row.may_use,
                row.columns,
                row.unreadable,
                row.refused,
                row.kind,
            )
            for row in rows
            if row.relname == table.name
        ]
        for table in tables
    }


_SQLITE = sa.text("""
    SELECT CAST(given.key AS INTEGER), found.name, (SELECT CASE type WHEN 'view' THEN 'view' ELSE 'virtual table' END
        FROM sqlite_master AS made WHERE lower(made.name) = lower(json_extract(given.value, '$[0]'))
            AND (type = 'view' OR type = 'table' AND sql LIKE 'CREATE VIRTUAL%'))
    FROM json_each(:tables) AS given,
        pragma_table_xinfo(
            json_extract(given.value, '$[0]'), coalesce(json_extract(given.value, '$[1]'), 'main')) AS found
""")


class _NoCase(frozenset[str]):
    """Names of columns as SQLite compares them; every table has a row id under its names, too."""

    def __contains__(self, name: object) -> bool:
        lower = str(name).lower()
        return super().__contains__(lower) or lower in ("rowid", "oid", "_rowid_")


async def _in_sqlite(
    connection: AsyncConnection, tables: Collection[sa.Table]
) -> Mapping[sa.Table, Collection[_Found]]:
    numbered = list(tables)
    pairs = [(str(table.name), table.schema and str(table.schema)) for table in numbered]
    columns: dict[sa.Table, set[str]] = {}
    kinds: dict[sa.Table, str] = {}
    found_columns = await connection.execute(_SQLITE, {"tables": msgspec.json.encode(pairs).decode()})
    for number, column, kind in found_columns:
        columns.setdefault(numbered[number], set()).add(column.lower())
        kinds[numbered[number]] = kind or ""
    return {
        table: [_Found(table.schema or "main", True, columns=_NoCase(found), kind=kinds[table])]
        for table, found in columns.items()
    }
