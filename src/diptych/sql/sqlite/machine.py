"""The identity of an SQLite file, and a clock shared by all processes of a machine: SQLite itself has neither.

A copy of a file, or a file put in the place of the former, is a different database.

SQLite's time is that of the process, and processes may differ. ★ A process whose clock is ahead would find leases
over that other processes still trust, and would acknowledge its commands too early. So the clock is the machine's
monotonic clock, which all its processes share and nobody sets; WAL keeps them on one machine. An offset stored in the
database turns its time into seconds of the epoch, approximately, as processes of earlier versions write them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
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


_OPEN_FILES = Path("/dev/fd")


class DatabaseFile:
    """The file at a path, checked at each use: the file may be replaced while connections are open."""

    def __init__(self) -> None:
        self._path = ""
        self._seen: tuple[int, int] | None = None
        self.last = "memory"

    @staticmethod
    def make(path: str) -> None:
        """Makes an empty file that only its owner can read, if there is none: SQLite would let all users read it.

        SQLite gives the files beside it, -wal and -shm, the mode that it has.
        """
        with contextlib.suppress(OSError):  # it is there, or SQLite will say what is wrong
            os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def opened(self, path: str) -> None:
        """Notes the path of an opened connection; "" if the database is in memory."""
        self._path = path

    def identity(self) -> str:
        """Returns the identity of the file at the path now, also kept as ``last``.

        Raises ``OSError`` if there is no file, or opening the file is not safe.
        """
        if self._path:
            found = os.stat(self._path)  # noqa: PTH116 - with each transaction: a Path takes longer
            if (found.st_dev, found.st_ino) != self._seen:
                if self._seen is not None:
                    self._refuse_mispaired()
                # A file on a different file system may have the same number.
                self.last = f"file {found.st_ino} on {os.statvfs(self._path).f_fsid:x}"
                self._seen = found.st_dev, found.st_ino
        return self.last

    def _refuse_mispaired(self) -> None:
        """Raises ``OSError`` if the write-ahead log at the path is still the former file's.

        ★ SQLite would write the content of the former file's log into the new file, and so destroy the new file.
        """
        log = Path(f"{self._path}-wal")
        with contextlib.suppress(FileNotFoundError):
            there = log.stat()
            if (there.st_dev, there.st_ino) in _open_files():
                raise OSError(
                    f"{self._path} was replaced while it was in use, but {log} is still that of the former file: "
                    "stop the application, delete the -wal and -shm files, and start it again"
                )


def _open_files() -> Iterator[tuple[int, int]]:
    """Yields device and number of each file open in this process, as far as the system tells."""
    with contextlib.suppress(OSError):
        for number in os.listdir(_OPEN_FILES):  # noqa: PTH208 - of numbers, not of paths
            with contextlib.suppress(OSError):
                found = os.fstat(int(number))
                yield found.st_dev, found.st_ino
