"""Rows that do not fit their documents, until somebody mends or deletes them."""

from __future__ import annotations

import random

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.load import KIN
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault


@fault(Fault.MISFITS, "process", "sql", "redis", "link")
async def misfits(cluster: Cluster, chance: random.Random) -> None:
    """Made by commands, while everything else goes on from Redis."""
    spoiled = chance.sample(KIN, 2)
    await cluster.do(chance.choice(cluster.alive), [("claim", [key]) for key in KIN])
    await cluster.do(chance.choice(cluster.alive), [("spoil", [key]) for key in spoiled])
    assert await cluster.recovered("rows that do not fit"), "they have SQL answer for all"
    await cluster.leases(chance.uniform(0, 2))
    await _mend(cluster, chance, spoiled)


@fault(Fault.MISFIT_PAST_DIPTYCH, "process", "sql", "redis", "link")
async def misfits_past_diptych(cluster: Cluster, chance: random.Random) -> None:
    key = chance.choice(KIN)
    await cluster.do(chance.choice(cluster.alive), [("delete", [key])])
    await cluster.insert_misfit(key)
    await cluster.redis_call(Fault.FLUSHALL)
    assert await cluster.recovered("a build over a row that does not fit"), "it has SQL answer for all"
    await _mend(cluster, chance, [key])


async def _mend(cluster: Cluster, chance: random.Random, keys: list[str]) -> None:
    for key in keys:
        kind = chance.choice(["change", "delete", "re-create", "rename"])
        worker = chance.choice(cluster.alive)
        if kind == "rename":
            free = chance.choice([other for other in KIN if other not in keys])
            await cluster.do(worker, [("delete", [free]), ("look", [key]), ("rename", [key, free])])
        else:
            await cluster.do(worker, [("look", [key]), (kind, [key])])
