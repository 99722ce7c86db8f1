"""``ORMService``: rows of mapped classes, created, found, changed and deleted, with a log entry for each change."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import FrameType, TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from diptych.config.service import ConfigService
from diptych.errors import ConfigurationError, DuplicateError, NotStartedError
from diptych.log import Change, CommandContext
from diptych.sql.database import Database
from diptych.sql.entity import LogImage, MappedEntity
from diptych.sql.execute import execute
from diptych.sql.failures import TransactionConflict
from diptych.write import changes
from diptych.write.screening import check_statement
from diptych.write.session import OnCommit
from diptych.write.side import WriteSide, open_write_side
from diptych.write.statements import Lookup, check_readable, rows_after
from diptych.write.unit_of_work import UnitOfWork, current_unit_of_work, new_context
from diptych.write.units import Work
from diptych.write.written import given_change, given_deletion, values_of_new

M = TypeVar("M")
R = TypeVar("R")


class ORMService:
    """The rows of mapped classes in SQL, as instances.

    Inside a command every call joins the command's transaction; outside, each call that changes something is a
    transaction of its own. Either way each change writes a row of the change log and reaches the read models.
    Instances that are returned are detached: setting their attributes changes nothing in SQL, ``update`` does.

    Every method may raise ``DatabaseUnavailableError``; methods that change something, ``DatabaseBusyError``,
    ``ConflictError`` and ``UnitOfWorkError`` as well. An open service works in the event loop of ``init`` alone; in
    another loop every method raises ``DifferentLoopError``.

    >>> import asyncio
    >>> from diptych import ORMService
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str] = mapped_column(unique=True)
    ...     stock: Mapped[int] = mapped_column(default=0)
    >>> async def main():
    ...     orm_service = ORMService()
    ...     await orm_service.init("books.db", models=Base)
    ...     book = await orm_service.create(Book, title="Dune")
    ...     print(book.id, await orm_service.get(Book, "Emma", "title"))
    ...     print(await orm_service.update(Book, "Dune", lookup_column="title", stock=3))
    ...     print([(book.title, book.stock) for book in await orm_service.all(Book)])
    ...     print(await orm_service.delete(Book, book.id))
    ...     await orm_service.close()
    >>> asyncio.run(main())
    1 None
    True
    [('Dune', 3)]
    True
    """

    def __init__(self, config_service: ConfigService | None = None) -> None:
        self._settings = (config_service or ConfigService()).settings
        self._new_context: Callable[[], CommandContext] = new_context
        self._side: WriteSide | None = None

    async def init(
        self,
        database: str | os.PathLike[str] | None = None,
        *,
        models: type | None = None,
        engine: AsyncEngine | None = None,
        log_images: Mapping[type, LogImage] | None = None,
    ) -> None:
        """Opens the database and creates the missing tables.

        ``database`` is a URL or the path of an SQLite file; without it, the setting ``DATABASE_URL``. ``models``
        is your declarative base, whose tables are created now; the tables of other models are when first used.
        ``engine`` is an engine of your own, in place of ``database``: PostgreSQL with asyncpg. ``log_images``
        says what goes into ``image`` of the change log, by models: "all" columns (of models that are not named too),
        "key", which is no image, or a list of columns. A database that was open before is closed. Raises
        ``ConfigurationError``, ``SchemaVersionError``.
        """
        await self.close()
        if engine is not None and database is not None:
            raise ConfigurationError("engine", "is given together with a database: give one of them")
        source = os.fspath(database or self._settings.database_url) if engine is None else engine
        self._side = await open_write_side(source, self._settings, models, log_images)

    async def close(self) -> None:
        """Finishes the commits under way and closes every connection. Safe to call twice, or before ``init``."""
        side = self._side
        if side is not None:
            side.home.check()
            self._side = None
            await side.close()

    def take_context_from(self, new_context: Callable[[], CommandContext]) -> None:
        """Has changes outside of commands name the request and the actor that ``new_context`` tells."""
        self._new_context = new_context

    async def __aenter__(self) -> Self:
        if self._side is None:
            await self.init()
        else:
            self._side.home.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create(self, model: type[M], **fields: Any) -> M:
        """Adds a row and returns the new instance, with its defaults and its key.

        Values are converted to their columns' types: an ISO string will do for a date. Raises
        ``UnknownColumnError``, ``InvalidValueError``, ``DuplicateError``, ``ConstraintError``; and ``WiringError``,
        as every method that changes something, if the mapping asks for something that diptych would not do.
        """
        entity = self._here.entities.of(model)
        values = values_of_new(entity, fields)

        async def work(unit: UnitOfWork) -> M:
            if making := changes.one_insert(unit.database.takes_raw, entity, values, unit.context):
                change = cast(Change, await unit.make(entity, making))
            else:
                async with unit.statement(entity) as connection:
                    change = await changes.insert(connection, entity, values, unit.context)
                    unit.note(entity, change)
            return entity.instance(change.image)  # type: ignore[no-any-return]

        return await self._write(entity, "create", work, sys._getframe(1))

    async def create_all(self, model: type[M], rows: Iterable[Mapping[str, Any]]) -> list[M]:
        """Adds many rows, each given as a mapping of fields, and returns the new instances in the same order.

        All rows are added, or none. Faster than ``create`` for each: on PostgreSQL a few statements for all. Raises
        the errors of ``create``.

        >>> import asyncio
        >>> from diptych import ORMService
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Book(Base):
        ...     __tablename__ = "books"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     title: Mapped[str]
        >>> async def main():
        ...     async with ORMService() as orm_service:
        ...         await orm_service.init("books.db", models=Base)
        ...         books = await orm_service.create_all(Book, ({"title": title} for title in ("Dune", "Emma")))
        ...         print([(book.id, book.title) for book in books])
        >>> asyncio.run(main())
        [(1, 'Dune'), (2, 'Emma')]
        """
        entity = self._here.entities.of(model)
        values = [values_of_new(entity, fields) for fields in rows]

        async def work(unit: UnitOfWork) -> list[M]:
            async with unit.statement(entity) as connection:
                made = await changes.insert_all(connection, entity, values, unit.context)
                for change in made:
                    unit.note(entity, change)
            return [entity.instance(change.image) for change in made]

        return await self._write(entity, "create all", work) if values else []

    async def upsert(self, model: type[M], *, conflict_on: Any, **fields: Any) -> M:
        """Adds a row, or changes the row with the same value of ``conflict_on``. Returns the instance.

        ``conflict_on`` is a unique column: its attribute, such as ``Book.title``, or the attribute's name. Raises
        ``ValueError`` for a column that is not unique, and the errors of ``create`` and ``update``.

        >>> import asyncio
        >>> from diptych import ORMService
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Book(Base):
        ...     __tablename__ = "books"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     title: Mapped[str] = mapped_column(unique=True)
        ...     stock: Mapped[int]
        >>> async def main():
        ...     async with ORMService() as orm_service:
        ...         await orm_service.init("books.db", models=Base)
        ...         for stock in (1, 2):
        ...             book = await orm_service.upsert(Book, conflict_on=Book.title, title="Dune", stock=stock)
        ...             print(book.id, book.stock)
        >>> asyncio.run(main())
        1 1
        1 2
        """
        entity = self._here.entities.of(model)
        name = str(getattr(conflict_on, "key", conflict_on))
        entity.check_names([name])
        if name not in entity.unique_columns:
            raise ValueError(f"conflict_on: {entity.name}.{name} is not unique by itself")
        if fields.get(name) is None:
            raise ValueError(f"upsert needs a value of {name}, by which the row is found")

        async def work(_unit: UnitOfWork) -> M:
            changed = await self.update(model, fields[name], name, return_instance=True, **fields)
            if changed is not None:
                return changed
            try:
                return await self.create(model, **fields)
            except DuplicateError as error:
                if error.columns == (name,):
                    # Added since this transaction began: it is there at the next attempt.
                    raise TransactionConflict("a concurrent command has added the row") from error
                raise

        return await self._write(entity, "upsert", work)

    async def get(self, model: type[M], lookup_value: Any, lookup_column: str | None = None) -> M | None:
        """Returns the row whose ``lookup_column`` (the primary key, if not given) has this value, or None.

        Inside a command the row is as the command has left it. Raises ``UnknownColumnError``,
        ``InvalidValueError``, ``AmbiguousLookupError`` if several rows match, and ``UnreadableRowError`` if a value
        of the row can't be loaded.
        """
        entity = self._here.entities.of(model)
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
        """Changes these fields of the row whose ``lookup_column`` (the primary key, if not given) has this value.

        Returns True if there was such a row; with ``return_instance`` the changed instance, or None. In a model with
        a ``version_id_col`` the field of that column is not set, but says which version the caller has read: raises
        ``StaleVersionError`` if the row has another version by now. Raises the errors of ``create`` and ``get`` too,
        but not ``UnreadableRowError`` if the column that can't be loaded is among those that are changed.
        """
        entity = self._here.entities.of(model)
        lookup = Lookup(entity, lookup_value, lookup_column)
        given = given_change(entity, fields)

        async def work(unit: UnitOfWork) -> dict[str, Any] | None:
            if given.is_plain and (
                making := changes.one_update(unit.database.takes_raw, lookup, given.values, unit.context)
            ):
                made = await unit.make(entity, making)
                return None if made is None else made.after
            async with unit.statement(entity) as connection:
                before = await lookup.find(connection, lock=True)
                if before is None:
                    return None
                values = given.of(before)
                # A value that can't be loaded can't be returned by the change either, unless that replaces it.
                check_readable(entity, lookup.value, before, but=values)
                if not values:
                    return before
                change = await changes.update(connection, entity, before, values, unit.context)
                unit.note(entity, change)
            return change.after

        row = await self._write(entity, "update", work, sys._getframe(1))
        if not return_instance:
            return row is not None
        return None if row is None else entity.instance(row)

    async def delete(
        self, model: type[Any], lookup_value: Any, lookup_column: str | None = None, **version: Any
    ) -> bool:
        """Deletes the row whose ``lookup_column`` (the primary key, if not given) has this value.

        Returns True if there was such a row. ``version`` is the field of the model's ``version_id_col``, if the
        caller says which version was read: raises ``StaleVersionError`` if the row has another version by now. Raises
        the errors of ``get`` too, but not ``UnreadableRowError``, and ``ConstraintError`` if other rows refer to the
        row.
        """
        entity = self._here.entities.of(model)
        lookup = Lookup(entity, lookup_value, lookup_column)
        given = given_deletion(entity, version)

        async def work(unit: UnitOfWork) -> bool:
            if given is None and (
                making := changes.one_deletion(unit.database.takes_raw, lookup, unit.context)
            ):
                return await unit.make(entity, making) is not None
            async with unit.statement(entity) as connection:
                before = await lookup.find(connection, lock=True)
                if before is None:
                    return False
                if given is not None:
                    given.check(before)
                unit.note(entity, await changes.delete(connection, entity, before, unit.context))
            return True

        return await self._write(entity, "delete", work, sys._getframe(1))

    @contextlib.asynccontextmanager
    async def session(self, *, commit: OnCommit = "refuse") -> AsyncIterator[AsyncSession]:
        """Opens SQLAlchemy's ``AsyncSession`` in the transaction of the command, with all abilities of a session.

        Inside a command there is one session for each run of the handler. ``ORMService`` shares it: what the session
        holds is flushed before each call, and shows what the call has changed. Outside, the block is a unit of work
        of its own. What is changed is in the log, and visible to queries when the command is acknowledged, as ever.

        ``commit()``, ``rollback()`` and ``begin()`` of the session raise ``UnitOfWorkError``, since the transaction
        is the command's; ``begin_nested()`` makes a savepoint. With ``commit="flush"``, for services that call
        ``commit()`` themselves, it flushes. Raises ``ConflictError`` at the end of a block of its own if a concurrent
        transaction won.

        >>> import asyncio
        >>> from diptych import ORMService
        >>> from sqlalchemy import select
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Book(Base):
        ...     __tablename__ = "books"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     title: Mapped[str]
        >>> async def main():
        ...     async with ORMService() as orm_service:
        ...         await orm_service.init("books.db", models=Base)
        ...         async with orm_service.session() as session:
        ...             session.add_all([Book(title="Dune"), Book(title="Emma")])
        ...         async with orm_service.session() as session:
        ...             print((await session.scalars(select(Book.title).order_by(Book.title))).all())
        >>> asyncio.run(main())
        ['Dune', 'Emma']
        """
        if commit not in ("refuse", "flush"):
            raise ValueError('commit must be "refuse" or "flush"')
        side = self._here
        joined = current_unit_of_work(side.database)
        if joined is not None:
            session = await joined.session(commit)
            yield session
            await session.flush()
            return
        async with side.units.opened(self._new_context()) as unit:
            yield await unit.session(commit)

    async def execute(
        self,
        statement: sa.Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> sa.CursorResult[Any]:
        """Executes a statement of SQLAlchemy's Core, and returns its buffered result.

        Inside a command it is part of the command's transaction; outside, a unit of work of its own. Raises
        ``UnitOfWorkError`` for statements that end transactions or change the schema, and for text that is not
        wrapped in ``sqlalchemy.text``.

        >>> import asyncio
        >>> import sqlalchemy as sa
        >>> from diptych import ORMService
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Book(Base):
        ...     __tablename__ = "books"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     stock: Mapped[int]
        >>> async def main():
        ...     async with ORMService() as orm_service:
        ...         await orm_service.init("books.db", models=Base)
        ...         await orm_service.create(Book, stock=1)
        ...         print((await orm_service.execute(sa.update(Book).values(stock=Book.stock + 1))).rowcount)
        >>> asyncio.run(main())
        1
        """
        check_statement(statement)
        side = self._here

        async def work(unit: UnitOfWork) -> sa.CursorResult[Any]:
            async with unit.free_statement() as connection:
                return await execute(connection, statement, parameters)

        joined = current_unit_of_work(side.database)
        if joined is not None:
            return await work(joined)
        return await side.units.run(work, self._new_context())

    async def all(self, model: type[M]) -> list[M]:
        """Returns every row, in the order of the primary key. For large tables see ``iterate``."""
        return [instance async for instance in self.iterate(model)]

    async def iterate(self, model: type[M], batch_size: int = 1000) -> AsyncIterator[M]:
        """Yields every row in the order of the primary key, with ``batch_size`` rows in memory at a time.

        No transaction is held between batches: a row that is changed meanwhile is seen once, as it is when its
        batch is read. Raises ``ValueError`` unless ``batch_size`` is at least 1.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        entity = self._here.entities.of(model)
        last: dict[str, Any] | None = None
        while True:
            async with self._reading(entity) as connection:
                rows = await rows_after(connection, entity, last, batch_size)
            for row in rows:
                yield entity.instance(row)
            if len(rows) < batch_size:
                return
            last = rows[-1]

    async def _write(
        self, entity: MappedEntity, kind: str, work: Work[R], caller: FrameType | None = None
    ) -> R:
        """Runs the work in the command of this task, else as a unit of work of its own.

        ``caller`` is the frame that has called the method of this service, if the work is a single call of ``make``.
        """
        side = self._here
        await side.ensure_table(entity)
        joined = current_unit_of_work(side.database)
        if joined is not None:
            joined.expect_call(caller)
            return await work(joined)

        def alone(unit: UnitOfWork) -> Awaitable[R]:
            unit.ends_with_call = caller is not None
            return work(unit)

        return await side.units.run(alone, self._new_context(), (entity, kind))

    def _reading(self, entity: MappedEntity) -> AbstractAsyncContextManager[AsyncConnection]:
        side = self._here
        joined = current_unit_of_work(side.database)
        return side.reading(entity) if joined is None else joined.statement(entity)

    @property
    def _here(self) -> WriteSide:
        """The open write side. Raises ``DifferentLoopError`` outside the event loop of ``init``."""
        side = self._side
        if side is None:
            raise _not_open()
        side.home.check()
        return side

    @property
    def side(self) -> WriteSide:
        """The open write side. Raises ``NotStartedError`` before ``init``."""
        if self._side is None:
            raise _not_open()
        return self._side

    @property
    def database(self) -> Database:
        """The open database. Raises ``NotStartedError`` before ``init``."""
        return self.side.database


def _not_open() -> NotStartedError:
    return NotStartedError("ORMService is not open: `await orm_service.init()` first, or `async with` it")
