"""One process of a run: an application under load from tasks of its own, everything recorded.

    python -m tests.acceptance.faults.worker '{"database": …}'

It takes orders from its standard input, a line each (see ``_Orders``), and tells on its standard output, a line each,
when it is ready, which store answers from now on, and which armed point it has reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from diptych import (
    Command,
    ConflictError,
    ConstraintError,
    Diptych,
    Document,
    ORMService,
    UnavailableError,
)
from diptych.context import request_scope
from tests.acceptance.faults import application as app
from tests.acceptance.faults.history import PROCESS, Begin, End, Entry, Failure, Get, Page, Writer, now
from tests.acceptance.faults.points import Points, break_rule

OWNERS = 3
"""How many owners there are, numbered from 1."""

MIX = (16, 30, 12, 10, 5, 8, 4, 8)
"""How often each kind of command is sent, in the order of ``Load._some_write``."""


class Options(msgspec.Struct, frozen=True):
    """What a process is started with.

    ``number`` is its own in the run. ``script``: not an application, but ``ORMService`` alone, which only writes.
    ``readers`` and ``writers`` are tasks; between two operations each waits its ``pause_ms`` on average. ``mix`` says
    how often each kind of command is sent, in the order of ``Load._some_write``.
    """

    number: int
    database: str
    redis: str | None
    history: str
    seed: int = 0
    lease_ms: int = 2000
    revision: int = 1
    script: bool = False
    broken_rule: str | None = None
    readers: int = 3
    writers: int = 2
    read_pause_ms: float = 4
    write_pause_ms: float = 20
    hot: int = 6
    cold: int = 30
    mix: tuple[int, ...] = MIX
    settings: dict[str, Any] = {}


def main() -> None:
    """Runs until told to quit."""
    options = msgspec.json.decode(sys.argv[1], type=Options)
    points = Points(_tell)
    points.install()
    if options.broken_rule is not None:
        break_rule(options.broken_rule)
    asyncio.run(_run(options, points))


async def _run(options: Options, points: Points) -> None:
    writer = Writer(Path(options.history))
    configuration = app.config(options.database, options.redis, options.lease_ms, **options.settings)
    async with contextlib.AsyncExitStack() as exits:
        load: Load
        if options.script:
            orm = ORMService(configuration)
            await orm.init(models=app.Base)
            await exits.enter_async_context(orm)
            load = Load(options, writer, _ScriptBus(orm))
        else:
            application = app.application(configuration, options.revision)
            load = Load(options, writer, await exits.enter_async_context(application))
        _tell("ready")
        load.start()
        await _Orders(load, points).follow()
        await load.stop()
    writer.close()
    _tell("ended")


def _tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class _ScriptBus:
    """``ORMService`` alone, with the handlers of the application called directly."""

    def __init__(self, orm: ORMService) -> None:
        self._orm = orm
        self._commands = app.Commands(orm)

    async def execute(self, command: Command[bool]) -> bool:
        scope = request_scope.get() or {}
        write = int(dict(scope["headers"])[b"x-request-id"])
        handlers: dict[type, Callable[[Any], Awaitable[bool]]] = {
            app.AddItem: self._commands.add,
            app.ChangeItem: self._commands.change,
            app.DeleteItem: self._commands.delete,
            app.RecreateItem: self._commands.recreate,
            app.RenameItem: self._commands.rename,
            app.ChangeItems: self._commands.change_several,
            app.ChangeNothing: self._commands.change_nothing,
            app.RenameOwner: self._commands.rename_owner,
        }
        handler = handlers[type(command)]
        return await self._orm.units.run(lambda _unit: handler(command), app.context_of(write), type(command))


class Load:
    """The tasks that read and write, and what they record."""

    def __init__(self, options: Options, writer: Writer, bus: Diptych | _ScriptBus) -> None:
        self._options = options
        self._record = writer.add
        self._bus = bus
        self._random = random.Random(f"{options.seed}.{options.number}")
        self._last_write = options.number * PROCESS
        self._tasks: set[asyncio.Task[None]] = set()
        self._operations: set[asyncio.Task[None]] = set()
        self._stores: dict[str, str] = {}
        self._cancelling: asyncio.Task[None] | None = None
        self.favour(options.hot, options.cold, options.mix)

    def start(self) -> None:
        """Begins to read and write."""
        loops = [self._write_on] * self._options.writers
        if not self._options.script:
            loops += [self._read_on] * self._options.readers
        for loop in loops:
            self._spawn(self._tasks, loop())

    async def stop(self) -> None:
        """Lets what is under way come to its end, and begins nothing more."""
        self.cancel_at_random(on=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._operations, return_exceptions=True)

    def favour(self, hot: int, cold: int, mix: Sequence[int]) -> None:
        """So many keys, and how often each kind of command is sent, from now on."""
        self._hot = [f"h{n}" for n in range(hot)]
        self._cold = [f"c{n:02}" for n in range(cold)]
        self._mix = mix

    def cancel_at_random(self, *, on: bool) -> None:
        """Whether operations are cancelled, each at whatever it awaits."""
        if self._cancelling is not None:
            self._cancelling.cancel()
            self._cancelling = None
        if on:
            self._cancelling = asyncio.get_running_loop().create_task(self._cancel_on())

    async def burst(self, key: str, count: int) -> None:
        """So many equal queries at once."""
        await asyncio.gather(*(self._get(key) for _ in range(count)))

    async def rebuild(self) -> None:
        """A planned rebuild of the read models of this process."""
        for model in app.READ_MODELS:
            await self._bus.rebuild(model)  # type: ignore[union-attr]

    def _spawn(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _cancel_on(self) -> None:
        while True:
            # Turns of the loop, not time: a cancellation is to hit each of the awaits.
            for _ in range(self._random.randrange(1, 60)):
                await asyncio.sleep(0)
            await asyncio.sleep(self._random.random() * 0.02)
            if self._operations:
                self._random.choice(sorted(self._operations, key=id)).cancel()

    async def _read_on(self) -> None:
        while True:
            await self._do(self._some_read())
            await self._pause(self._options.read_pause_ms)

    async def _write_on(self) -> None:
        while True:
            keys, write = self._some_write()
            await self._do(write)
            if not self._options.script and self._random.random() < 0.5:
                # The sternest reader is the one who has just been told.
                await self._do(self._get(keys[0]))
            await self._pause(self._options.write_pause_ms)

    async def _do(self, operation: Coroutine[Any, Any, None]) -> None:
        """Awaits it in a task of its own, which can be cancelled without ending the load."""
        task = self._spawn(self._operations, operation)
        try:
            await asyncio.wait([task])
        finally:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _pause(self, mean_ms: float) -> None:
        await asyncio.sleep(self._random.random() * mean_ms * 2 / 1000)

    def _some_key(self) -> str:
        return self._random.choice(self._hot if self._random.random() < 0.75 else self._cold)

    # Reads

    def _some_read(self) -> Coroutine[Any, Any, None]:
        chance = self._random.random()
        if chance < 0.55:
            return self._get(self._some_key())
        if chance < 0.8:
            return self._get_joined(self._some_key())
        return self._browse(self._random.choice(["key", "value"]))

    async def _get(self, key: str) -> None:
        async with self._recording_failure("get", key) as begun:
            document = await self._bus.ask(app.GetItem(key))  # type: ignore[union-attr]
            ended = now()
            item = self._decoded(document, app.ItemDocument, "get")
            served = document.served
            get = Get(key, self._options.number, begun, ended, served.store, served.reason or "")
            if item is not None:
                get = msgspec.structs.replace(get, value=item.value, owner=item.owner_id, found=item.key)
            self._record(get)

    async def _get_joined(self, key: str) -> None:
        async with self._recording_failure("joined", key) as begun:
            document = await self._bus.ask(app.GetOwnedItem(key))  # type: ignore[union-attr]
            ended = now()
            item = self._decoded(document, app.OwnedItemDocument, "joined")
            served = document.served
            get = Get(key, self._options.number, begun, ended, served.store, served.reason or "", joined=True)
            if item is not None:
                replaced = {"owner_name": item.owner_name, "found": item.key}
                get = msgspec.structs.replace(get, value=item.value, owner=item.owner_id, **replaced)
            self._record(get)

    def _decoded(self, document: Document[Any], kind: type[Any], what: str) -> Any:
        self._note_store(what, document.served.store)
        return None if document.body is None else msgspec.json.decode(document.body, type=kind)

    async def _browse(self, order: str) -> None:
        """A page, and now and then the one after it."""
        cursor, last = None, None
        limit = self._random.choice([3, 10, 10, 60])
        for _ in range(self._random.choice([1, 1, 2, 4])):
            async with self._recording_failure("page", order) as begun:
                page = await self._bus.ask(app.ListItems(order, limit, cursor))  # type: ignore[union-attr]
                ended = now()
                self._note_store("page", page.served.store)
                items = page.decode()
                cursor = items.next
                entries = [Entry(item.key, item.value, item.owner_id) for item in items.items]
                served = page.served.store, page.served.reason or ""
                process, more = self._options.number, cursor is not None
                self._record(Page(order, last, limit, process, begun, ended, *served, more, entries))
                last = entries[-1][:2] if entries else None
            if cursor is None:
                return

    @contextlib.asynccontextmanager
    async def _recording_failure(self, kind: str, key: str) -> AsyncIterator[int]:
        begun = now()
        try:
            yield begun
        except UnavailableError as error:
            self._record(Failure(kind, key, begun, now(), _told(error), expected=True))
            self._note_store(kind, "none")
            await asyncio.sleep(0.02)
        except Exception as error:
            self._record(Failure(kind, key, begun, now(), _told(error), expected=False))
            await asyncio.sleep(0.1)

    def _note_store(self, what: str, store: str) -> None:
        if self._stores.get(what) != store:
            self._stores[what] = store
            _tell(f"store {what} {store}")

    # Writes

    def _some_write(self) -> tuple[list[str], Coroutine[Any, Any, None]]:
        key, value = self._some_key(), self._next_write()
        owner = self._random.randint(1, OWNERS)
        keys, kind = [key], ""
        command: Command[bool]
        match self._random.choices(range(8), self._mix)[0]:
            case 0:
                kind, command = "add", app.AddItem(key, value, owner)
            case 1:
                kind, command = "change", app.ChangeItem(key, value, self._random.choice([None, None, owner]))
            case 2:
                kind, command = "delete", app.DeleteItem(key)
            case 3:
                kind, command = "re-create", app.RecreateItem(key, value, owner)
            case 4:
                keys = [key, self._some_key()]
                kind, command = "rename", app.RenameItem(key, keys[1], value)
            case 5:
                keys = [*sorted(self._random.sample(self._hot, 2)), self._random.choice(self._cold)]
                kind, command = "change several", app.ChangeItems(keys, value)
            case 6:
                kind, command = "change nothing", app.ChangeNothing(key, value)
            case _:
                keys = [str(owner)]
                kind, command = "rename owner", app.RenameOwner(owner, str(value))
        return keys, self._write(value, kind, keys, command)

    def _next_write(self) -> int:
        self._last_write += 1
        return self._last_write

    async def _write(self, number: int, kind: str, keys: list[str], command: Command[bool]) -> None:
        request_scope.set({"headers": [(b"x-request-id", b"%d" % number)]})
        self._record(Begin(number, kind, keys, now()))
        outcome, note = "unknown", ""
        try:
            outcome = "done" if await self._bus.execute(command) else "nothing"
        except (ConstraintError, ConflictError, app.ChangedMindError) as error:
            outcome, note = "failed", _told(error)
        except UnavailableError as error:
            note = _told(error)
        except asyncio.CancelledError:
            note = "cancelled"
            raise
        except Exception as error:
            outcome, note = "error", _told(error)
        finally:
            self._record(End(number, outcome, now(), note))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


class _Orders:
    """``arm point when action``, ``disarm``, ``rebuild``, ``burst key count``, ``favour hot cold mix…``, …"""

    def __init__(self, load: Load, points: Points) -> None:
        self._load = load
        self._points = points
        self._background: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Returns at ``quit``, or when nobody can give orders any more."""
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().split():
            match line:
                case ["arm", point, when, action]:
                    self._points.arm(point, when, action)
                case ["disarm"]:
                    self._points.disarm()
                case ["favour", hot, cold, *mix]:
                    self._load.favour(int(hot), int(cold), [int(weight) for weight in mix])
                case ["cancel", how]:
                    self._load.cancel_at_random(on=how == "on")
                case ["burst", key, count]:
                    self._in_background("burst", self._load.burst(key, int(count)))
                case ["rebuild"]:
                    self._in_background("rebuild", self._load.rebuild())
                case ["quit"]:
                    break
                case _:
                    raise ValueError(f"no such order: {line}")
        await asyncio.gather(*self._background)

    def _in_background(self, name: str, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception as error:
                _tell(" ".join(f"failed {name} {_told(error)}".split()))
            else:
                _tell(f"finished {name}")

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


if __name__ == "__main__":
    main()
