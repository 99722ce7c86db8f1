"""Snapshots: which transactions a statement saw."""

from __future__ import annotations

from typing import NamedTuple, Self


class Snapshot(NamedTuple):
    """Which transactions a statement saw, as ``pg_snapshot`` of PostgreSQL: all below ``xmax`` but the ``running``.

    All below ``xmin`` were over. On SQLite, where writers are one after the other, transactions are numbered by log
    position, ``xmin`` and ``xmax`` are one more than the highest one, and none is running.
    """

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``xmin:xmax:running,…``, PostgreSQL's way to write it."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(number) for number in running.split(",") if number))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, transaction: int) -> bool:
        """Whether a transaction of this number was committed before it, if it was committed at all."""
        return transaction < self.xmax and transaction not in self.running

    def seen_since(self, earlier: Snapshot, most: int) -> list[int] | None:
        """The numbers of the transactions that it sees and an ``earlier`` one did not; None if more than ``most``."""
        if self.xmax - earlier.xmax + len(earlier.running) > most:
            return None
        running = set(self.running)
        return [n for n in (*earlier.running, *range(earlier.xmax, self.xmax)) if n not in running]

    @property
    def stamp(self) -> int:
        """A number by which snapshots are ordered: a later one has a greater ``xmax``, or fewer running below it."""
        return self.xmax << 16 | 0xFFFF - min(len(self.running), 0xFFFF)


NOTHING = Snapshot(0, 0)
"""The snapshot that saw no transaction at all."""

EVERYTHING = Snapshot(2**63 - 1, 2**63 - 1)
"""One that saw every transaction there can be: no change is later than it."""
