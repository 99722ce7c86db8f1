"""``Diptych``: the one place where an application is put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from diptych.aio.home_loop import HomeLoop
from diptych.aio.loop_budget import LoopBudget
from diptych.config.service import ConfigService
from diptych.context import correlation_id, request_scope
from diptych.errors import ConfigurationError, NotStartedError, WiringError
from diptych.fence.statements import followers
from diptych.health import Health, ReadModelHealth, RedisHealth, SetAsideRow, SqlHealth
from diptych.log.change import CommandContext
from diptych.log.retention import Retention
from diptych.messages.handlers import Bus, Handler, by_type
from diptych.messages.message import Command, Query
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.read.model import ReadModel
from diptych.read.reader import Reader
from diptych.read.sql.fallback import SqlFallback
from diptych.read.sql.rows import SqlRows
from diptych.write.orm import ORMService
from diptych.write.unit_of_work import new_context

if TYPE_CHECKING:
    # Redis is an extra: without it SQL answers, and nothing that needs it may be imported.
    from diptych.hinge.hinge import Hinge
    from diptych.hinge.keeper import Keeper
    from diptych.hinge.status import Progress
    from diptych.redis.service import RedisService

R = TypeVar("R")
ActorHook = Callable[[Mapping[str, Any] | None], str | None]


class Diptych:
    """An application: its models, the handlers of its messages, and its read models.

    ``models`` is the declarative base whose tables are created at start. ``handlers`` are classes whose methods
    handle commands and queries; their constructors may ask for ``ConfigService``, ``ORMService``,
    ``RedisService``, the read models, ``Diptych`` itself, and the instances in ``services``. ``actor`` tells the
    change log who acts: it is called once a command with the ASGI scope of its request (None outside of one).

    Nothing is opened before ``start``, which raises ``WiringError`` and ``ConfigurationError`` for what does not
    fit together, ``SchemaVersionError``, and ``UnavailableError`` for a store that can't be done without. From then
    on it works in the event loop of ``start`` alone; in another one everything raises ``DifferentLoopError``.
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
    ) -> None:
        self.config = config or ConfigService()
        self.orm = ORMService(self.config)
        self._models = models
        self._handlers = tuple(handlers)
        self._read_models = tuple(read_models)
        self._services = tuple(services)
        self._actor = actor
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

    async def stop(self) -> None:
        """Finishes the commands that are being committed and closes everything. Safe to call twice."""
        self._check_loop()
        async with self._starting:
            running, self._running, self._queries = self._running, None, {}
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

    async def execute(self, command: Command[R]) -> R:
        """Runs the command's handler as one transaction and returns its result once that is visible to queries.

        Whatever the handler raises leaves nothing behind. Inside another command it joins that one. A handler is
        run again, from its start, if a concurrent transaction won (``ConflictError`` when that goes on).
        """
        if not isinstance(command, Command):
            raise TypeError(f"execute takes a Command, not {type(command).__name__}; queries go to ask")
        handler = self._run_here.bus.handler_of(type(command))
        result: R = await self.orm.units.run(lambda _unit: handler(command), self._context(), type(command))
        return result

    def ask(self, query: Query[R]) -> Coroutine[Any, Any, R]:
        """The query's handler, called: awaited, it is its result."""
        handler = self._queries.get(type(query))
        if handler is None:
            if not isinstance(query, Query):
                raise TypeError(f"ask takes a Query, not {type(query).__name__}; commands go to execute")
            handler = self._run.bus.handler_of(type(query))  # says why there is none
        return handler(query)

    async def rebuild(
        self, read_model: type[ReadModel[Any]], tell: Callable[[Progress], None] | None = None
    ) -> int:
        """Builds a read model in Redis anew from SQL, and returns how many documents were written.

        Needed after rows were changed by raw SQL. The read model goes on serving meanwhile; at the switch SQL answers
        for some milliseconds. If it is being built anyway, this waits for that. ``tell`` is called with the progress
        (``done``, ``total``, ``time_left_s``) after each batch. Raises ``RedisUnavailableError``,
        ``DatabaseUnavailableError``, and ``RebuildFailedError`` if Redis has not the memory for both or another
        process rebuilds it too.
        """
        running = self._run_here
        keeper = running.keepers.get(read_model)
        if keeper is None:
            if read_model not in self._read_models:
                raise WiringError([f"{read_model!r} is not one of the application's read models"])
            raise ConfigurationError("REDIS_URL", "is not set: SQL answers, and there is nothing to rebuild")
        return (await keeper.rebuild(tell)).done

    async def health(self) -> Health:
        """The state of SQL, of Redis and of each read model, as it is now."""
        running = self._run_here
        await asyncio.gather(*(keeper.check() for keeper in running.keepers.values()))
        sql = SqlHealth("up" if await self.orm.is_reachable() else "away", self.orm.database.name)
        return Health(
            status="ok" if sql.state == "up" else "unavailable",
            sql=sql,
            redis=_redis_health(running.redis),
            read_models={
                model.__name__: _served_by(running.keepers.get(model)) for model in self._read_models
            },
        )

    @property
    def read_models(self) -> tuple[type[ReadModel[Any]], ...]:
        """The classes of its read models."""
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

    async def _start(self, exits: contextlib.AsyncExitStack, home: HomeLoop) -> _Running:
        """What is opened last is closed first: commands that are committing still find the read side open."""
        _check_names(self._read_models)
        exits.push_async_callback(self.orm.close)
        await self.orm.init(models=self._models)
        redis = _redis_service(self.config)
        turns, pace = asyncio.Semaphore(self.config.get("SQL_QUERY_CONCURRENCY")), LoopBudget()
        await self.orm.look_at_tables(_mapped_classes(self._read_models))
        panels = [self._read_panel(model, turns, pace) for model in self._read_models]
        self.orm.warn_of_refusals(self._models)
        keepers = _keepers(self.config, self.orm, redis, panels)
        read_models = {
            panel.model: panel.model(_reader(home, panel, keepers.get(panel.model))) for panel in panels
        }
        bus = Bus(self._handlers, self._provided(redis, read_models))
        retention = Retention(self.orm.database, self.config, followers(self.orm.database.name))
        exits.push_async_callback(retention.stop)
        retention.start()
        if redis is not None:
            hinge = _hinge(redis, self.orm, keepers)
            exits.push_async_callback(redis.close)
            await redis.start()
            await self.orm.fence.listen()
            exits.push_async_callback(hinge.stop)
            self.orm.acknowledger.read_side = hinge
            hinge.start()
        exits.push_async_callback(self.orm.finish)
        return _Running(exits.pop_all(), bus, redis, keepers)

    def _read_panel(self, model: type[ReadModel[Any]], turns: asyncio.Semaphore, pace: LoopBudget) -> _Panel:
        """The read model's declaration compiled, and the SQL side of it. Raises ``WiringError``."""
        entity = self.orm.entity(_key_of(model).class_)
        dialect = self.orm.database.reader.dialect
        joined = {joined: self.orm.entity(joined).describe(dialect) for joined in joined_models(model)}
        compiled = CompiledReadModel(model, entity.describe(dialect), joined)
        source = SqlRows(
            self.orm.database,
            self.orm.entity,
            entity,
            compiled.key,
            compiled.columns,
            compiled.joins,
            on_read=self.orm.rests_on,
        )
        timeout_s = self.config.get("DATABASE_TIMEOUT_MS") / 1000
        return _Panel(model, compiled, source, SqlFallback(compiled, source, turns, pace, timeout_s))

    def _provided(
        self, redis: RedisService | None, read_models: Mapping[type, ReadModel[Any]]
    ) -> dict[type, object | None]:
        services = by_type(self._services)
        services |= {type(self): self, type(self.config): self.config, ORMService: self.orm, **read_models}
        with contextlib.suppress(ConfigurationError):  # without the extra there is no such class to ask for
            from diptych.redis.service import RedisService

            services[RedisService] = redis
        return services


