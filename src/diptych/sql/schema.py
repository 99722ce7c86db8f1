"""Tables at start: diptych's own are upgraded, missing tables of the application are created."""

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

from diptych.errors import SchemaVersionError
from diptych.sql.database import Database

_MIGRATIONS = Path(__file__).parent / "migrations"
_ALEMBIC = threading.Lock()


async def prepare_schema(database: Database, metadata: sa.MetaData | None) -> None:
    """Upgrades diptych's tables, then creates the missing tables of ``metadata``, in a single transaction.

    Raises ``SchemaVersionError``, and changes nothing, if a newer diptych has upgraded them already.
    """
    async with _alembic_alone(), database.begin() as connection:
        await database.lock_schema(connection)  # several processes may start at once
        await connection.run_sync(_upgrade)
        if metadata is not None:
            await connection.run_sync(metadata.create_all)


@contextlib.asynccontextmanager
async def _alembic_alone() -> AsyncIterator[None]:
    """Keeps other upgrades of this process out: Alembic's globals would mix up the databases of two upgrades."""
    # No lock of asyncio: the other upgrade may run in another thread, with an event loop of its own.
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
