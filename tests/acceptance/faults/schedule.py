"""The faults, each a small story of its own, and random sequences of them.

A story does something to a cluster under load, waits, and undoes it. It has the name of its case in the list at
the end of docs/concepts/hinge.md, if it is there. What comes after it (Redis answers again) is for its caller to
wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.faults.checker import ITEM, Anomaly
from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.history import now
from tests.servers import RedisServer

Story = Callable[[Cluster, random.Random], Awaitable[None]]


class FaultKind(NamedTuple):
    """A story and what it needs: ``touches`` says what two stories at once must not share."""

    name: str
    story: Story
    touches: frozenset[str]
    sqlite: bool
    postgresql: bool

    def fits(self, cluster: Cluster) -> bool:
        """Whether it can happen on this database."""
        return self.postgresql if cluster.on_postgres else self.sqlite


FAULTS: dict[str, FaultKind] = {}


def fault(name: str, *touches: str, sqlite: bool = True, postgresql: bool = True) -> Callable[[Story], Story]:
    """Puts a story into ``FAULTS``."""

    def put(story: Story) -> Story:
        FAULTS[name] = FaultKind(name, story, frozenset(touches), sqlite, postgresql)
        return story

    return put


async def happen(cluster: Cluster, name: str, chance: random.Random | None = None) -> None:
    """Has one fault happen, recorded, and undone."""
    async with cluster.fault(name):
        try:
            await FAULTS[name].story(cluster, chance or cluster.chance)
        except AssertionError as error:
            cluster.problems.append(
                Anomaly("a fault did not go as planned", ITEM, "", now(), f"{name}: {error}")
            )


async def happen_all(
    cluster: Cluster, names: list[str], *, until: float = float("inf"), overlapping: float = 0.2
) -> bool:
    """One after the other, Redis answering in between; now and then two that do not touch the same at once.

    Returns False if the time ``until`` came before the last.
    """
    waiting = list(names)
    while waiting:
        if time.monotonic() > until:
            return False
        chosen = [waiting.pop(0)]
        if cluster.chance.random() < overlapping:
            chosen += _beside(chosen[0], waiting)
        # Each has a chance of its own: what two draw at once would depend on who comes first.
        chances = [random.Random(cluster.chance.random()) for _ in chosen]
        await asyncio.gather(
            *(happen(cluster, name, chance) for name, chance in zip(chosen, chances, strict=True))
        )
        await cluster.recovered(" and ".join(chosen))
    return True


def _beside(name: str, waiting: list[str]) -> list[str]:
    for n, other in enumerate(waiting):
        if not FAULTS[name].touches & FAULTS[other].touches:
            return [waiting.pop(n)]
    return []


# Processes that die and stop


@fault("killed", "process")
async def killed(cluster: Cluster, chance: random.Random) -> None:
    await cluster.replace(chance.choice(cluster.alive))


@fault("killed before commit", "process")
async def killed_before_commit(cluster: Cluster, chance: random.Random) -> None:
    await cluster.killed_at(chance.choice(cluster.alive), "commit", "before")


@fault("killed after commit", "process")
async def killed_after_commit(cluster: Cluster, chance: random.Random) -> None:
    await cluster.killed_at(chance.choice(cluster.alive), "commit", "after")


@fault("killed after apply", "process")
async def killed_after_apply(cluster: Cluster, chance: random.Random) -> None:
    await cluster.killed_at(chance.choice(cluster.alive), "apply", "after")


@fault("stopped for longer than a lease", "process")
async def stopped(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    worker.stop()
    await cluster.leases(chance.uniform(1.2, 2))
    worker.go_on()


@fault("stopped writer that wakes after a rebuild", "process", "redis")
async def stopped_writer(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    async with cluster.stopped_at(worker, "commit", "after"):
        await cluster.redis_call("FLUSHALL")
        await cluster.recovered("a rebuild beside a stopped writer")
        await cluster.leases(chance.uniform(0, 1))


@fault("keeper stopped between pass and publish for longer than a lease", "process")
async def stopped_keeper(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.stopped_at(chance.choice(cluster.alive), "publish", "before"):
        await cluster.leases(chance.uniform(1.2, 2.5))


@fault("rows change between a pass's reading of the log and of them", "process")
async def late_recomputing(cluster: Cluster, chance: random.Random) -> None:
    """What a pass reads to make joined documents anew is newer than the log it has read."""
    for _ in range(20):
        for worker in cluster.alive:
            await worker.order("arm", "recompute", "before", f"{chance.uniform(0.05, 0.2):.3f}")
        await asyncio.sleep(0.15)
    for worker in cluster.alive:
        await worker.order("disarm")


@fault("writer stopped between commit and apply", "process")
async def writer_stopped_between(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.stopped_at(chance.choice(cluster.alive), "commit", "after"):
        await cluster.leases(chance.uniform(0.1, 2))


@fault("task cancelled at each await", "process")
async def cancelled(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    await worker.order("cancel", "on")
    await cluster.leases(3)
    await worker.order("cancel", "off")


# Redis


@fault("FLUSHALL", "redis")
async def flushall(cluster: Cluster, chance: random.Random) -> None:
    await cluster.redis_call("FLUSHALL")


@fault("FLUSHALL between commit and apply", "process", "redis")
async def flushall_between(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.stopped_at(chance.choice(cluster.alive), "commit", "after"):
        await cluster.redis_call("FLUSHALL")


@fault("Redis killed and restarted empty", "redis")
async def restarted_empty(cluster: Cluster, chance: random.Random) -> None:
    _dump_of(cluster.master).unlink(missing_ok=True)
    await asyncio.to_thread(cluster.master.kill)
    await cluster.leases(chance.choice([0, 0, 1.5]))
    await asyncio.to_thread(cluster.master.start)


@fault("Redis killed and restarted from an old dump within one lease", "redis")
async def restarted_from_old_dump(cluster: Cluster, chance: random.Random) -> None:
    await cluster.redis_call("SAVE")
    await cluster.leases(chance.uniform(0.1, 0.4))
    await asyncio.to_thread(cluster.master.kill)
    await asyncio.to_thread(cluster.master.start)
    _dump_of(cluster.master).unlink(missing_ok=True)


def _dump_of(server: RedisServer) -> Path:
    return server.directory / "dump.rdb"


@fault("Redis does not answer", "redis")
async def frozen(cluster: Cluster, chance: random.Random) -> None:
    cluster.master.pause()
    await cluster.leases(chance.uniform(0.2, 2))
    cluster.master.resume()


@fault("replica promoted while lagging", "redis")
async def promoted(cluster: Cluster, chance: random.Random) -> None:
    old = cluster.master
    await cluster.spare()
    cluster.replication.hold()
    await cluster.leases(chance.uniform(0.5, 1.5))
    await cluster.promote_spare()
    cluster.replication.cut()
    await cluster.redis_call("FLUSHALL", server=old)


@fault("two masters", "redis")
async def two_masters(cluster: Cluster, chance: random.Random) -> None:
    old = cluster.master
    await cluster.spare()
    cluster.replication.hold()
    await cluster.leases(chance.uniform(0.1, 1))
    left = chance.sample(cluster.alive, max(1, len(cluster.alive) // 2))
    await cluster.promote_spare(leave=left)
    cluster.replication.cut()
    await cluster.leases(chance.uniform(0.5, 3))
    cluster.lead_all()
    await cluster.redis_call("FLUSHALL", server=old)


@fault("connections of Redis killed", "redis")
async def client_kill(cluster: Cluster, chance: random.Random) -> None:
    for _ in range(5):
        await cluster.redis_call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(chance.uniform(0.01, 0.1))


@fault("memory of Redis used up", "redis")
async def out_of_memory(cluster: Cluster, chance: random.Random) -> None:
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "1mb")
    await cluster.leases(chance.uniform(0.5, 2.5))
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "0")


@fault("eviction policy refused", "redis")
async def eviction(cluster: Cluster, chance: random.Random) -> None:
    """The policy is one that may drop anything; once it must have been noticed, it does."""
    await cluster.redis_call("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    await cluster.leases(1.5)
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "1mb")
    await cluster.leases(chance.uniform(0.1, 1))
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "0")
    await cluster.redis_call("CONFIG", "SET", "maxmemory-policy", "noeviction")


# The way to Redis


@fault("one process cut off from Redis while others are not", "link")
async def cut_off(cluster: Cluster, chance: random.Random) -> None:
    link = cluster.link_of(chance.choice(cluster.alive))
    link.refuse()
    await cluster.leases(chance.uniform(0.3, 3))
    link.heal()


@fault("late apply", "link")
async def late(cluster: Cluster, chance: random.Random) -> None:
    """One process's messages lie on the way for longer than anybody waits, and then arrive."""
    link = cluster.link_of(chance.choice(cluster.alive))
    link.hold()
    await asyncio.sleep(max(0.7, cluster.lease_s * chance.uniform(0.5, 3)))
    link.heal()


