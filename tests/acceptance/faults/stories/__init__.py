"""The faults, each a small story of its own. Importing this puts all of them into ``schedule.FAULTS``.

A story does something to a cluster under load, waits, and undoes it. It has the name of its case in the list at
the end of docs/concepts/hinge.md, if it is there. What comes after it (Redis answers again) is for its caller to
wait for.
"""

from tests.acceptance.faults.schedule import FAULTS
from tests.acceptance.faults.stories import clocks, guests, misfits, moves, processes, redis, sql, successors

__all__ = ["FAULTS", "clocks", "guests", "misfits", "moves", "processes", "redis", "sql", "successors"]
