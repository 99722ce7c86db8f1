"""diptych's own tables: made and upgraded by migrations, printed as a script, or dropped.

A role that may do none of this can start all the same where everything is there already: the start then checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from diptych.errors import SchemaError, SchemaVersionError
from diptych.sql.database import Database
from diptych.sql.failures import is_denied, words_of

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "diptych_version"

_ALL = "SELECT, INSERT, UPDATE, DELETE"

OWN_TABLES: Mapping[str, str] = {
    VERSION_TABLE: "SELECT",
    "diptych_log": _ALL,
    "diptych_fence": _ALL,
    "diptych_history": "SELECT, UPDATE",
    "diptych_capture": _ALL,
}
"""diptych's own tables, each with the rights on it that an application needs."""

_MIGRATIONS = Path(__file__).parent.parent / "migrations"
_ALEMBIC = threading.Lock()

_log = logging.getLogger("diptych.write")


async def prepare_schema(database: Database, metadata: sa.MetaData | None) -> None:
    """Upgrades diptych's tables, then creates the missing tables of ``metadata``, in a single transaction.

    Raises ``SchemaVersionError``, and changes nothing, if a newer diptych has upgraded them already; ``SchemaError``
    where the role of ``DATABASE_URL`` may not do what is needed.
    """
    async with alembic_alone(), database.begin() as connection:
        await database.lock_schema(connection)  # several processes may start at once
        await connection.run_sync(upgrade)
        if metadata is not None:
            await connection.run_sync(_create, metadata)


@contextlib.asynccontextmanager
async def alembic_alone() -> AsyncIterator[None]:
    """Keeps other upgrades of this process out: Alembic's globals would mix up the databases of two upgrades."""
    # No lock of asyncio: the other upgrade may run in another thread, with an event loop of its own.
    while not _ALEMBIC.acquire(blocking=False):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _ALEMBIC.release()


def upgrade(connection: sa.Connection) -> str | None:
    """Brings diptych's tables to the present version. Returns the version before; None without any."""
    role = role_of(connection)
    if missing := _missing_rights(connection, role):
        raise SchemaError(missing)
    found = _version(connection)
    if found == _head():
        return found
    from alembic import command

    # The settings of Alembic's environment are of the whole process.
    try:
        with _without_lines_of_alembic():
            command.upgrade(_config(connection), "head")
    except DBAPIError as error:
        if not is_denied(error):
            raise
        what = "are not there" if found is None else f"have version {found}, and not {_head()}"
        raise SchemaError(
            [
                f"diptych's own tables ({', '.join(OWN_TABLES)}) {what}, and the role {role.name} may not make "
                f"or alter tables in the schema {role.schema or '(none of its search_path)'}: run `diptych migrate` "
                "as the owner of the tables, or what `diptych migrate --sql` prints"
            ]
        ) from error
    _log.info("diptych's own tables are at version %s (before: %s)", _head(), found or "none")
    return found


@contextlib.contextmanager
def _without_lines_of_alembic() -> Iterator[None]:
    """Keeps Alembic from telling, in this thread, of versions that look like the application's own."""
    thread, logger = threading.get_ident(), logging.getLogger("alembic.runtime.migration")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno > logging.INFO

    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)


def upgrade_script(connection: sa.Connection) -> tuple[str, str]:
    """Returns the statements that bring diptych's tables to the present version, and the database's token."""
    if missing := _missing_rights(connection, role_of(connection), "SELECT"):
        raise SchemaError(missing)
    found, token = _version(connection), _token(connection)
    if found == _head() and token is not None:
        return "", token
    from alembic import command

    config = _config(connection)
    token = token or config.attributes["token"]
    config.output_buffer = io.StringIO()
    config.attributes["dialect"] = connection.dialect.name
    del config.attributes["connection"]
    command.upgrade(config, "head" if found is None else f"{found}:head", sql=True)
    return config.output_buffer.getvalue(), token