@fault("late apply after a rebuild", "link", "redis")
async def late_after_rebuild(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    link = cluster.link_of(worker)
    link.hold()
    await asyncio.sleep(0.2)
    await cluster.redis_call("FLUSHALL")
    await cluster.leases(chance.uniform(1.5, 3))
    link.heal()


@fault("reordered applies", "link")
async def reordered(cluster: Cluster, chance: random.Random) -> None:
    for link in cluster.links:
        link.slow_down(lambda: chance.random() ** 4 * 0.2)
    await cluster.leases(3)
    for link in cluster.links:
        link.heal()


@fault("replies dropped but requests delivered", "link")
async def deaf(cluster: Cluster, chance: random.Random) -> None:
    links = [
        cluster.link_of(w) for w in chance.sample(cluster.alive, chance.choice([1, 2, len(cluster.alive)]))
    ]
    for link in links:
        link.deafen()
    await cluster.leases(chance.uniform(0.3, 2))
    for link in links:
        link.heal()


@fault("a link that flaps once a second", "link")
async def flapping(cluster: Cluster, chance: random.Random) -> None:
    link = cluster.link_of(chance.choice(cluster.alive))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3):
            await link.flap(1.0)


@fault("nobody reaches Redis", "link", "redis")
async def all_cut_off(cluster: Cluster, chance: random.Random) -> None:
    for link in cluster.links:
        link.refuse()
    await cluster.leases(chance.uniform(0.5, 2.5))
    for link in cluster.links:
        link.heal()


