"""Snapshots: the transactions seen by a statement."""

from __future__ import annotations

from typing import NamedTuple, Self


class Snapshot(NamedTuple):
    """The transactions seen by a statement, as PostgreSQL's ``pg_snapshot``: all below ``xmax`` but the ``running``.

    All below ``xmin`` were over. On SQLite, where writers never run at the same time, transactions are numbered by
    log position, ``xmin`` and ``xmax`` are the highest position plus one, and none is running.
    """

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the snapshot written as ``xmin:xmax:running,…``, PostgreSQL's format."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(number) for number in running.split(",") if number))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, transaction: int) -> bool:
        """Returns whether the snapshot shows a transaction of this number, if committed at all."""
        return transaction < self.xmax and transaction not in self.running

    def seen_since(self, earlier: Snapshot, most: int) -> list[int] | None:
        """Returns the numbers of transactions seen since the ``earlier`` snapshot; None if more than ``most``."""
        if self.xmax - earlier.xmax + len(earlier.running) > most:
            return None
        running = set(self.running)
        return [n for n in (*earlier.running, *range(earlier.xmax, self.xmax)) if n not in running]

    @property
    def stamp(self) -> int:
        """Number ordering snapshots: a later snapshot has a greater ``xmax``, or fewer transactions running."""
        return self.xmax << 16 | 0xFFFF - min(len(self.running), 0xFFFF)


NOTHING = Snapshot(0, 0)
"""The snapshot that saw no transaction at all."""

EVERYTHING = Snapshot(2**63 - 1, 2**63 - 1)
"""The snapshot that saw every possible transaction: no change is later."""
