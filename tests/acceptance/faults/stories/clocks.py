"""Clocks that differ: of an application's process, and of the two servers that may each be the master."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.schedule import fault
from tests.acceptance.faults.stories.guests import for_a_while
from tests.faults import Fault


@fault(Fault.WRONG_CLOCK, "process", needs_clock=True)
async def wrong_clock(cluster: Cluster, chance: random.Random) -> None:
    """By less than a lease, or by days; it has Redis, or has it not, or is a script."""
    ahead_s = chance.choice([-1, 1]) * chance.choice([0.3, 3, 3, 10, 10, 3600, 200_000])
    changed: dict[str, Any] = chance.choice([{}, {"redis": None}, {"redis": None}, {"script": True}])
    await for_a_while(cluster, chance, clock_ahead_s=ahead_s, **changed)


@fault(Fault.TWO_MASTERS_WITH_DIFFERENT_CLOCKS, "redis", "link", "sql", "process", needs_clock=True)
async def two_clocks(cluster: Cluster, chance: random.Random) -> None:
    """A name leads now to one, now to the other: connections of one process lead to both.

    In the end one process is left with the former master, and, on PostgreSQL, without SQL: it may answer for as long
    as the lease there lasts.
    """
    former = cluster.master
    await cluster.spare()
    cluster.replication.hold()
    await cluster.promote_spare(leave=cluster.alive)
    cluster.replication.cut()
    await _mix(cluster, chance, [former.port, cluster.master.port])
    cluster.links[0].lead_to(former.port)
    for link in cluster.links[1:]:
        link.lead_to(cluster.master.port)
    if cluster.sql_link is not None:
        cluster.sql_link.refuse()
    await cluster.leases(3)
    if cluster.sql_link is not None:
        cluster.sql_link.heal()
    cluster.lead_all()
    await cluster.redis_call(Fault.FLUSHALL, server=former)


async def _mix(cluster: Cluster, chance: random.Random, ports: list[int]) -> None:
    over = time.monotonic() + 4 * cluster.lease_s
    while time.monotonic() < over:
        link = chance.choice(cluster.links)
        link.lead_new_to(chance.choice(ports))
        link.cut(chance.choice([0.1, 0.5, 1.0]))
        await asyncio.sleep(chance.uniform(0, 0.1 * cluster.lease_s))
