"""The stamps that documents may have: none is of a change later than the log's last one.

A greater stamp would refuse every change that is still to come: commands are acknowledged, and queries go on showing
what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping

from diptych.fence.fence import Fence
from diptych.hinge.replica import Replica
from diptych.log import EVERYTHING
from diptych.read.stored import STAMP_BYTES, stamp_bytes


class Stamps:
    """The greatest stamp that a document of a read model may have by now, as far as it has been asked for."""

    def __init__(self, replica: Replica, fence: Fence) -> None:
        self._fence = fence
        self._is_joined = replica.compiled.is_joined
        self._table = replica.compiled.entity.table
        self._greatest = b""

    async def impossible(self, stored: Mapping[bytes, bytes | None]) -> set[bytes]:
        """Returns the keys of stored values, of documents and tombstones, whose stamp is too great.

        The values have been read before the call. Raises ``DatabaseUnavailableError``.
        """
        found = {key: value[:STAMP_BYTES] for key, value in stored.items() if value}
        if not any(stamp > self._greatest for stamp in found.values()):
            return set()
        self._greatest = await self._now()
        return {key for key, stamp in found.items() if stamp > self._greatest}

    async def _now(self) -> bytes:
        if not self._is_joined:
            last = await self._fence.last_position()
            # A role without rights on the log's sequence can't tell: any stamp is possible then.
            return b"\xff" * STAMP_BYTES if last is None else stamp_bytes(last)
        part = await self._fence.changes([self._table], EVERYTHING, 1)
        return stamp_bytes(part.snapshot.stamp)
