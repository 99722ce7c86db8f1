"""``Diptych``: the only place where an application is put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, cast
from weakref import WeakSet

from msgspec import structs

from diptych.aio.event_loop import HomeLoop
from diptych.config.service import ConfigService
from diptych.config.settings import Settings
from diptych.context import correlation_id, request_scope
from diptych.errors import ConfigurationError, MissingExtraError, NotStartedError, WiringError
from diptych.fence.statements import followers
from diptych.health import NO_REDIS, SQL_ALONE, Health
from diptych.log import CommandContext
from diptych.log.retention import Retention
from diptych.messages.handlers import Bus, Handler, by_type
from diptych.messages.kinds import COMMANDS, QUERIES
from diptych.messages.message import Command, Query
from diptych.messages.mixins import CommandOf, QueryOf
from diptych.read.model import ReadModel
from diptych.read.panel import ReadPanel, mapped_classes, open_panels, warn_of_missing
from diptych.read.reader import Reader
from diptych.sql.entity import LogImage
from diptych.sql.postgres.engine import AppEngine, check_engine
from diptych.statistics import ReadModelStatistics, Statistics
from diptych.write.orm import ORMService
from diptych.write.side import WriteSide
from diptych.write.unit_of_work import new_context

if TYPE_CHECKING:
    from diptych.hinge.side import RedisSide
    from diptych.hinge.status import Progress

R = TypeVar("R")
S = TypeVar("S")
ActorHook = Callable[[Mapping[str, Any] | None], str | None]

STARTED: WeakSet[Diptych] = WeakSet()
"""The applications of this process that are started."""


class Diptych:
    """An application: its models, the handlers of its messages, and its read models.

    ``models`` is the declarative base whose tables are created at start, unless ``CREATE_TABLES`` is false.
    ``handlers`` are classes whose methods handle commands and queries; their constructors may ask for
    ``ConfigService``, ``ORMService``, ``RedisService``, the read models, ``Diptych`` itself, and the instances in
    ``services``. ``actor`` names the person or program that acts, for the change log: the function is called once
    for each command, with the ASGI scope of the request (None outside of a request). ``engine`` is the application's
    own engine of PostgreSQL with asyncpg, which commands use in place of one made from ``DATABASE_URL``; it stays the
    application's, to dispose of.

    ``log_images`` says what goes into ``image`` of the change log, by models: "all" columns (of models that are not
    named too), "key", which is no image, or a list of columns, such as ``{User: [User.name]}``.

    Nothing is opened before ``start``, which raises ``WiringError`` and ``ConfigurationError`` for parts that do not
    fit together, ``SchemaError`` for a database that is not as the application needs it, ``SchemaVersionError``, and
    ``UnavailableError`` for a store that can't be done without. A started application works in the event loop of
    ``start`` alone; in another loop everything raises ``DifferentLoopError``.

    >>> import asyncio
    >>> from diptych import Command, ConfigService, Diptych, ORMService
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str] = mapped_column(unique=True)
    >>> class AddBook(Command[int]):
    ...     title: str
    >>> class BookHandler:
    ...     def __init__(self, orm_service: ORMService) -> None:
    ...         self.orm_service = orm_service
    ...
    ...     async def add(self, command: AddBook) -> int:
    ...         return (await self.orm_service.create(Book, title=command.title)).id
    >>> async def main():
    ...     config = ConfigService(database_url="books.db")
    ...     async with Diptych(config, models=Base, handlers=[BookHandler]) as app:
    ...         print(await app.execute(AddBook("Dune")))
    >>> asyncio.run(main())
    1
    """

    def __init__(
        self,
        config: ConfigService | None = None,
        *,
        models: type,
        handlers: Sequence[type],
        read_models: Sequence[type[ReadModel[Any]]] = (),
        services: Sequence[object] = (),
        actor: ActorHook | None = None,
        engine: AppEngine | None = None,
        log_images: Mapping[type, LogImage] | None = None,
    ) -> None:
        self.config = config or ConfigService()
        self.engine = None if engine is None else _checked(engine, self.config)
        self.orm = ORMService(self.config)
        self.orm.take_context_from(self._context_of_request)
        self._models = models
        self._handlers = tuple(handlers)
        self._read_models = tuple(read_models)
        self._services = tuple(services)
        self._actor = actor
        self._log_images = log_images
        self._running: _Running | None = None
        self._home: HomeLoop | None = None
        self._queries: Mapping[type, Handler] = {}
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Opens the stores, checks the wiring, and begins to bring the read models up. Safe to call twice."""
        self._check_loop()
        async with self._starting:
            if self._running is None:
                self._home = home = HomeLoop("the application")
                try:
                    async with contextlib.AsyncExitStack() as exits:
                        self._running = await self._start(exits, home)
                        self._queries = self._running.bus.queries()
                finally:
                    if self._running is None:
                        self._home = None
                    else:
                        STARTED.add(self)

    async def stop(self) -> None:
        """Finishes the commands under way and closes everything. Safe to call twice."""
        self._check_loop()
        async with self._starting:
            running, self._running, self._queries = self._running, None, {}
            STARTED.discard(self)
            try:
                if running is not None:
                    await running.exits.aclose()
            finally:
                self._home = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def execute(self, command: Command[R] | CommandOf[R]) -> R:
        """Runs the command's handler as a single transaction, and returns the result when queries see the changes.

        Any error that the handler raises leaves nothing behind. Inside another command the handler joins that
        command's transaction. A handler is run again, from its start, if a concurrent transaction won
        (``ConflictError`` when that goes on).
        """
        if not isinstance(command, COMMANDS):
            raise TypeError(f"execute takes a Command, not {type(command).__name__}; queries go to ask")
        running = self._run_here
        kind: type = type(command)
        handler = running.bus.handler_of(kind)
        ends_with_call = kind in running.bus.ending_with_call
        result: R = await running.write.units.run(
            lambda _unit: handler(command), self._context(), kind, ends_with_call=ends_with_call
        )
        return result

    def ask(self, query: Query[R] | QueryOf[R]) -> Coroutine[Any, Any, R]:
        """Calls the query's handler, and returns the coroutine: awaited, the handler's result."""
        handler = self._queries.get(type(query))
        if handler is None:
            if not isinstance(query, QUERIES):
                raise TypeError(f"ask takes a Query, not {type(query).__name__}; commands go to execute")
            handler = self._run.bus.handler_of(type(query))  # says why there is none
        return handler(query)

    async def rebuild(
        self, read_model: type[ReadModel[Any]], tell: Callable[[Progress], None] | None = None
    ) -> int:
        """Builds a read model in Redis anew from SQL, and returns the number of documents written.

        Needed after changes that nobody can notice, such as an edited file of SQLite. The read model goes on serving
        meanwhile; at the switch SQL answers for some milliseconds. A build under way is waited for instead. ``tell``
        is called with the progress (``done``, ``total``, ``time_left_s``) after each batch. Raises
        ``RedisUnavailableError``, ``DatabaseUnavailableError``, and ``RebuildFailedError`` if Redis has not the
        memory for both or another process rebuilds the read model too.
        """
        redis = self._run_here.redis
        if read_model not in self._read_models:
            raise WiringError([f"{read_model!r} is not one of the application's read models"])
        if redis is None:
            raise ConfigurationError("REDIS_URL", "is not set: SQL answers, and there is nothing to rebuild")
        return (await redis.rebuild(read_model, tell)).done

    async def catch_up(self) -> None:
        """Returns when all that was committed before the call, by anybody, is visible to queries.

        To be called before an answer that is to show what others have written: raw SQL, another service, a session
        outside of commands. Costs two short ``SELECT``, which those who call at once share, while there is nothing to
        bring in; otherwise some milliseconds, and up to a lease after what no trigger has logged: a table that was
        swapped or truncated, triggers that were disabled. Raises ``DatabaseUnavailableError``.

        >>> import asyncio
        >>> from diptych import ConfigService, Diptych
        >>> from sqlalchemy.orm import DeclarativeBase
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> async def main():
        ...     async with Diptych(ConfigService(database_url="books.db"), models=Base, handlers=[]) as app:
        ...         await app.catch_up()  # what is asked from here on shows everything written before
        >>> asyncio.run(main())
        """
        await self._run_here.write.catch_up()

    async def health(self, *, details: bool | None = None) -> Health:
        """Returns the present state of SQL, of Redis and of each read model.

        With ``details`` it has the words of Redis and of its driver, with the address, which are not for strangers;
        None: if the setting HEALTH_DETAILS says so.
        """
        running = self._run_here
        redis = running.redis
        if redis is not None:
            await redis.look()
        sql = await running.write.health()
        state = NO_REDIS if redis is None else redis.health()
        if details is None:
            details = self.config.settings.health_details
        return Health(
            status="ok" if sql.state == "up" else "unavailable",
            sql=sql,
            redis=state if details else state.for_strangers(),
            read_models={
                model.__name__: SQL_ALONE if redis is None else redis.health_of(model)
                for model in self._read_models
            },
        )

    async def statistics(self) -> Statistics:
        """Returns the figures of this process since its start, and the present lag of each read model.

        The lag costs one ``SELECT`` of the fence and one for each read model, and a look at Redis if there is a lag.
        """
        running = self._run_here
        found = await running.redis.statistics(running.write.database) if running.redis is not None else {}
        read_models = {
            model.__name__: structs.replace(
                found.get(model, ReadModelStatistics()), answers_from_sql=dict(reader.answers_from_sql)
            )
            for model, reader in running.readers.items()
        }
        return Statistics(read_models, running.write.acknowledger.waits.statistics)

    def provide(self, kind: type[S]) -> S:
        """Returns what the constructor of a handler would be given for a type: a read model, a service, this itself.

        Raises ``WiringError`` if nothing, or several things, fit.
        """
        return cast(S, self._run.bus.provide(kind))

    @property
    def read_models(self) -> tuple[type[ReadModel[Any]], ...]:
        """The classes of the read models."""
        return self._read_models

    @property
    def _run(self) -> _Running:
        if self._running is None:
            raise NotStartedError("the application is not started: `await app.start()`, or `async with app:`")
        return self._running

    @property
    def _run_here(self) -> _Running:
        running = self._run
        self._check_loop()
        return running

    def _check_loop(self) -> None:
        if self._home is not None:
            self._home.check()

    def _context(self) -> CommandContext:
        scope = request_scope.get()
        return new_context(correlation_id(scope), self._actor(scope) if self._actor is not None else None)

    def _context_of_request(self) -> CommandContext:
        # Outside of commands and of requests nobody says who acts: a script, a test.
        return new_context() if request_scope.get() is None else self._context()

    async def _start(self, exits: contextlib.AsyncExitStack, home: HomeLoop) -> _Running:
        """Opens both panels, wires the handlers, and joins the panels by the hinge.

        The part that is opened last is closed first: commands that are committing still find the read side open.
        """
        exits.push_async_callback(self.orm.close)
        await self.orm.init(models=self._models, engine=self.engine, log_images=self._log_images)
        settings, write = self.config.settings, self.orm.side
        await write.check_tables(self._models, mapped_classes(self._read_models))
        panels = await open_panels(self._read_models, write.database, write.entities, settings)
        write.warn_of_refusals(self._models)
        await warn_of_missing(panels, write.database)
        await write.capture({table for panel in panels for table in panel.compiled.tables})
        redis, redis_services = _redis_side(settings, panels, write)
        readers: dict[type, Reader] = {}
        for panel in panels:
            source = None if redis is None else redis.source(panel.model)
            readers[panel.model] = Reader(home, panel.compiled, panel.fallback, write.note_read, source)
        read_models: dict[type, object | None] = {
            panel.model: panel.model(readers[panel.model]) for panel in panels
        }
        own: dict[type, object] = {type(self): self, type(self.config): self.config, ORMService: self.orm}
        bus = Bus(self._handlers, by_type(self._services) | own | redis_services | read_models)
        retention = Retention(write.database, settings, followers(write.database.name))
        exits.push_async_callback(retention.stop)
        retention.start()
        if redis is not None:
            exits.push_async_callback(redis.stop)
            await redis.start()
        exits.push_async_callback(write.units.settle)
        return _Running(exits.pop_all(), bus, write, redis, readers)


def _checked(engine: AppEngine, config: ConfigService) -> AppEngine:
    layer = config.layer_of("DATABASE_URL")
    if layer != "default":
        raise ConfigurationError(
            "DATABASE_URL", f"is set ({layer}), and engine= names a database too: give one of them"
        )
    return check_engine(engine)


class _Running(NamedTuple):
    """The parts of an application between start and stop."""

    exits: contextlib.AsyncExitStack
    bus: Bus
    write: WriteSide
    redis: RedisSide | None
    readers: Mapping[type, Reader]


def _redis_side(
    settings: Settings, panels: Sequence[ReadPanel], write: WriteSide
) -> tuple[RedisSide | None, dict[type, object | None]]:
    """Returns the Redis side, None without ``REDIS_URL``, and the service that handlers may ask for, by its type.

    The package ``redis`` is an extra: nothing else in this module may import a room that needs it.
    """
    url = settings.redis_url
    try:
        from diptych.hinge.side import RedisService, RedisSide
    except MissingExtraError:
        if url is not None:
            raise
        return None, {}  # there is no class that a handler could ask for
    if url is None:
        return None, {RedisService: None}
    side = RedisSide(url, settings, panels, write.fence, write.acknowledger)
    return side, {RedisService: side.service}
