"""Redis, and the way to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault
from tests.servers import RedisServer


@fault(Fault.FLUSHALL, "redis")
async def flushall(cluster: Cluster, chance: random.Random) -> None:
    await cluster.redis_call(Fault.FLUSHALL)


@fault(Fault.FLUSHALL_BETWEEN_COMMIT_AND_APPLY, "process", "redis")
async def flushall_between(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.stopped_at(chance.choice(cluster.alive), "commit", "after"):
        await cluster.redis_call(Fault.FLUSHALL)


@fault(Fault.REDIS_RESTARTED_EMPTY, "redis")
async def restarted_empty(cluster: Cluster, chance: random.Random) -> None:
    _dump_of(cluster.master).unlink(missing_ok=True)
    await asyncio.to_thread(cluster.master.kill)
    await cluster.leases(chance.choice([0, 0, 1.5]))
    await asyncio.to_thread(cluster.master.start)


@fault(Fault.REDIS_FROM_OLD_DUMP, "redis")
async def restarted_from_old_dump(cluster: Cluster, chance: random.Random) -> None:
    await cluster.redis_call("SAVE")
    await cluster.leases(chance.uniform(0.1, 0.4))
    await asyncio.to_thread(cluster.master.kill)
    await asyncio.to_thread(cluster.master.start)
    _dump_of(cluster.master).unlink(missing_ok=True)


def _dump_of(server: RedisServer) -> Path:
    return server.directory / "dump.rdb"


@fault(Fault.REDIS_DOES_NOT_ANSWER, "redis")
async def frozen(cluster: Cluster, chance: random.Random) -> None:
    cluster.master.pause()
    await cluster.leases(chance.uniform(0.2, 2))
    cluster.master.resume()


@fault(Fault.REPLICA_PROMOTED_WHILE_LAGGING, "redis")
async def promoted(cluster: Cluster, chance: random.Random) -> None:
    old = cluster.master
    await cluster.spare()
    cluster.replication.hold()
    await cluster.leases(chance.uniform(0.5, 1.5))
    await cluster.promote_spare()
    cluster.replication.cut()
    await cluster.redis_call(Fault.FLUSHALL, server=old)


@fault(Fault.TWO_MASTERS, "redis")
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
    await cluster.redis_call(Fault.FLUSHALL, server=old)


@fault(Fault.CONNECTIONS_OF_REDIS_KILLED, "redis")
async def client_kill(cluster: Cluster, chance: random.Random) -> None:
    for _ in range(5):
        await cluster.redis_call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(chance.uniform(0.01, 0.1))


@fault(Fault.MEMORY_OF_REDIS_USED_UP, "redis")
async def out_of_memory(cluster: Cluster, chance: random.Random) -> None:
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "1mb")
    await cluster.leases(chance.uniform(0.5, 2.5))
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "0")


@fault(Fault.EVICTION_POLICY_REFUSED, "redis")
async def eviction(cluster: Cluster, chance: random.Random) -> None:
    """The policy is one that may drop anything; once it must have been noticed, it does."""
    await cluster.redis_call("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    await cluster.leases(1.5)
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "1mb")
    await cluster.leases(chance.uniform(0.1, 1))
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "0")
    await cluster.redis_call("CONFIG", "SET", "maxmemory-policy", "noeviction")


# The way to Redis


@fault(Fault.CUT_OFF_FROM_REDIS, "link")
async def cut_off(cluster: Cluster, chance: random.Random) -> None:
    link = cluster.link_of(chance.choice(cluster.alive))
    link.refuse()
    await cluster.leases(chance.uniform(0.3, 3))
    link.heal()


@fault(Fault.LATE_APPLY, "link")
async def late(cluster: Cluster, chance: random.Random) -> None:
    """One process's messages lie on the way for longer than anybody waits, and then arrive."""
    link = cluster.link_of(chance.choice(cluster.alive))
    link.hold()
    await asyncio.sleep(max(0.7, cluster.lease_s * chance.uniform(0.5, 3)))
    link.heal()


@fault(Fault.LATE_APPLY_AFTER_A_REBUILD, "link", "redis")
async def late_after_rebuild(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    link = cluster.link_of(worker)
    link.hold()
    await asyncio.sleep(0.2)
    await cluster.redis_call(Fault.FLUSHALL)
    await cluster.leases(chance.uniform(1.5, 3))
    link.heal()


@fault(Fault.REORDERED_APPLIES, "link")
async def reordered(cluster: Cluster, chance: random.Random) -> None:
    for link in cluster.links:
        link.slow_down(lambda: chance.random() ** 4 * 0.2)
    await cluster.leases(3)
    for link in cluster.links:
        link.heal()


@fault(Fault.REPLIES_DROPPED, "link")
async def deaf(cluster: Cluster, chance: random.Random) -> None:
    links = [
        cluster.link_of(w) for w in chance.sample(cluster.alive, chance.choice([1, 2, len(cluster.alive)]))
    ]
    for link in links:
        link.deafen()
    await cluster.leases(chance.uniform(0.3, 2))
    for link in links:
        link.heal()


@fault(Fault.LINK_FLAPS, "link")
async def flapping(cluster: Cluster, chance: random.Random) -> None:
    link = cluster.link_of(chance.choice(cluster.alive))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3):
            await link.flap(1.0)


@fault(Fault.NOBODY_REACHES_REDIS, "link", "redis")
async def all_cut_off(cluster: Cluster, chance: random.Random) -> None:
    for link in cluster.links:
        link.refuse()
    await cluster.leases(chance.uniform(0.5, 2.5))
    for link in cluster.links:
        link.heal()
