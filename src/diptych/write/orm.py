"""``ORMService``: the rows of mapped classes, created, found, changed and deleted, each change logged."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Set
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Mapper, registry

from diptych.aio.home_loop import HomeLoop
from diptych.config.service import ConfigService
from diptych.errors import DatabaseBusyError, NotStartedError, UnavailableError, WiringError
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.adoption import adopt
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.sql.database import Database
from diptych.sql.entity import EntityRegistry, MappedEntity
from diptych.sql.failures import translated, translated_reading
from diptych.sql.open import open_database
from diptych.sql.schema import prepare_schema
from diptych.write import changes
from diptych.write.statements import Lookup, rows_after
from diptych.write.unit_of_work import UnitOfWork, UnitsOfWork, current_unit_of_work, new_context
from diptych.write.written import given_change, given_deletion, values_of_new

_PATIENCE_S = 2.0

M = TypeVar("M")
R = TypeVar("R")


class ORMService:
    """Stores instances of mapped classes in SQL.

    Inside a command every call joins the command's transaction; alone each call that changes something is a
    transaction of its own. Either way each change writes a row of the change log and reaches the read model.
    Instances that are returned are detached: changing them changes nothing, ``update`` does.

    Every method may raise ``DatabaseUnavailableError``; those that change, ``DatabaseBusyError``,
    ``ConflictError`` and ``UnitOfWorkError`` as well. Open, it works in the event loop of ``init`` alone; in another
    one every method raises ``DifferentLoopError``.
    """

    def __init__(self, config_service: ConfigService | None = None) -> None:
        self._config = config_service or ConfigService()
        self._entities = EntityRegistry()
        self._opened: Database | None = None
        self._home: HomeLoop | None = None
        self._fence: Fence | None = None
        self._acknowledger: Acknowledger | None = None
        self._units: UnitsOfWork | None = None
        self._prepared: set[sa.MetaData] = set()

    async def init(
        self, database: str | os.PathLike[str] | None = None, *, models: type | None = None
    ) -> None:
        """Opens the database and creates what is missing in it.

        ``database`` is a URL or the path of an SQLite file; without it, the setting ``DATABASE_URL``. ``models``
        is your declarative base, whose tables are created now; those of other models are when first used.
        Raises ``ConfigurationError``, ``SchemaVersionError``.
        """
        if self._opened is not None:
            await self.close()
        home = HomeLoop("ORMService")
        opened = open_database(os.fspath(database or self._config.get("DATABASE_URL")), self._config)
        metadata = _metadata_of(models) if models is not None else None
        try:
            with translated(opened):
                await prepare_schema(opened, metadata)
                await adopt(opened)
        except BaseException:
            await opened.close()
            raise
        self._prepared = {metadata} if metadata is not None else set()
        self._opened, self._home = opened, home
        self._entities.opened(opened.name)
        self._fence = Fence(opened, self._entities.by_table)
        patience_s = self._config.get("DATABASE_TIMEOUT_MS") / 1000
        self._acknowledger = Acknowledger(self._fence, FenceRows(self._fence), patience_s)
        self._units = UnitsOfWork(opened, self._acknowledger)

    async def close(self) -> None:
        """Finishes what is being committed and closes every connection. Safe to call twice, or before ``init``."""
        self._check_loop()
        units, acknowledger, fence, database = self._units, self._acknowledger, self._fence, self._opened
        self._units = self._acknowledger = self._fence = self._opened = None
        if units is not None:
            await units.close()
        if acknowledger is not None:
            await acknowledger.close()
        if fence is not None:
            await fence.close()
        if database is not None:
            await database.close()
        self._home = None

    async def __aenter__(self) -> Self:
        self._check_loop()
        if self._opened is None:
            await self.init()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create(self, model: type[M], **fields: Any) -> M:
        """Adds a row and returns it as an instance, with its defaults and its key.

        Values are converted to their columns' types: an ISO string will do for a date. Raises
        ``UnknownColumnError``, ``InvalidValueError``, ``DuplicateError``, ``ConstraintError``; and ``WiringError``,
        as every method that changes something, if the mapping asks for what would not be done.
        """
        entity = self._entities.of(model)
        values = values_of_new(entity, fields)

        async def work(unit: UnitOfWork) -> M:
            async with unit.statement(entity) as connection:
                change = await changes.insert(connection, entity, values, unit.context)
                unit.changes.append(change)
            return entity.instance(change.image)  # type: ignore[no-any-return]

        return await self._write(entity, "create", work)

    async def get(self, model: type[M], lookup_value: Any, lookup_column: str | None = None) -> M | None:
        """The row whose ``lookup_column`` (the primary key, if not given) has this value; None if there is none.

        Inside a command it sees what the command has changed. Raises ``UnknownColumnError``,
        ``InvalidValueError``, ``AmbiguousLookupError`` if several rows match, and ``UnreadableRowError`` if a value
        of the row can't be loaded.
        """
        entity = self._entities.of(model)
        lookup = Lookup(entity, lookup_value, lookup_column)
        async with self._reading(entity) as connection:
            row = await lookup.find(connection)
        return None if row is None else entity.instance(row)

    @overload
    async def update(
        self,
        model: type[M],
        lookup_value: Any,
        lookup_column: str | None = None,
        return_instance: Literal[False] = False,
        **fields: Any,
    ) -> bool: ...
    @overload
    async def update(
        self,
        model: type[M],
        lookup_value: Any,
        lookup_column: str | None = None,
        *,
        return_instance: Literal[True],
        **fields: Any,
    ) -> M | None: ...
    async def update(
        self,
        model: type[M],
        lookup_value: Any,
        lookup_column: str | None = None,
        return_instance: bool = False,
        **fields: Any,
    ) -> M | bool | None:
        """Changes these fields of the row whose ``lookup_column`` has this value.

        Of a model with a ``version_id_col`` that field is the version which the caller has read, and is not set:
        ``StaleVersionError`` if the row has another one by now. Returns whether there was such a row; with
        ``return_instance`` the changed instance, or None. Raises what ``create`` and ``get`` raise; not
        ``UnreadableRowError`` if the column that can't be loaded is changed.
        """
        entity = self._entities.of(model)
        lookup = Lookup(entity, lookup_value, lookup_column)
        given = given_change(entity, fields)

        async def work(unit: UnitOfWork) -> dict[str, Any] | None:
            async with unit.statement(entity) as connection:
                before = await lookup.find(connection, lock=True)
                values = given.of(before) if before is not None else None
                if before is not None:
                    # What can't be loaded can't be returned by the change either, unless that replaces it.
                    lookup.check_readable(before, but=values or ())
                if before is None or not values:
                    return before
                change = await changes.update(connection, entity, before, values, unit.context)
                unit.changes.append(change)
            return change.after

        row = await self._write(entity, "update", work)
        if not return_instance:
            return row is not None
        return None if row is None else entity.instance(row)

    async def delete(
        self, model: type[Any], lookup_value: Any, lookup_column: str | None = None, **version: Any
    ) -> bool:
        """Deletes the row whose ``lookup_column`` has this value and returns whether there was one.

        ``version`` is the field of the model's ``version_id_col``, if the caller says which version he has read:
        ``StaleVersionError`` if the row has another one by now. The row need not be readable. Raises what ``get``
        raises otherwise, and ``ConstraintError`` if other rows refer to it.
        """
        entity = self._entities.of(model)
        lookup = Lookup(entity, lookup_value, lookup_column)
        read = given_deletion(entity, version)

        async def work(unit: UnitOfWork) -> bool:
            async with unit.statement(entity) as connection:
                before = await lookup.find(connection, lock=True)
                if before is None:
                    return False
                if read is not None:
                    read.check(before)
                unit.changes.append(await changes.delete(connection, entity, before, unit.context))
            return True

        return await self._write(entity, "delete", work)

    async def all(self, model: type[M]) -> list[M]:
        """Every row, in the order of the primary key. For large tables see ``iterate``."""
        return [instance async for instance in self.iterate(model)]

    async def iterate(self, model: type[M], batch_size: int = 1000) -> AsyncIterator[M]:
        """Every row in the order of the primary key, ``batch_size`` of them in memory at a time.

        No transaction is held between batches: a row that is changed meanwhile is seen once, as it is when its
        batch is read. Raises ``ValueError`` unless ``batch_size`` is at least 1.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        entity = self._entities.of(model)
        last: dict[str, Any] | None = None
        while True:
            async with self._reading(entity) as connection:
                rows = await rows_after(connection, entity, last, batch_size)
            for row in rows:
                yield entity.instance(row)
            if len(rows) < batch_size:
                return
            last = rows[-1]

    async def _write(self, entity: MappedEntity, kind: str, work: Callable[[UnitOfWork], Awaitable[R]]) -> R:
        self._check_loop()
        await self._ensure_table(entity)
        joined = current_unit_of_work(self.database)
        if joined is not None:
            return await work(joined)
        return await self.units.run(work, new_context(), (entity, kind))

    def _reading(self, entity: MappedEntity) -> Any:
        self._check_loop()
        unit = current_unit_of_work(self.database)
        return _translated_reading(self, entity) if unit is None else unit.statement(entity)

    @property
    def database(self) -> Database:
        """The open database, for the rooms that read it. Raises ``NotStartedError`` before ``init``."""
        return _opened(self._opened)

    @property
    def units(self) -> UnitsOfWork:
        """What runs units of work over this database. Raises ``NotStartedError`` before ``init``."""
        return _opened(self._units)

    @property
    def fence(self) -> Fence:
        """SQL's part of the hinge. Raises ``NotStartedError`` before ``init``."""
        return _opened(self._fence)

    @property
    def acknowledger(self) -> Acknowledger:
        """What holds committed commands back until they are visible. Raises ``NotStartedError`` before ``init``."""
        return _opened(self._acknowledger)

    def rests_on(self, tables: Set[str]) -> None:
        """Notes that the command of this task, if there is one, has read rows of these ``tables``."""
        unit = current_unit_of_work(self.database)
        if unit is not None:
            unit.touched |= tables

    async def finish(self) -> None:
        """Waits until everything that is being committed is committed and acknowledged."""
        if self._units is not None:
            await self._units.close()

    async def is_reachable(self) -> bool:
        """Whether SQL answers now, within two seconds; one that is only busy does."""
        self._check_loop()
        try:
            with translated(self.database):
                async with asyncio.timeout(_PATIENCE_S), self.database.reader.connect() as connection:
                    await connection.execute(sa.select(1))
        except DatabaseBusyError:
            return True
        except UnavailableError:
            return False
        return True

    def _check_loop(self) -> None:
        if self._home is not None:
            self._home.check()

    def warn_of_refusals(self, models: type) -> None:
        """Tells the log which writes of the mapped classes of this base are refused, because of what they ask for."""
        self._entities.warn_of_all(_mappers_of(models))

    async def look_at_tables(self, models: Iterable[type]) -> None:
        """Reads what the database really has as the columns of these mapped classes."""
        with translated(self.database):
            async with self.database.reader.connect() as connection:
                for model in dict.fromkeys(models):
                    await self.entity(model).look_at_table(connection)

    def entity(self, model: type) -> MappedEntity:
        """The mapped class as this room sees it. Raises ``WiringError`` for what is not one."""
        return self._entities.of(model)

    async def _ensure_table(self, entity: MappedEntity) -> None:
        """Creates the missing tables of a model's base at its first use, for models not given to ``init``."""
        metadata = entity.table.metadata
        if metadata in self._prepared:
            return
        if current_unit_of_work(self.database) is not None:
            raise WiringError(
                [f"{entity.name} is unknown to the application: its base is not the one in Diptych(models=…)"]
            )
        with translated(self.database):
            await prepare_schema(self.database, metadata)
        self._prepared.add(metadata)


def _opened(part: R | None) -> R:
    if part is None:
        raise NotStartedError("ORMService is not open: `await orm_service.init()` first, or `async with` it")
    return part


@contextlib.asynccontextmanager
async def _translated_reading(service: ORMService, entity: MappedEntity) -> AsyncIterator[AsyncConnection]:
    await service._ensure_table(entity)
    with translated_reading(service.database, entity):
        async with service.database.reader.connect() as connection:
            yield connection


def _metadata_of(models: type) -> sa.MetaData:
    metadata = getattr(models, "metadata", None)
    if not isinstance(metadata, sa.MetaData):
        raise WiringError(
            [f"models={models!r} is not a declarative base: pass the class your models derive from"]
        )
    return metadata


def _mappers_of(models: type) -> list[Mapper[Any]]:
    found = getattr(models, "registry", None)
    mappers = found.mappers if isinstance(found, registry) else ()
    return sorted(mappers, key=lambda mapper: str(mapper.class_.__name__))
