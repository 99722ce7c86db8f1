"""The load of one process: the tasks that read and write, and what they record."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from diptych import ConflictError, ConstraintError, UnavailableError
from diptych.context import request_scope
from tests.acceptance.faults import application as app
from tests.acceptance.faults.answers import TakenError
from tests.acceptance.faults.asking import Asking, told
from tests.acceptance.faults.beside import statements as beside
from tests.acceptance.faults.commands import KINDS, MIX, OWNERS, Step
from tests.acceptance.faults.history import (
    CATCH_UP,
    ITEM,
    OPEN_ITEM,
    PROCESS,
    Begin,
    End,
    Saw,
    Writer,
    now,
)
from tests.acceptance.faults.open_items import OF_TWO, WAYS, WITH_ORM_SERVICE, keys_of_owners
from tests.acceptance.faults.queries import LISTS_OF

KIN = tuple(f"k{n}" for n in range(4))
KIN_OF = {ITEM: KIN, OPEN_ITEM: beside.KIN}
"""The keys of items that only stories change, and everybody reads."""


class Options(msgspec.Struct, frozen=True):
    """What a process is started with.

    ``number`` is its own in the run. ``renamed``: its read models have other names.
    ``script``: not an application, but ``ORMService`` alone, which only writes.
    ``readers`` and ``writers`` are tasks; between two operations each waits its ``pause_ms`` on average. ``mix`` says
    how often each kind of command is sent, in the order of ``KINDS``.
    """

    number: int
    database: str
    redis: str | None
    history: str
    seed: int = 0
    lease_ms: int = 2000
    revision: int = 1
    renamed: bool = False
    script: bool = False
    broken_rule: str | None = None
    readers: int = 3
    writers: int = 2
    read_pause_ms: float = 20
    write_pause_ms: float = 40
    hot: int = 6
    cold: int = 30
    mix: tuple[int, ...] = MIX
    settings: dict[str, Any] = {}


class Load:
    """The tasks that read and write, and what they record."""

    def __init__(self, options: Options, writer: Writer, bus: Any, tell: Callable[[str], None]) -> None:
        self._options = options
        self.record = writer.add
        self._bus = bus
        self._random = random.Random(f"{options.seed}.{options.number}")
        self._last_write = options.number * PROCESS
        self._ask = Asking(bus, options.number, self._random, writer.add, tell)
        self._readers: set[asyncio.Task[None]] = set()
        self._operations: set[asyncio.Task[None]] = set()
        self._cancelling: asyncio.Task[None] | None = None
        self._writers: set[asyncio.Task[None]] = set()
        self.favour(options.hot, options.cold, options.mix)

    def start(self) -> None:
        """Begins to read and write."""
        self.start_writing()
        for _ in range(0 if self._options.script else self._options.readers):
            self._spawn(self._readers, self._read_on())

    def start_writing(self) -> None:
        """Begins to send commands."""
        for _ in range(self._options.writers):
            self._spawn(self._writers, self._write_on())

    async def stop(self) -> None:
        """Lets what is under way come to its end, and begins nothing more."""
        self.cancel_at_random(on=False)
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self.stop_writing()

    async def stop_writing(self) -> None:
        """Begins no more commands, and lets those that are under way come to their end."""
        for task in self._writers:
            task.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
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

    async def do(self, steps: Sequence[Step]) -> None:
        """Sends these commands, one after the other, and asks after each for all that it names."""
        for step in steps:
            await self._do(self._write(step))
            if not self._options.script and not step.is_of_owners:
                got = (self._ask.get(key, step.items) for key in step.keys)
                await asyncio.gather(*got, self._ask.browse("key", step.items))
                await asyncio.gather(*(self._ask.get_joined(key, step.items) for key in step.keys))
                await asyncio.gather(*(self._ask.get_owner(n, step.items) for n in beside.ANY_OWNER))

    async def burst(self, key: str, count: int) -> None:
        """So many equal queries at once."""
        await asyncio.gather(*(self._ask.get(key) for _ in range(count)))

    async def rebuild(self) -> None:
        """A planned rebuild of the read models of this process."""
        for model in app.READ_MODELS:
            await self._bus.rebuild(model)

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
            step = self._some_step()
            await self._do(self._write(step))
            if not self._options.script and self._random.random() < 0.5:
                # The sternest reader is the one who has just been told.
                await self._do(self._ask.get(step.keys[0], step.items))
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
        if chance < 0.005:
            return self._catch_up()
        entity, key = ITEM, self._some_key()
        if self._random.random() < 0.4:
            entity, key = OPEN_ITEM, beside.some_key(self._random)
        if self._random.random() < 0.2:
            key = self._random.choice(KIN_OF[entity])
        if chance < 0.55:
            return self._ask.get(key, entity)
        if chance < 0.7:
            return self._ask.get_joined(key, entity)
        if chance < 0.85:
            return self._ask.get_owner(self._random.choice(beside.ANY_OWNER), entity)
        return self._ask.browse(self._random.choice(LISTS_OF[entity]), entity)

    async def _catch_up(self) -> None:
        """Catches up with what others have written, and looks at some of it."""
        number = self._next_write()
        self.record(Begin(number, CATCH_UP, [], now(), OPEN_ITEM))
        outcome, note = "unknown", ""
        try:
            await self._bus.catch_up()
            outcome = "nothing"
        except UnavailableError as error:
            note = told(error)
        finally:
            self.record(End(number, outcome, now(), note, []))
        await self._ask.get(beside.some_key(self._random), OPEN_ITEM)

    # Writes

    def _next_write(self) -> int:
        self._last_write += 1
        return self._last_write

    def _some_step(self) -> Step:
        kind = self._random.choices(KINDS[: len(self._mix)], self._mix)[0]
        write, audit = self._next_write(), self._random.random() < 0.5
        return Step(kind, self._open_keys(kind) if kind in WAYS else self._keys(kind), write, audit=audit)

    def _keys(self, kind: str) -> list[str]:
        key, owner = self._some_key(), str(self._random.randint(1, OWNERS))
        if kind == "rename":
            return [key, self._some_key()]
        elif kind == "change several":
            return [*sorted(self._random.sample(self._hot, 2)), self._random.choice(self._cold)]
        elif kind.endswith("owner"):
            return [owner]
        return [key]

    def _open_keys(self, kind: str) -> list[str]:
        if keys_of_owners(kind):
            keys = [str(self._random.randint(1, beside.OWNERS)) for _ in range(2)]
        elif kind == WITH_ORM_SERVICE:
            keys = [beside.some_key(self._random), self._some_key()]
        else:
            keys = self._random.sample([*beside.HOT, *beside.COLD], 2)
        return keys if kind in OF_TWO else keys[:1]

    async def _write(self, step: Step) -> None:
        number = step.write
        request_scope.set({"headers": [(b"x-request-id", b"%d" % number)]})
        self.record(Begin(number, step.kind, step.keys, now(), step.entity))
        outcome, note = "unknown", ""
        saw: list[Saw] = []
        try:
            outcome, saw = step.told_by(await self._bus.execute(step.command()))
        except (ConstraintError, ConflictError, app.ChangedMindError, TakenError) as error:
            outcome, note, saw = "failed", told(error), step.told_by_error(error)
        except UnavailableError as error:
            note = told(error)
        except asyncio.CancelledError:
            note = "cancelled"
            raise
        except Exception as error:
            outcome, note = "error", told(error)
        finally:
            self.record(End(number, outcome, now(), note, saw))
