"""Processes of the version before beside those of this one, on the same tables: not a fault, and nobody may notice.

They are there first: once this version has brought the framework's tables up to date, the former one does not start
any more. So this is no story that comes at any time, but what a run may begin with.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.schedule import happen
from tests.faults import Fault

NAME = Fault.TWO_VERSIONS
MEANWHILE = (Fault.FLUSHALL, Fault.REBUILD_UNDER_WRITES, Fault.KILLED)


async def side_by_side(cluster: Cluster, meanwhile: Iterable[Fault] = MEANWHILE) -> None:
    """Both work, a few things happen, and then the former version is gone."""
    async with cluster.fault(NAME):
        await cluster.leases(4)
    for name in meanwhile:
        await happen(cluster, name)
        await cluster.recovered(f"{NAME}: {name}")
    for worker in (cluster.workers[former.slot] for former in cluster.of_version_before):
        if worker.lives:
            await worker.quit()
