"""The output of a command: a character or a reader that is not there never ends the command itself.

A terminal or a pipe may be unable to show a character, be closed before the command has begun (``>&-``) or before it
has ended (``| head -1``), or be a file on a full disk. What a command does and finds out, and the exit code by which
it says so, are the same all the while.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_UNWRITTEN = 74
"""The exit code of a command whose output could not be written: EX_IOERR of sysexits.h."""


class _Forgiving(io.FileIO):
    """A file whose writes do not fail: after a ``problem`` what is written goes nowhere."""

    problem: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        if self.problem is None:
            try:
                return super().write(data)
            except OSError as error:
                self.problem = error
        return memoryview(data).nbytes


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Makes standard output and standard error of the process such that nothing written to them raises an error.

    At the end a problem of standard output is told, and the process ends with 74 where it would have ended with 0.
    That nobody reads any more is no problem.
    """
    file = _forgiving("stdout")
    _forgiving("stderr")
    try:
        yield
    except SystemExit as end:
        sys.stdout.flush()
        if file is None or file.problem is None or file.problem.errno == errno.EPIPE:
            raise
        print(f"Error: not all could be written: {file.problem.strerror}", file=sys.stderr)
        raise SystemExit(end.code or _UNWRITTEN) from None


def _forgiving(name: str) -> _Forgiving | None:
    stream = getattr(sys, name)
    if stream is None:  # it was closed before the process began
        setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (it stays open)
        return None
    file = _Forgiving(stream.fileno(), "wb", closefd=False)
    lines = stream.line_buffering or stream.write_through
    text = io.TextIOWrapper(
        io.BufferedWriter(file), stream.encoding, "backslashreplace", line_buffering=lines
    )
    setattr(sys, name, text)
    return file


def is_unread() -> bool:
    """Returns True if nobody gets what is written to standard output any more: the next line may come late."""
    file = getattr(sys.stdout.buffer, "raw", None)
    if isinstance(file, _Forgiving) and file.problem is not None:
        return True
    with contextlib.suppress(OSError, ValueError):  # not a pipe, or not a file at all
        pipe = select.poll()
        pipe.register(sys.stdout.fileno(), 0)
        return any(events & select.POLLERR for _, events in pipe.poll(0))
    return False


def print_json(value: object) -> None:
    """Prints a value, in which there may be Structs, as JSON on one line, for programs.

    The JSON is in printable ASCII: valid in every encoding, and without effect on a terminal.
    """
    print(json.dumps(msgspec.to_builtins(value)).replace("\x7f", r"\u007f"))


def end_stopped() -> NoReturn:
    """Prints that Ctrl+C has stopped the command, and ends the command with the exit code of Ctrl+C."""
    print("Stopped.", file=sys.stderr)
    raise SystemExit(128 + signal.SIGINT) from None
