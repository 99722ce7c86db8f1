"""The tables of which a change may change further rows, by triggers, rules or foreign keys."""

from __future__ import annotations

import time

from diptych.fence.fence import Fence
from diptych.sql.entity import EntityRegistry


class Effects:
    """The knowledge of tables with effects: read from the catalogue by the first command, and again after a lease.

    So commands know of a trigger that a migration has added a lease later, at the latest.
    """

    def __init__(self, fence: Fence, entities: EntityRegistry, lease_s: float) -> None:
        self._fence = fence
        self._entities = entities
        self._lease_s = lease_s
        self._until = 0.0

    @property
    def are_known(self) -> bool:
        """False if they are to be looked at."""
        return time.monotonic() < self._until

    async def look(self) -> None:
        """Notes the effects at the entities. Raises ``DatabaseUnavailableError``."""
        before, self._until = self._until, time.monotonic() + self._lease_s
        try:
            self._entities.note_effects(await self._fence.tables_with_effects())
        except BaseException:
            self._until = before
            raise
