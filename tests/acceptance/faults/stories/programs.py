"""What programs beside the application do now and then, while they go on with all that they always do."""

from __future__ import annotations

import random

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.history import UNSEEN
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault


@fault(Fault.PROGRAM_KILLED, "program")
async def program_killed(cluster: Cluster, chance: random.Random) -> None:
    """Its last transaction was committed or not."""
    for _ in range(2):
        await cluster.replace_program()
        await cluster.leases(chance.uniform(0, 1))


@fault(Fault.MANY_ROWS_AT_ONCE, "program", "sql")
async def many_rows(cluster: Cluster, chance: random.Random) -> None:
    for kind in ("insert many", "update many", "delete many"):
        await cluster.do_beside(kind)
        await cluster.leases(chance.choice([0, 0.2, 1]))


@fault(Fault.TABLE_TRUNCATED, "program", "sql", "process", sqlite=False)
async def truncated(cluster: Cluster, chance: random.Random) -> None:
    """SQL answers until the read models are built anew."""
    await cluster.do_beside("truncate")


@fault(Fault.CHANGE_UNSEEN, "program", "sql", "process")
async def unseen(cluster: Cluster, chance: random.Random) -> None:
    """The fingerprint tells of it, and the read models are built anew."""
    for _ in range(2):
        await cluster.do_beside(UNSEEN)
        await cluster.leases(chance.choice([0, 0.3, 1.5]))
