"""The effects of each table: what its changes may do, or notice, besides, by triggers, keys and unique indexes."""

from __future__ import annotations

import asyncio
import time

from diptych.fence.fence import Fence
from diptych.sql.registry import EntityRegistry


class Effects:
    """The knowledge of tables with effects: read from the catalogue again at the age of half a lease.

    So commands know of a trigger that a migration has added a lease later, at the latest.
    """

    def __init__(self, fence: Fence, entities: EntityRegistry, lease_s: float) -> None:
        self._fence = fence
        self._entities = entities
        self._lease_s = lease_s
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def are_recent(self) -> bool:
        """False if ``refresh`` is to be awaited before a command begins."""
        return self._entities.are_looked_at and time.monotonic() - self._read_at < self._lease_s / 2

    async def refresh(self) -> None:
        """Reads the catalogue, beside the commands while the knowledge is not older than a lease.

        Commands that wait for it wait together, and go on in their order. Raises ``DatabaseUnavailableError``.
        """
        reading = self._reading
        if reading is None or reading.done():
            reading = self._reading = asyncio.get_running_loop().create_task(self.look())
            reading.add_done_callback(_note_failure)
        if not self._entities.are_looked_at or time.monotonic() - self._read_at >= self._lease_s:
            await asyncio.shield(reading)

    async def look(self) -> None:
        """Notes the effects at the entities. Raises ``DatabaseUnavailableError``."""
        read_at = time.monotonic()
        tables = self._entities.tables
        self._entities.note_effects(tables, await self._fence.table_effects(tables))
        self._read_at = read_at

    async def close(self) -> None:
        """Ends a reading under way."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait([self._reading])


def _note_failure(reading: asyncio.Task[None]) -> None:
    if not reading.cancelled():
        reading.exception()  # the next command that needs the knowledge meets it
