"""The gain of a user by each speed path of diptych: the same work with the path and without the path.

A speed path is code that does faster what simpler code beside it would also do. In a process of its own the path is
replaced by the simple way (``paths.py`` says by what). That process and one of diptych as it is have databases of
their own and take turns, with all the others of the same scenario. A scenario is what the path was written for, so
its best case: queries over HTTP, queries and commands by ``Diptych.ask`` and ``Diptych.execute``, one at a time and
many at once, on each database, durably. The gain is the rate with the path over the rate without it, and for one
client the median time without it over the one with it. 1 is nothing gained; a path that gains less than 1.15 wherever
it is measured may go. "nothing" is one more process of diptych as it is: its gains are noise.

Some paths rest on others: these are off on both sides, and stand behind "beneath". Lines are what would go, roughly,
without docstrings and comments; ``paths.py`` tells by names and numbers which. The processes that are measured have
one core, the load, Valkey and PostgreSQL the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.books import seed
from benchmarks.commands import together
from benchmarks.cores import load_core, server_core
from benchmarks.driver import get_one, get_page, loaded
from benchmarks.http_job import Job
from benchmarks.report import aligned, rounded, shown
from benchmarks.runner import Candidate, Case, Comparison, Sample, spread_of
from benchmarks.servers import BenchedCatalogue, serving, stored
from benchmarks.speed_paths.paths import NOTHING, PATHS, SpeedPath
from benchmarks.speed_paths.process import Setting, Worker, working
from benchmarks.trees import THIS
from benchmarks.valkey import valkey
from tests.acceptance.serving import FROM_REDIS
from tests.servers import PostgresServer, RedisServer

ENOUGH = 1.15
"""A path that gains less may go."""

AS_IT_IS = "as it is"
_BY_NAME = {path.name: path for path in PATHS}


class Scenario(NamedTuple):
    """An act of so many clients, and the speed paths that are to make the act faster."""

    act: str
    clients: int
    faster_by: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The speed paths, and first the lack of none."""
        return (NOTHING, *self.faster_by)

    @property
    def title(self) -> str:
        """In words."""
        at_once = "one at a time" if self.clients == 1 else f"{self.clients} at once"
        return f"{_WORDS[self.act]}, {at_once}"


_WORDS = {
    "GET one": "a book",
    "GET page": "a page of 50",
    "get": "queries for a book",
    "get_built": "queries, made of fields, for a book",
    "get_same": "queries for the same book",
    "page": "queries for a page of 50",
    "edit": "commands that change a book",
    "add": "commands that add a book",
}


class Stage(NamedTuple):
    """The stores and processes of scenarios; ``processes`` is the number of processes with the same database."""

    name: str
    database: str
    redis: bool
    scenarios: tuple[Scenario, ...]
    processes: int = 1
    http: bool = False

    @property
    def switched_off(self) -> list[tuple[str, ...]]:
        """The sets of paths to be off in a process, each once."""
        return list(dict.fromkeys(off for one in self.scenarios for off in _candidates(one)))


ONE, TWO, MANY = 1, 8, 32

_COMMANDS = ("own connections to Redis", "apply beside the sight", "own entries", "statements kept")
_COMMANDS_AT_ONCE = (
    *("shared scripts", "shared sights", "gathered sights", "own entries", "sights that are in"),
    *("passes leave out", "own connections to Redis"),
)
_ON_POSTGRESQL = (
    "one statement for change and log",
    "raw statements",
    "raw BEGIN and COMMIT",
    "dedicated reader",
)

