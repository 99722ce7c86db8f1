"""The tables at start: the framework's own brought up to date, the application's missing ones made."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaVersionError
from diptych.sql.database import Database

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x64697074  # "dipt"
_ALEMBIC = threading.Lock()


async def prepare_schema(database: Database, metadata: sa.MetaData | None) -> None:
    """Upgrades the framework's tables, then creates the missing ones of ``metadata``, in one transaction.

    Raises ``SchemaVersionError``, and changes nothing, if a newer diptych has upgraded them already.
    """
    async with _alembic_alone(), database.begin() as connection:
        await _prepare(connection, database.name, metadata)


async def _prepare(connection: AsyncConnection, database: str, metadata: sa.MetaData | None) -> None:
    if database == "postgresql":
        # Several processes start at once; SQLite's BEGIN IMMEDIATE keeps them apart by itself.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    await connection.run_sync(_upgrade)
    if metadata is not None:
        await connection.run_sync(metadata.create_all)


@contextlib.asynccontextmanager
async def _alembic_alone() -> AsyncIterator[None]:
    """Alembic keeps what it works on in globals: two upgrades at once in a process would mix up their databases."""
    # Not asyncio's: the other upgrade may be in another thread, with another event loop.
    while not _ALEMBIC.acquire(blocking=False):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _ALEMBIC.release()


def _upgrade(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    _refuse_newer(connection, config)
    command.upgrade(config, "head")


def _refuse_newer(connection: sa.Connection, config: Config) -> None:
    if not sa.inspect(connection).has_table("diptych_version"):
        return
    table = sa.table("diptych_version", sa.column("version_num"))
    script = ScriptDirectory.from_config(config)
    for found in connection.scalars(sa.select(table.c.version_num)):
        try:
            script.get_revision(found)
        except CommandError:
            raise SchemaVersionError(found) from None
