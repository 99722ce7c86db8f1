"""SQL's clock for SQLite, where SQL has none: SQLite's time is that of the process, and processes may differ.

★ A process whose clock is ahead would find leases over that other processes still trust, and would acknowledge its
commands too early. So the clock is the machine's monotonic clock, which all its processes share and nobody sets; WAL
keeps them on one machine. An offset stored in the database turns its time into seconds of the epoch, approximately,
as processes of earlier versions write them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "diptych_now"
"""Name of the clock as a function of SQL."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OFFSETS = Path("/proc/self/timens_offsets")


def machine() -> str | None:
    """Returns the identity of the monotonic clock, new at each start of the machine; None if unknown."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        return None
    return f"{boot}{_namespace()}"


def _namespace() -> str:
    """Returns the offset of a container's own monotonic clock, as text; empty without an offset."""
    try:
        lines = _OFFSETS.read_text().splitlines()
    except OSError:
        return ""
    shifted = [line.split()[1:] for line in lines if line.startswith("monotonic")]
    return "".join(f"+{'.'.join(parts)}" for parts in shifted if parts != ["0", "0"])


class MachineClock:
    """The clock of a process. ``machine`` is None where no clock can be shared: then the wall clock is used."""

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
        """Returns the text to be stored in the database: ``held``, the stored text, if made on this machine."""
        if self.now(held) is not None:
            return held
        if self._machine is None:
            return "wall"
        return f"{self._machine} {self._wall() - self._monotonic()!r}"

    def now(self, text: str | None) -> float | None:
        """Returns seconds of the epoch, approximately; None for the text of a different machine or earlier start."""
        if text != self._text:
            self._text, self._offset = text, self._offset_of(text or "")
        if self._offset is not None:
            return self._monotonic() + self._offset
        return self._wall() if self._machine is None and text == "wall" else None

    def register(self, connection: Any) -> None:
        """Makes the clock a function of SQL on this connection."""
        connection.create_function(NAME, 1, self.now)

    def _offset_of(self, text: str) -> float | None:
        machine, _, offset = text.rpartition(" ")
        return float(offset) if machine and machine == self._machine else None