STAGES = (
    Stage(
        "HTTP, Redis",
        "SQLite",
        True,
        (
            Scenario(
                "GET one",
                64,
                (
                    *("front", "remembered queries", "remembered headers", "remembered Accept"),
                    *("spared garbage collector", "batches of look-ups", "replies without a task"),
                    *("lease compared as text", "own connections to Redis"),
                ),
            ),
            Scenario("GET one", 1, ("front", "batches of look-ups", "replies without a task")),
            Scenario("GET page", 64, ("front", "a write per turn", "own connections to Redis")),
        ),
        http=True,
    ),
    Stage(
        "SQLite",
        "SQLite",
        False,
        (
            Scenario("get", ONE, ("inline reads",)),
            Scenario("get", MANY, ("inline reads", "keys of one form")),
            Scenario("page", ONE, ("inline reads",)),
            Scenario("page", MANY, ("inline reads", "places by types", "page selects kept")),
        ),
    ),
    Stage(
        "PostgreSQL",
        "PostgreSQL",
        False,
        (
            Scenario("get", MANY, ("read in one greenlet",)),
            Scenario("get_same", 64, ("single flight",)),
            Scenario("page", MANY, ("page selects kept", "places by types")),
            Scenario("edit", ONE, ("look with the commit",)),
            Scenario("edit", MANY, ("look with the commit",)),
        ),
    ),
    Stage(
        "SQLite and Redis",
        "SQLite",
        True,
        (
            Scenario(
                "get_built", ONE, ("plans kept", "one check of built messages", "plain text passed over")
            ),
            Scenario("edit", ONE, (*_COMMANDS, "inline reads", "statements in the loop", "plans kept")),
            Scenario("edit", MANY, (*_COMMANDS_AT_ONCE, "shared commits", "statements in the loop")),
            Scenario("add", ONE, ("statements in the loop", "inserts past the engine")),
            Scenario("add", MANY, ("shared commits", "statements in the loop", "inserts past the engine")),
        ),
    ),
    Stage(
        "PostgreSQL and Redis",
        "PostgreSQL",
        True,
        (
            Scenario("edit", ONE, (*_COMMANDS, *_ON_POSTGRESQL)),
            Scenario("edit", MANY, (*_COMMANDS_AT_ONCE, *_ON_POSTGRESQL)),
        ),
    ),
    Stage(
        "PostgreSQL and Redis, two processes",
        "PostgreSQL",
        True,
        (Scenario("edit", TWO, ("entries with the rows", "arrivals that Redis tells")),),
        processes=2,
    ),
)


class Scale(NamedTuple):
    """The length of a run; ``starting`` processes start at the same time, on ``cores``."""

    rounds: int
    seconds: float
    books: int
    starting: int
    cores: set[int]


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Each scenario with all its paths."""
    full = Scale(rounds=7, seconds=0.4, books=1000, starting=3, cores=server_core())
    short = Scale(rounds=1, seconds=0.05, books=200, starting=6, cores=server_core() | load_core())
    scale = short if quick else full
    with contextlib.ExitStack() as stack:
        places = Places(scale, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        places.postgresql = stack.enter_context(stored(_postgresql()))
        places.store = stack.enter_context(stored(valkey()))
        await places.seed()
        for stage in STAGES:
            async with contextlib.AsyncExitStack() as running:
                start = partial(_served, running) if stage.http else partial(_processes, running)
                started = await places.all_of(stage, start)
                for scenario in stage.scenarios:
                    candidates = {
                        _label(off): _measured(scenario, started[off], scale) for off in _candidates(scenario)
                    }
                    yield Case(_case(stage, scenario), scale.rounds, candidates, warm_up=not quick)
            places.store.flush()


def summary(comparisons: Sequence[Comparison]) -> str:
    """Returns the table of all paths, each with its gain in its scenarios."""
    gains = _gains({one.name: one for one in comparisons})
    rows = [["speed path", "file", "lines", "scenario", "gain", "at best"]]
    for path in PATHS:
        own = gains.get(path.name, [])
        best = max((median for _, median, _ in own), default=0.0)
        verdict = rounded(best) if best >= ENOUGH else f"**{rounded(best)}**"
        if path.name == NOTHING:
            verdict = "noise"
        beneath = f", beneath {' and '.join(path.beneath)}" if path.beneath else ""
        head = [f"{path.name}{beneath}", path.file, str(path.lines)]
        for number, (case, _, gain) in enumerate(own):
            rows.append([*(["", "", ""] if number else head), case, gain, "" if number else verdict])
    return f"## Speed paths (bold: less than {ENOUGH} at best)\n\n{aligned(rows)}"


def _gains(comparisons: dict[str, Comparison]) -> dict[str, list[tuple[str, float, str]]]:
    """Returns, by path, the scenarios with the median of the gain and the gain in words."""
    found: dict[str, list[tuple[str, float, str]]] = {}
    for stage in STAGES:
        for scenario in stage.scenarios:
            comparison = comparisons.get(_case(stage, scenario))
            if comparison is None:
                continue
            for path in map(_BY_NAME.__getitem__, scenario.paths):
                with_it, without = (comparison.samples[_label(off)] for off in _both(path))
                gain = spread_of([_gain(scenario, *pair) for pair in zip(with_it, without, strict=True)])
                found.setdefault(path.name, []).append((comparison.name, gain.median, shown(gain)))
    return found


def _gain(scenario: Scenario, with_it: Sample, without: Sample) -> float:
    if scenario.clients == 1:
        return without["median, ms"] / with_it["median, ms"]
    rate = next(iter(with_it))
    # In a quick run there may be no answer.
    return with_it[rate] / without[rate] if without[rate] else math.nan


def _case(stage: Stage, scenario: Scenario) -> str:
    each = " in each" if stage.processes > 1 else ""
    return f"{stage.name}: {scenario.title}{each}"


def _both(path: SpeedPath) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the paths that are off where this path is on, and where this path is off."""
    return path.beneath, (*path.beneath, path.name)


