"""Processes that die and stop."""

from __future__ import annotations

import asyncio
import random

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault


@fault(Fault.KILLED, "process")
async def killed(cluster: Cluster, chance: random.Random) -> None:
    await cluster.replace(chance.choice(cluster.alive))


@fault(Fault.KILLED_BEFORE_COMMIT, "process")
async def killed_before_commit(cluster: Cluster, chance: random.Random) -> None:
    await cluster.killed_at(chance.choice(cluster.alive), "commit", "before")


@fault(Fault.KILLED_AFTER_COMMIT, "process")
async def killed_after_commit(cluster: Cluster, chance: random.Random) -> None:
    await cluster.killed_at(chance.choice(cluster.alive), "commit", "after")


@fault(Fault.KILLED_AFTER_APPLY, "process")
async def killed_after_apply(cluster: Cluster, chance: random.Random) -> None:
    await cluster.killed_at(chance.choice(cluster.alive), "apply", "after")


@fault(Fault.STOPPED_FOR_LONGER_THAN_A_LEASE, "process")
async def stopped(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    worker.stop()
    await cluster.leases(chance.uniform(1.2, 2))
    worker.go_on()


@fault(Fault.STOPPED_WRITER_WAKES_AFTER_REBUILD, "process", "redis")
async def stopped_writer(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    async with cluster.stopped_at(worker, "commit", "after"):
        await cluster.redis_call(Fault.FLUSHALL)
        await cluster.recovered("a rebuild beside a stopped writer")
        await cluster.leases(chance.uniform(0, 1))


@fault(Fault.KEEPER_STOPPED_BEFORE_PUBLISH, "process")
async def stopped_keeper(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.stopped_at(chance.choice(cluster.alive), "publish", "before"):
        await cluster.leases(chance.uniform(1.2, 2.5))


@fault(Fault.ROWS_CHANGE_WITHIN_A_PASS, "process")
async def late_recomputing(cluster: Cluster, chance: random.Random) -> None:
    """What a pass reads to make joined documents anew is newer than the log it has read."""
    for _ in range(20):
        for worker in cluster.alive:
            await worker.order("arm", "recompute", "before", f"{chance.uniform(0.05, 0.2):.3f}")
        await asyncio.sleep(0.15)
    for worker in cluster.alive:
        await worker.order("disarm")


@fault(Fault.WRITER_STOPPED_BEFORE_APPLY, "process")
async def writer_stopped_between(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.stopped_at(chance.choice(cluster.alive), "commit", "after"):
        await cluster.leases(chance.uniform(0.1, 2))


@fault(Fault.TASK_CANCELLED, "process")
async def cancelled(cluster: Cluster, chance: random.Random) -> None:
    worker = chance.choice(cluster.alive)
    await worker.order("cancel", "on")
    await cluster.leases(3)
    await worker.order("cancel", "off")
