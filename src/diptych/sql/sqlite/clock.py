"""SQL's clock where SQL has none: SQLite's is that of the process that asks, and two processes may differ.

★ By a clock that is ahead a process finds leases over that others still trust, and is acknowledged too early. So the
clock is the machine's monotonic one, which all its processes share and nobody sets; WAL keeps them on one machine. An
offset that the database holds makes it seconds of the epoch, about, as processes of earlier versions write them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "diptych_now"

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OFFSETS = Path("/proc/self/timens_offsets")


def machine() -> str | None:
    """Whose monotonic clock it is: another text after each start of the machine. None where that can't be told."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        return None
    return f"{boot}{_namespace()}"


def _namespace() -> str:
    """A container may have a monotonic clock of its own."""
    try:
        lines = _OFFSETS.read_text().splitlines()
    except OSError:
        return ""
    shifted = [line.split()[1:] for line in lines if line.startswith("monotonic")]
    return "".join(f"+{'.'.join(parts)}" for parts in shifted if parts != ["0", "0"])


class MachineClock:
    """The clock of one process. ``machine`` is None where a clock can't be shared: then it is the wall clock."""

    def __init__(
        self,
        machine: str | None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._wall = wall
        self._monotonic = monotonic
        self._text: str | None = None
        self._offset: float | None = None

    def text(self, held: str) -> str:
        """What the database is to hold: ``held``, what it does, if that is of this machine; else a new one."""
        if self.now(held) is not None:
            return held
        if self._machine is None:
            return "wall"
        return f"{self._machine} {self._wall() - self._monotonic()!r}"

    def now(self, text: str | None) -> float | None:
        """Seconds of the epoch, about; None if the text is of another machine, or of a start before this one."""
        if text != self._text:
            self._text, self._offset = text, self._offset_of(text or "")
        if self._offset is not None:
            return self._monotonic() + self._offset
        return self._wall() if self._machine is None and text == "wall" else None

    def register(self, connection: Any) -> None:
        """Lets the connection's statements ask for it."""
        connection.create_function(NAME, 1, self.now)

    def _offset_of(self, text: str) -> float | None:
        machine, _, offset = text.rpartition(" ")
        return float(offset) if machine and machine == self._machine else None
