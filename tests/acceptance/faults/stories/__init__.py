"""The faults, each a small story of its own. Importing this puts all of them into ``schedule.FAULTS``.

A story does something to a cluster under load, waits, and undoes it. Its name is in tests/faults.py. The caller waits
for Redis to answer again.
"""

from tests.acceptance.faults.schedule import FAULTS
from tests.acceptance.faults.stories import (
    clocks,
    guests,
    misfits,
    moves,
    processes,
    programs,
    redis,
    sql,
    successors,
)

__all__ = [
    "FAULTS",
    "clocks",
    "guests",
    "misfits",
    "moves",
    "processes",
    "programs",
    "redis",
    "sql",
    "successors",
]
