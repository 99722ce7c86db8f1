"""The commands ``migrate`` and ``uninstall``: diptych's part of an application's database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.errors import DatabaseUnavailableError
from diptych.fence.installation import Installation
from diptych.read.panel import mapped_classes
from diptych.sql.database import Database
from diptych.sql.open import open_database, open_through
from diptych.sql.registry import EntityRegistry

if TYPE_CHECKING:
    from diptych.app import Diptych


def migrated(application: Diptych, *, sql: bool, role: str | None) -> str:
    """Brings diptych's part of the database up, and returns a report; with ``sql`` returns the script alone."""

    async def migrate(installation: Installation) -> str:
        if sql:
            return (await installation.script(role)).rstrip()
        made = await installation.bring_up(role)
        triggers = f"triggers made on {', '.join(sorted(made))}" if made else "triggers as they should be"
        return f"diptych's tables are as they should be; {triggers}"

    return _run(application, migrate, makes_file=not sql)


def uninstalled(application: Diptych, *, sql: bool) -> str:
    """Takes diptych's part of the database away, and says so; with ``sql`` returns the script alone."""

    async def uninstall(installation: Installation) -> str:
        if sql:
            return (await installation.removal_script()).rstrip()
        await installation.remove()
        return "nothing of diptych is left in the database"

    return _run(application, uninstall)


async def database_of(application: Diptych) -> Database:
    """Opens the application's database. Raises ``ConfigurationError``."""
    settings = application.config.settings
    if application.engine is None:
        return open_database(settings.database_url, settings)
    return await open_through(application.engine, settings)


def check_file(database: Database) -> None:
    """Raises ``DatabaseUnavailableError`` without SQLite's file: opening the database would make an empty file."""
    if database.name == "sqlite" and not Path(database.address).exists():
        raise DatabaseUnavailableError(f"there is no file {database.address}: start the application first")


def _run(
    application: Diptych, work: Callable[[Installation], Awaitable[str]], *, makes_file: bool = False
) -> str:
    async def run() -> str:
        database = await database_of(application)
        try:
            if not makes_file:
                check_file(database)
            entities = EntityRegistry(database.name)
            models = dict.fromkeys(mapped_classes(application.read_models))
            captured = [entities.of(model) for model in models]
            return await work(
                Installation(database, captured, hints=application.config.settings.capture_hints)
            )
        finally:
            await database.close()

    return asyncio.run(run())
