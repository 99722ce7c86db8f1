"""Statistics: the answer of ``Diptych.statistics``, part by part, and the counters behind it, of one process."""

from __future__ import annotations

import msgspec


class PassStatistics(msgspec.Struct, frozen=True):
    """The completed passes of this process: their number, the changes they found, and how long the last one took.

    ``last_seconds`` is None before the first.
    """

    number: int = 0
    changes: int = 0
    last_seconds: float | None = None


class WaitStatistics(msgspec.Struct, frozen=True):
    """The waits of commands, after their commit, until queries saw all that they rest on.

    ``by_pass`` is the number of those that had to wait for a pass, or for the end of a lease.
    """

    number: int = 0
    by_pass: int = 0
    total_seconds: float = 0.0
    greatest_seconds: float = 0.0


class ReadModelStatistics(msgspec.Struct, frozen=True):
    """The answers of a read model from each store, from SQL by their reasons; its lag, and the passes over it.

    ``lag_changes`` are the committed changes that are not in Redis yet (100,000 at most are counted), ``lag_seconds``
    is the age of the oldest. Both are None without Redis, before the first build, and while SQL is away.
    """

    answers_from_redis: int = 0
    answers_from_sql: dict[str, int] = {}
    lag_changes: int | None = None
    lag_seconds: float | None = None
    passes: PassStatistics = PassStatistics()


class Statistics(msgspec.Struct, frozen=True):
    """Figures of this process since its start, and the present lag of each read model.

    A command waits for all read models at once, so ``waits`` are those of the application.

    >>> import asyncio
    >>> from diptych import ConfigService, Diptych
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> async def main():
    ...     async with Diptych(ConfigService(database_url="shop.db"), models=Base, handlers=[]) as app:
    ...         print((await app.statistics()).waits)
    >>> asyncio.run(main())
    WaitStatistics(number=0, by_pass=0, total_seconds=0.0, greatest_seconds=0.0)
    """

    read_models: dict[str, ReadModelStatistics]
    waits: WaitStatistics


# Counters


class PassCounter:
    """Counts the passes of a keeper. ``statistics`` are the present figures."""

    def __init__(self) -> None:
        self.statistics = PassStatistics()

    def add(self, seconds: float, changes: int) -> None:
        """Counts a completed pass."""
        so_far = self.statistics
        self.statistics = PassStatistics(so_far.number + 1, so_far.changes + changes, seconds)


class WaitCounter:
    """Counts the waits of commands: numbers that grow in place, since every command adds to them."""

    def __init__(self) -> None:
        self._number = self._by_pass = 0
        self._total_s = self._greatest_s = 0.0

    def add(self, seconds: float, *, by_pass: bool) -> None:
        """Counts a wait that has ended."""
        self._number += 1
        self._by_pass += by_pass
        self._total_s += seconds
        if seconds > self._greatest_s:
            self._greatest_s = seconds

    @property
    def statistics(self) -> WaitStatistics:
        """The present figures."""
        return WaitStatistics(self._number, self._by_pass, self._total_s, self._greatest_s)
