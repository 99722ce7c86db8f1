"""Identity of an SQLite file: a copy, or a file put in the place of the former, is a different database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_OPEN_FILES = Path("/dev/fd")


class DatabaseFile:
    """The file at a path, checked at each use: the file may be replaced while connections are open."""

    def __init__(self) -> None:
        self._path = ""
        self._seen: tuple[int, int] | None = None
        self.last = "memory"

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