def drop_statements() -> Sequence[str]:
    """Returns the statements that take diptych's tables away."""
    return [f"DROP TABLE IF EXISTS {name}" for name in OWN_TABLES]


def grant_statements(database: str, role: str) -> Sequence[str]:
    """Returns the statements that give a role of PostgreSQL the rights which an application needs."""
    if database != "postgresql":
        return []
    to = '"' + role.replace('"', '""') + '"'
    return [
        *(f"GRANT {rights} ON {name} TO {to}" for name, rights in OWN_TABLES.items()),
        f"GRANT SELECT, UPDATE ON SEQUENCE diptych_log_position_seq TO {to}",
    ]


def _create(connection: sa.Connection, metadata: sa.MetaData) -> None:
    role = role_of(connection)
    try:
        metadata.create_all(connection)
    except DBAPIError as error:
        if not is_denied(error):
            raise
        statement = " ".join((error.statement or "").split())
        raise SchemaError(
            [
                f"the role {role.name} may not do `{statement.partition(' (')[0]}` ({words_of(error)}): run the "
                "application's migrations first, and start with CREATE_TABLES=false; or let the schema's owner do "
                f'`GRANT CREATE ON SCHEMA "{role.schema or "public"}" TO "{role.name}"`'
            ]
        ) from error


# The role


class Role:
    """The role of a connection: its name, and the schema in which it makes tables (None: none); on SQLite both ""."""

    def __init__(self, name: str, schema: str | None) -> None:
        self.name = name
        self.schema = schema


def role_of(connection: sa.Connection) -> Role:
    """Returns the role of a connection."""
    if connection.dialect.name != "postgresql":
        return Role("", "")
    return Role(*connection.execute(sa.text("SELECT current_user, current_schema()")).one())


def _missing_rights(connection: sa.Connection, role: Role, only: str = _ALL) -> list[str]:
    """Returns what the role may not do with diptych's tables, as far as these are there, of the rights ``only``."""
    if connection.dialect.name != "postgresql":
        return []
    rights = sa.text(
        "SELECT name FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[])) AS own (name, rights) "
        "WHERE to_regclass(name) IS NOT NULL AND EXISTS ("
        "SELECT 1 FROM unnest(string_to_array(rights, ', ')) AS one "
        "WHERE one = ANY(string_to_array(:only, ', ')) AND NOT has_table_privilege(name, one))"
    )
    values = {"names": list(OWN_TABLES), "rights": list(OWN_TABLES.values()), "only": only}
    found = connection.scalars(rights, values)
    return [
        f"the role {role.name} may not use diptych's table {name}: let the table's owner do "
        f'`GRANT {OWN_TABLES[name]} ON {name} TO "{role.name}"`, or run what `diptych migrate --sql` prints'
        for name in found
    ]


# Versions


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["token"] = secrets.token_hex(8)
    return config


def _versions() -> Sequence[str]:
    """Returns all versions of diptych's tables in their order, by the names of the files of migrations.

    Alembic knows them too, but takes a fifth of the time in which diptych is imported.
    """
    return sorted(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _head() -> str:
    return _versions()[-1]


def _version(connection: sa.Connection) -> str | None:
    """Returns the version of diptych's tables; None without any. Raises ``SchemaVersionError`` for an unknown one."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    found = connection.scalar(sa.select(table.c.version_num))
    if found is not None and found not in _versions():
        raise SchemaVersionError(found)
    return None if found is None else str(found)


def _token(connection: sa.Connection) -> str | None:
    """Returns the token of the database; None if no version of diptych's tables has made one yet."""
    inspector = sa.inspect(connection)
    if not inspector.has_table("diptych_history"):
        return None
    if all(column["name"] != "token" for column in inspector.get_columns("diptych_history")):
        return None
    return str(connection.scalar(sa.select(sa.column("token")).select_from(sa.table("diptych_history"))))
