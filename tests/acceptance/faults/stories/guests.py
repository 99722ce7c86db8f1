"""Others that come for a while, and what the log forgets meanwhile."""

from __future__ import annotations

import random
from typing import Any

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.load import KIN
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault


@fault(Fault.REBUILD_UNDER_WRITES, "process", "redis")
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


@fault(Fault.TWO_DECLARATIONS, "process")
async def two_versions(cluster: Cluster, chance: random.Random) -> None:
    await for_a_while(cluster, chance, revision=2)


@fault(Fault.READ_MODEL_RENAMED, "process")
async def renamed(cluster: Cluster, chance: random.Random) -> None:
    """What it leaves in Redis and in the fence is nobody's when it has gone."""
    await for_a_while(cluster, chance, renamed=True)


@fault(Fault.LOG_FORGOTTEN_WHILE_REBUILT, "process", "redis", "sql")
async def forgotten(cluster: Cluster, chance: random.Random) -> None:
    """The rebuild has read the rows, and what was changed since is old by the time it brings that in."""
    worker, other = chance.choice(cluster.alive), chance.choice(cluster.alive)
    await cluster.do(other, [("claim", [key]) for key in KIN])
    await worker.order("arm", "fill", "after", f"{6 * cluster.lease_s}")
    await worker.order("rebuild")
    await worker.hears("reached", timeout_s=5)
    # Nobody changes these again: what the rebuild misses stays missing.
    changed, deleted = chance.sample(KIN, 2)
    await cluster.do(other, [("change", [changed]), ("delete", [deleted])])
    await cluster.leases(1)
    await cluster.age_log(days=3)
    days = chance.choice(
        [{"log_retention_days": 1}, {"log_retention_days": 1}, {"log_personal_data_days": 1}]
    )
    forgetful = await cluster.start_worker(len(cluster.links), settings=days)
    told = await worker.hears("finished rebuild", "failed rebuild", timeout_s=20)
    await forgetful.quit()
    assert told is not None, f"process {worker.number} does not come to the end of a rebuild"


@fault(Fault.PROCESS_WITHOUT_REDIS, "process")
async def without_redis(cluster: Cluster, chance: random.Random) -> None:
    await for_a_while(cluster, chance, redis=None)


@fault(Fault.ORM_SERVICE_ALONE, "process")
async def script(cluster: Cluster, chance: random.Random) -> None:
    await for_a_while(cluster, chance, script=True)


async def for_a_while(cluster: Cluster, chance: random.Random, **changed: Any) -> None:
    """Has another process run for a few leases, and end in good order or not."""
    guest = await cluster.start_worker(len(cluster.links), **changed)
    await cluster.leases(chance.uniform(2, 4))
    if chance.random() < 0.5:
        await guest.kill()
    else:
        await guest.quit()
