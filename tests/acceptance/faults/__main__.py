"""``make faults``: random faults on SQLite and PostgreSQL in turn, for as long as asked, and everything checked.

A run is cut into rounds of a few minutes, each with a database of its own, so that it may go on for days. With the
same seed the same faults come in the same order, with the same choices; what the machine makes of them in time is its
own affair.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Iterator

from tests.acceptance.faults.before import REVISION, version_before
from tests.acceptance.faults.driver import Cluster, Result, Setup
from tests.acceptance.faults.history import History
from tests.acceptance.faults.report import summary, told_all
from tests.acceptance.faults.schedule import happen_all
from tests.acceptance.faults.stories import FAULTS
from tests.acceptance.faults.stories.versions import NAME as SIDE_BY_SIDE
from tests.acceptance.faults.stories.versions import side_by_side
from tests.servers import PostgresServer, libfaketime

DATABASES = ("sqlite", "postgresql")


def main() -> int:
    """Exit status 1 if there was an anomaly."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for how long (default 600)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; any, if not given")
    parser.add_argument("--database", choices=DATABASES, help="this one only")
    parser.add_argument("--workers", type=int, default=4, help="processes (default 4)")
    parser.add_argument("--lease-ms", type=int, default=500, help="the setting LEASE_MS (default 500)")
    parser.add_argument(
        "--fault",
        action="append",
        choices=sorted([*FAULTS, SIDE_BY_SIDE]),
        help="these faults only",
        metavar="NAME",
    )
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    _say(f"seed {seed}")
    databases = [given.database] if given.database else list(DATABASES)
    before = version_before() if not given.fault or SIDE_BY_SIDE in given.fault else None
    for problem in _left_out(given.fault):
        _say(f"left out: {problem}")
    setup = Setup(None, seed, given.workers, given.lease_ms, before=before)
    return asyncio.run(_run(setup, databases, given.seconds, given.fault))


def _left_out(only: list[str] | None) -> Iterator[str]:
    """What can't be tried here, and why."""
    if (not only or SIDE_BY_SIDE in only) and version_before() is None:
        yield f"{SIDE_BY_SIDE}: this is no clone that has {REVISION}"
    if libfaketime() is None:
        yield "clocks that differ: libfaketime is not installed"


async def _run(setup: Setup, databases: list[str], seconds: float, only: list[str] | None) -> int:
    end = time.monotonic() + seconds
    histories: dict[str, list[History]] = {database: [] for database in databases}
    anomalies = 0
    with _postgres("postgresql" in databases) as postgres:
        # An even number of rounds, so that each database has the same share of the time.
        rounds = len(databases) * max(1, round(seconds / 300))
        for number in range(rounds):
            database = databases[number % len(databases)]
            share_s = (end - time.monotonic()) / (rounds - number)
            chosen = setup._replace(
                postgres=postgres if database == "postgresql" else None, seed=setup.seed * 1000 + number
            )
            result = await play(chosen, share_s, only)
            histories[database].append(result.history)
            anomalies += len(result.anomalies)
            _tell_round(number, rounds, database, result)
    for database, played in histories.items():
        _say(f"\n{database}: {summary(played)}")
    total = sum(history.operations for played in histories.values() for history in played)
    _say(f"\n{total:,} operations checked, seed {setup.seed}: {anomalies or 'no'} anomalies")
    return 1 if anomalies else 0


async def play(setup: Setup, seconds: float, only: list[str] | None = None) -> Result:
    """One round: random faults, all kinds in turn, until the time is over."""
    async with Cluster(setup) as cluster:
        await cluster.recovered("the start")
        end = time.monotonic() + seconds
        if setup.before is not None:
            await side_by_side(cluster)
        kinds = [
            kind.name for kind in FAULTS.values() if kind.fits(cluster) and (not only or kind.name in only)
        ]
        while kinds:
            cluster.chance.shuffle(kinds)
            if not await happen_all(cluster, kinds, until=end):
                break
        return await cluster.finish()


@contextlib.contextmanager
def _postgres(wanted: bool) -> Iterator[PostgresServer | None]:
    if not wanted:
        yield None
        return
    with PostgresServer() as server:
        yield server


def _tell_round(number: int, rounds: int, database: str, result: Result) -> None:
    faults = len(result.history.faults)
    _say(
        f"round {number + 1} of {rounds}, {database}: {result.history.operations:,} operations, {faults} faults"
    )
    if result.anomalies:
        _say(told_all(result.anomalies, result.history))
        _say(f"The history and the logs are in {result.directory}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