def _key_of(model: type[ReadModel[Any]]) -> Any:
    attribute = getattr(model, "key", None)
    if attribute is None or not hasattr(attribute, "class_"):
        raise WiringError([f"{model.__name__}: `key` must be a mapped attribute, such as Book.title"])
    return attribute


def _mapped_classes(read_models: Iterable[type[ReadModel[Any]]]) -> Iterator[type]:
    """Those that documents are made from."""
    for model in read_models:
        yield _key_of(model).class_
        yield from joined_models(model)


class _Panel(NamedTuple):
    """One read model's declaration compiled, and its route over SQL."""

    model: type[ReadModel[Any]]
    compiled: CompiledReadModel
    source: SqlRows
    fallback: SqlFallback


class _Running(NamedTuple):
    """What exists between start and stop."""

    exits: contextlib.AsyncExitStack
    bus: Bus
    redis: RedisService | None
    keepers: dict[type, Keeper]


def _redis_service(config: ConfigService) -> RedisService | None:
    url = config.get("REDIS_URL")
    if url is None:
        return None
    from diptych.redis.service import RedisService

    return RedisService(
        url,
        critical=config.get("REDIS_CRITICAL"),
        namespace=config.get("REDIS_NAMESPACE"),
        query_timeout_ms=config.get("REDIS_QUERY_TIMEOUT_MS"),
        command_timeout_ms=config.get("REDIS_COMMAND_TIMEOUT_MS"),
    )


