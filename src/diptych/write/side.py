"""The write side of an application, opened and composed: the database, and the parts needed by commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Mapper, registry

from diptych.aio.event_loop import HomeLoop
from diptych.config.settings import Settings
from diptych.errors import DatabaseBusyError, UnavailableError, WiringError
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.adoption import adopt
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.health import SqlHealth
from diptych.sql.database import Database
from diptych.sql.entity import LogImage, MappedEntity
from diptych.sql.failures import translated, translated_reading
from diptych.sql.open import open_database, open_through
from diptych.sql.registry import EntityRegistry
from diptych.sql.schema.application import check_schemas, check_tables
from diptych.sql.schema.own import prepare_schema
from diptych.write.effects import Effects
from diptych.write.unit_of_work import current_unit_of_work
from diptych.write.units import UnitsOfWork

_PATIENCE_S = 2.0
"""Time that SQL has to answer before ``health`` calls the database away, in seconds."""


async def open_write_side(
    source: str | AsyncEngine,
    settings: Settings,
    models: type | None = None,
    log_images: Mapping[type, LogImage] | None = None,
) -> WriteSide:
    """Opens the database, creates the missing tables, and returns the write side over the database.

    ``source`` is a URL, the path of an SQLite file, or an engine of the application's own; ``models`` a declarative
    base whose tables are created too, unless ``CREATE_TABLES`` is false. ``log_images`` says what goes into the
    images of changes in the log, by models. Raises ``ConfigurationError``, ``WiringError``, ``SchemaError``,
    ``SchemaVersionError``, ``DatabaseUnavailableError``.
    """
    if isinstance(source, str):
        database = open_database(source, settings)
    else:
        database = await open_through(source, settings)
    metadata = None if models is None else _metadata_of(models)
    if models is not None:
        database.mappers = partial(_mappers_of, models)
    try:
        check_schemas(database, metadata)
        with translated(database):
            await database.check_shared()
            await prepare_schema(database, metadata if settings.create_tables else None)
            token = await adopt(database)
    except BaseException:
        await database.close()
        raise
    entities = EntityRegistry(database.name, token, log_images, metadata)
    for model in log_images or ():
        entities.of(model)  # raises for a mistake now, not at the first change
    return WriteSide(database, settings, metadata, entities)


class WriteSide:
    """An open database with the parts needed by commands; made by ``open_write_side``.

    ``home`` is the event loop in which the database was opened, and the only one in which the parts may be used.
    """

    def __init__(
        self, database: Database, settings: Settings, metadata: sa.MetaData | None, entities: EntityRegistry
    ) -> None:
        self.home = HomeLoop("ORMService")
        self.database = database
        self.entities = entities
        self.fence = Fence(database, self.entities.by_table, hints=settings.capture_hints)
        self.acknowledger = Acknowledger(self.fence, FenceRows(self.fence), settings.database_timeout_s)
        effects = Effects(self.fence, self.entities, settings.lease_s)
        self.units = UnitsOfWork(database, self.acknowledger, effects)
        self._captured: Set[str] = frozenset()
        self._creates_tables = settings.create_tables
        self._prepared = set() if metadata is None else {metadata}

    async def close(self) -> None:
        """Finishes the commands under way, and closes every connection."""
        await self.units.settle()
        await self.units.effects.close()
        await self.acknowledger.close()
        await self.fence.close()
        await self.database.close()

    async def ensure_table(self, entity: MappedEntity) -> None:
        """Creates the missing tables of the model's base at its first use, unless ``open_write_side`` has.

        Does nothing if ``CREATE_TABLES`` is false. Raises ``WiringError`` inside a command.
        """
        metadata = entity.table.metadata
        if metadata in self._prepared or not self._creates_tables:
            return
        if current_unit_of_work(self.database) is not None:
            raise WiringError(
                [f"{entity.name} is unknown to the application: its base is not the one in Diptych(models=…)"]
            )
        with translated(self.database):
            await prepare_schema(self.database, metadata)
        self._prepared.add(metadata)
        await self.units.effects.look()

    @contextlib.asynccontextmanager
    async def reading(self, entity: MappedEntity) -> AsyncIterator[AsyncConnection]:
        """Lends a connection to read rows of this entity with, outside of a command."""
        await self.ensure_table(entity)
        with translated_reading(self.database, entity):
            async with self.database.reader.connect() as connection:
                yield connection

    async def capture(self, tables: Set[str]) -> None:
        """Has every change of these tables, by any writer, noticed from now on. Raises ``SchemaError``."""
        if tables:
            await self.fence.capture(tables)
        self._captured = frozenset(tables)

    async def catch_up(self) -> None:
        """Returns when queries see all that was committed before the call. Raises ``DatabaseUnavailableError``."""
        await self.acknowledger.catch_up(self._captured)

    def note_read(self, tables: Set[str]) -> None:
        """Notes a reading of rows of these ``tables`` by the command of this task, if any."""
        unit = current_unit_of_work(self.database)
        if unit is not None:
            unit.touched |= tables
            # ★ The read model was asked later than the unit's snapshot.
            unit.looks_late = True

    async def check_tables(self, models: type, read: Iterable[type]) -> None:
        """Checks the tables of these ``models``, and of the classes ``read``, against their mappings.

        Those of the classes ``read``, of which documents are made, have to be readable. Raises ``SchemaError``.
        """
        made_from = dict.fromkeys(read)
        inspected: list[object] = [sa.inspect(model, raiseerr=False) for model in made_from]
        others = [mapper for mapper in inspected if isinstance(mapper, Mapper)]
        with translated(self.database):
            await check_tables(
                self.database, dict.fromkeys((*_mappers_of(models), *others)), made_from.keys()
            )

    def warn_of_refusals(self, models: type) -> None:
        """Logs the writes refused for the mapped classes of this base, because of their mappings."""
        self.entities.warn_of_all(_mappers_of(models))

    async def health(self) -> SqlHealth:
        """Returns the present state of SQL: "up" if SQL answers within two seconds, or is only busy."""
        try:
            with translated(self.database):
                async with asyncio.timeout(_PATIENCE_S), self.database.reader.connect() as connection:
                    await connection.execute(sa.select(1))
        except DatabaseBusyError:
            pass
        except UnavailableError:
            return SqlHealth("away", self.database.name)
        return SqlHealth("up", self.database.name)


def _mappers_of(models: type) -> list[Mapper[Any]]:
    """Returns the mappers of a declarative base, in the order of their classes' names."""
    found = getattr(models, "registry", None)
    mappers = found.mappers if isinstance(found, registry) else ()
    return sorted(mappers, key=lambda mapper: str(mapper.class_.__name__))


def _metadata_of(models: type) -> sa.MetaData:
    metadata = getattr(models, "metadata", None)
    if not isinstance(metadata, sa.MetaData):
        raise WiringError(
            [f"models={models!r} is not a declarative base: pass the class your models derive from"]
        )
    return metadata