def _candidates(scenario: Scenario) -> list[tuple[str, ...]]:
    offs = [off for name in scenario.paths for off in _both(_BY_NAME[name])]
    return list(dict.fromkeys([(), *offs]))


def _label(off: tuple[str, ...]) -> str:
    return f"without {', '.join(off)}" if off else AS_IT_IS


class Started(NamedTuple):
    """Processes with the same paths off: a server's port, or workers for orders."""

    port: int = 0
    workers: Sequence[Worker] = ()


Start = Callable[["Scale", Stage, tuple[str, ...], dict[str, str]], Awaitable[Started]]


class Places:
    """Where the data of every process are."""

    postgresql: PostgresServer
    store: RedisServer

    def __init__(self, scale: Scale, folder: Path) -> None:
        self.scale = scale
        self._folder = folder
        self._number = 0

    async def seed(self) -> None:
        """Makes the books of every database."""
        await seed(str(self._folder / "books.db"), self.scale.books)
        self._seeded = self.postgresql.create_database()
        await seed(self.postgresql.url_of(self._seeded), self.scale.books)

    def variables(self, stage: Stage) -> dict[str, str]:
        """Returns the environment of processes, with a new database and a namespace of their own."""
        self._number += 1
        name = f"speed_{self._number}"
        if stage.database == "SQLite":
            file = shutil.copy(self._folder / "books.db", self._folder / f"{name}.db")
            database = f"sqlite:///{file}"
        else:
            self.postgresql.execute(f"CREATE DATABASE {name} TEMPLATE {self._seeded}")
            database = self.postgresql.url_of(name)
        variables = {"DIPTYCH_DATABASE_URL": database, "DIPTYCH_REDIS_NAMESPACE": name}
        return variables | ({"DIPTYCH_REDIS_URL": self.store.url} if stage.redis else {})

    async def all_of(self, stage: Stage, start: Start) -> dict[tuple[str, ...], Started]:
        """Starts the processes of a stage, some at a time."""
        turns = asyncio.Semaphore(self.scale.starting)

        async def one(off: tuple[str, ...]) -> Started:
            async with turns:
                return await start(self.scale, stage, off, self.variables(stage))

        offs = stage.switched_off
        return dict(zip(offs, await asyncio.gather(*map(one, offs)), strict=True))


def _postgresql() -> PostgresServer:
    """Has room for the connections of all processes of a stage."""
    return PostgresServer(durable=True, config={"max_connections": "1000"})


class _Served(BenchedCatalogue):
    """The catalogue, with some speed paths off."""

    ready_line = "Serving benchmarks.speed_paths.served:app at"

    def __init__(self, variables: dict[str, str]) -> None:
        database, redis = variables["DIPTYCH_DATABASE_URL"], variables["DIPTYCH_REDIS_URL"]
        super().__init__(database, redis, workers=1, tree=THIS)
        self._variables = variables

    def command(self) -> list[str]:
        return [word.replace("demo_app.app", "benchmarks.speed_paths.served") for word in super().command()]

    def run_as(self) -> dict[str, object]:
        return {"env": self.tree.environment(**self._variables)}


async def _served(
    running: contextlib.AsyncExitStack,
    scale: Scale,
    stage: Stage,
    off: tuple[str, ...],
    variables: dict[str, str],
) -> Started:
    server = serving(_Served(variables | {"SPEED_PATHS_OFF": ",".join(off)}), scale.cores)
    port = await asyncio.to_thread(server.__enter__)
    running.push(server.__exit__)
    return Started(port=port)


async def _processes(
    running: contextlib.AsyncExitStack,
    scale: Scale,
    stage: Stage,
    off: tuple[str, ...],
    variables: dict[str, str],
) -> Started:
    environment = THIS.environment(**variables)
    settings = [
        Setting(off, environment, scale.cores, scale.books, first=number * MANY)
        for number in range(stage.processes)
    ]
    return Started(workers=[await running.enter_async_context(working(one)) for one in settings])


def _measured(scenario: Scenario, started: Started, scale: Scale) -> Candidate:
    if started.port:
        asked = get_page() if scenario.act == "GET page" else get_one(scale.books)
        job = Job(
            started.port,
            scenario.clients,
            scale.seconds,
            asked,
            head=FROM_REDIS.encode(),
            warm_up_s=min(0.2, scale.seconds),
        )
        return loaded(job)

    async def measure() -> Sample:
        orders = (one.measure(scenario.act, scenario.clients, scale.seconds) for one in started.workers)
        return together(await asyncio.gather(*orders))

    return measure