def _keepers(
    config: ConfigService, orm: ORMService, redis: RedisService | None, panels: Sequence[_Panel]
) -> dict[type, Keeper]:
    """What looks after the read models in Redis, by their classes; none without Redis."""
    if redis is None:
        return {}
    from diptych.hinge.keeper import Keeper
    from diptych.hinge.replica import Replica
    from diptych.read.store.store import RedisStore

    def keeper(panel: _Panel) -> Keeper:
        store = RedisStore(panel.compiled, redis)
        batch_size = config.get("REBUILD_BATCH_SIZE")
        return Keeper(
            Replica(panel.compiled, panel.source, store, redis, orm.fence, batch_size=batch_size),
            redis,
            orm.fence,
            orm.acknowledger.rows,
            lease_s=config.get("LEASE_MS") / 1000,
            probe_interval_s=config.get("REDIS_PROBE_INTERVAL_MS") / 1000,
        )

    return {panel.model: keeper(panel) for panel in panels}


def _hinge(redis: RedisService, orm: ORMService, keepers: Mapping[type, Keeper]) -> Hinge:
    """What keeps the read panels true to the write panel."""
    from diptych.hinge.hinge import Hinge

    return Hinge(redis, orm.fence, list(keepers.values()))


def _reader(home: HomeLoop, panel: _Panel, keeper: Keeper | None) -> Reader:
    """Joins the two routes to a read model's answers."""
    return Reader(home, panel.compiled, panel.fallback, None if keeper is None else keeper.source)


def _redis_health(redis: RedisService | None) -> RedisHealth:
    if redis is None:
        return RedisHealth("off", "REDIS_URL is not set")
    if redis.available:
        return RedisHealth("up")
    return RedisHealth("refused" if redis.refused else "away", redis.problem)


def _served_by(keeper: Keeper | None) -> ReadModelHealth:
    if keeper is None:
        return ReadModelHealth("sql", "no-redis")
    status, progress, set_aside = keeper.status, keeper.status.progress, keeper.set_aside
    table = keeper.replica.compiled.entity.table
    return ReadModelHealth(
        served_by="redis" if status.fresh else "sql",
        detail=None if status.fresh else status.reason,
        since=status.since,
        progress=None if progress is None else str(progress),
        time_left_s=None if progress is None else progress.time_left_s,
        set_aside=None if set_aside is None else set_aside.number,
        set_aside_rows=tuple(SetAsideRow(table, *row) for row in set_aside.rows) if set_aside else (),
    )


def _check_names(read_models: Sequence[type]) -> None:
    counts = Counter(model.__name__ for model in read_models)
    problems = [
        f"{count} read models are named {name}: rename all but one, or they would share their keys in Redis"
        for name, count in counts.items()
        if count > 1
    ]
    if problems:
        raise WiringError(problems)
