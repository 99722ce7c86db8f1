"""The database is put elsewhere while the application is stopped, as it is or as it was before.

The other PostgreSQL counts its transactions by itself: the numbers in the log that was brought along are of a history
that it knows nothing of, and are reached by its own some day.
"""

from __future__ import annotations

import random

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault

_ALL = ("process", "redis", "link", "sql", "program")


@fault(Fault.DATABASE_MOVED, *_ALL)
async def moved(cluster: Cluster, chance: random.Random) -> None:
    if cluster.on_postgres:
        await cluster.database.use_up_transactions(chance.choice([100, 3000, 20_000]))
    await cluster.put_elsewhere(in_place=chance.random() < 0.3)
    if cluster.on_postgres:
        await cluster.recovered("a move")
        await cluster.database.use_up_transactions(chance.choice([100, 3000, 20_000]))
        await cluster.leases(1)


@fault(Fault.DATABASE_PUT_BACK, *_ALL)
async def put_back(cluster: Cluster, chance: random.Random) -> None:
    copy = await cluster.database.dump()
    await cluster.leases(chance.uniform(1, 3))
    await cluster.put_elsewhere(copy, in_place=chance.random() < 0.7)
