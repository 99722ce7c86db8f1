"""SQL, and the way to it."""

from __future__ import annotations

import asyncio
import random

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault


@fault(Fault.LONG_FOREIGN_TRANSACTION, "sql", sqlite=False)
async def foreign_transaction(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.foreign_transaction():
        await cluster.leases(4)


@fault(Fault.FOREIGN_WRITER_HOLDS_SQLITE, "sql", postgresql=False)
async def foreign_writer(cluster: Cluster, chance: random.Random) -> None:
    async with cluster.foreign_transaction():
        await cluster.leases(chance.uniform(0.3, 1.5))


@fault(Fault.COMMIT_OUTCOME_UNKNOWN, "sql", "process", sqlite=False)
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


@fault(Fault.SESSIONS_OF_POSTGRESQL_ENDED, "sql", sqlite=False)
async def terminated(cluster: Cluster, chance: random.Random) -> None:
    for _ in range(5):
        await cluster.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            f"AND pid <> pg_backend_pid() AND random() < {chance.choice([0.2, 0.5, 1.0])}"
        )
        await asyncio.sleep(chance.uniform(0.02, 0.2))


@fault(Fault.POSTGRESQL_KILLED_AND_RESTARTED, "sql", "process", sqlite=False)
async def postgres_killed(cluster: Cluster, chance: random.Random) -> None:
    server = cluster.database.server
    assert server is not None
    await asyncio.to_thread(server.kill)
    await cluster.leases(chance.choice([0, 2]))
    await asyncio.to_thread(server.start)


@fault(Fault.SEQUENCE_ORDER_AGAINST_COMMIT_ORDER, "sql", "process", "link", sqlite=False)
async def late_commit(cluster: Cluster, chance: random.Random) -> None:
    """A transaction with a low position commits after passes have carried higher ones; only a pass can bring it."""
    worker = chance.choice(cluster.alive)
    await worker.order("arm", "commit", "before", str(2 * cluster.lease_s))
    await worker.hears("reached", timeout_s=5)
    cluster.link_of(worker).refuse()
    await cluster.leases(3)
    cluster.link_of(worker).heal()
