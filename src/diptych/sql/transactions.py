"""Beginning and ending of the transactions of units of work."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


class Transaction(Protocol):
    """An open transaction. ``commit`` and ``roll_back`` end the transaction and release its connection and locks."""

    async def connection(self) -> AsyncConnection:
        """Returns the connection for its statements."""

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        """Commits durably. After an error nothing was changed, or the outcome is not known.

        Returns True if the select ``then_find``, executed after the commit, found no row; False if it found a row or
        was not executed.
        """

    async def roll_back(self, *, has_seen: bool = True) -> bool:
        """Undoes the transaction, and returns whether everything read by it is committed.

        ``has_seen`` says that it has read rows, so that its result may rest on them.
        """


class Transactions(Protocol):
    """Source of transactions."""

    async def begin(self, kind: Hashable) -> Transaction:
        """Begins a transaction for a command of this ``kind``. Raises ``DatabaseBusyError``, errors of the driver."""

    def record_duration(self, kind: Hashable, seconds: float) -> None:
        """Notes how long a command of this kind worked in its transaction; None is no kind."""

    async def settle(self) -> None:
        """Waits until the transactions begun so far have released their connections."""
