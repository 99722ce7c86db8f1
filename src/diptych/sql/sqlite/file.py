"""Which file an SQLite database is: one that was copied elsewhere, or put in the place of another, is another one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_OPEN_FILES = Path("/dev/fd")


class DatabaseFile:
    """The file at a path, looked at again and again, since it may be replaced while connections to it are open."""

    def __init__(self) -> None:
        self._path = ""
        self._seen: tuple[int, int] | None = None
        self.last = "memory"

    def opened(self, path: str) -> None:
        """A connection was opened to this path; "" if the database is in memory."""
        self._path = path

    def identity(self) -> str:
        """Of the file that is there now, which is then ``last``.

        Raises ``OSError`` if none is, or if it is not safe to open it.
        """
        if self._path:
            found = os.stat(self._path)  # noqa: PTH116 - with each transaction: a Path takes longer
            if (found.st_dev, found.st_ino) != self._seen:
                if self._seen is not None:
                    self._refuse_mispaired()
                # The number of the file may be that of another one on another file system.
                self.last = f"file {found.st_ino} on {os.statvfs(self._path).f_fsid:x}"
                self._seen = found.st_dev, found.st_ino
        return self.last

    def _refuse_mispaired(self) -> None:
        """★ SQLite would write what the former file's log holds into the new file, and so destroy it."""
        log = Path(f"{self._path}-wal")
        with contextlib.suppress(FileNotFoundError):
            there = log.stat()
            if (there.st_dev, there.st_ino) in _open_files():
                raise OSError(
                    f"{self._path} was replaced while it was in use, but {log} is still that of the former file: "
                    "stop the application, delete the -wal and -shm files, and start it again"
                )


def _open_files() -> Iterator[tuple[int, int]]:
    """Those that this process has open, as far as the system tells."""
    with contextlib.suppress(OSError):
        for number in os.listdir(_OPEN_FILES):  # noqa: PTH208 - of numbers, not of paths
            with contextlib.suppress(OSError):
                found = os.fstat(int(number))
                yield found.st_dev, found.st_ino
