"""Transactions for units of work: how they are begun, and how they end."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


class Transaction(Protocol):
    """One that has begun. It is over with ``commit`` or ``roll_back``, which give back what it held."""

    async def connection(self) -> AsyncConnection:
        """What its statements are executed on."""

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        """Returns when it will outlast everything. If it raises, nothing was changed, or that is not known.

        Returns True if the select ``then_find``, executed after the commit, has found no row; False if it has found
        one, or was not executed.
        """

    async def roll_back(self, *, has_seen: bool = True) -> bool:
        """Returns when nothing is left of it, and whether all that it saw is committed.

        ``has_seen``: it has seen rows, and what it is told may rest on them.
        """


class Transactions(Protocol):
    """Begins transactions."""

    async def begin(self, kind: Hashable) -> Transaction:
        """Begins one, for a command of this ``kind``. Raises ``DatabaseBusyError``, and what the driver raises."""

    def record_duration(self, kind: Hashable, seconds: float) -> None:
        """Tells how long a command of this kind has worked in its transaction; None is no kind."""

    async def settle(self) -> None:
        """Returns when what the transactions so far have held is given back."""