# SQL


@fault("a long foreign transaction", "sql", sqlite=False)
async def foreign_transaction(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.foreign_transaction():
        await cluster.leases(4)


@fault("a foreign writer holds SQLite", "sql", postgresql=False)
async def foreign_writer(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.foreign_transaction():
        await cluster.leases(chance.uniform(0.3, 1.5))


@fault("commit outcome unknown", "sql", "process", sqlite=False)
async def lost_commits(cluster: Cluster, chance: random.Random) -> None:
    """The connections of one process break, and its commits were carried out, without an answer, or not."""
    link = cluster.sql_link
    assert link is not None
    for _ in range(3):
        link.deafen()
        await asyncio.sleep(chance.uniform(0.02, 0.1))
        link.cut()
        link.heal()
        await asyncio.sleep(0.1)


@fault("sessions of PostgreSQL ended", "sql", sqlite=False)
async def terminated(cluster: Cluster, chance: random.Random) -> None:
    for _ in range(5):
        await cluster.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            f"AND pid <> pg_backend_pid() AND random() < {chance.choice([0.2, 0.5, 1.0])}"
        )
        await asyncio.sleep(chance.uniform(0.02, 0.2))


@fault("PostgreSQL killed and restarted", "sql", "process", sqlite=False)
async def postgres_killed(cluster: Cluster, chance: random.Random) -> None:
    server = cluster.setup.postgres
    assert server is not None
    await asyncio.to_thread(server.kill)
    await cluster.leases(chance.choice([0, 2]))
    await asyncio.to_thread(server.start)


@fault("sequence order against commit order", "sql", "process", "link", sqlite=False)
async def late_commit(cluster: Cluster, chance: random.Random) -> None:
    """A transaction with a low position commits after passes have carried higher ones; only a pass can bring it."""
    worker = chance.choice(cluster.alive)
    await worker.order("arm", "commit", "before", str(2 * cluster.lease_s))
    await worker.hears("reached", timeout_s=5)
    cluster.link_of(worker).refuse()
    await cluster.leases(3)
    cluster.link_of(worker).heal()


# Who else is there


@fault("rebuild under writes", "process", "redis")
async def rebuild(cluster: Cluster, chance: random.Random) -> None:
    """One that another fault, at the same time, makes fail is tried again."""
    worker, told = chance.choice(cluster.alive), None
    for _ in range(5):
        await worker.order("rebuild")
        told = await worker.hears("finished rebuild", "failed rebuild", timeout_s=20)
        if told == "finished rebuild":
            return
        await cluster.recovered("a rebuild that failed")
    raise AssertionError(f"process {worker.number}: {told}")


@fault("two versions of the declaration deployed at once", "process")
async def two_versions(cluster: Cluster, chance: random.Random) -> None:
    await _for_a_while(cluster, chance, revision=2)


@fault("a process without Redis", "process")
async def without_redis(cluster: Cluster, chance: random.Random) -> None:
    await _for_a_while(cluster, chance, redis=None)


@fault("a script with ORMService alone", "process")
async def script(cluster: Cluster, chance: random.Random) -> None:
    await _for_a_while(cluster, chance, script=True)


async def _for_a_while(cluster: Cluster, chance: random.Random, **changed: object) -> None:
    guest = await cluster.start_worker(len(cluster.links), **changed)
    await cluster.leases(chance.uniform(2, 4))
    if chance.random() < 0.5:
        await guest.kill()
    else:
        await guest.quit()
