"""Ends the servers of a test run, however the run ended.

It runs as a process of its own and reads from its standard input which processes and directories there are.
When the input ends, the tests have ended too (finished, interrupted or killed), and what is left is removed.
Without it a killed test run would leave databases running.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path


def watch_process(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Have ``pid`` ended with ``signal_number`` if the tests end first."""
    _tell(f"+ {pid} {int(signal_number)}")


def forget_process(pid: int) -> None:
    """``pid`` has ended and been waited for; the number may soon belong to a different process."""
    _tell(f"- {pid}")


def watch_directory(path: Path) -> None:
    """Have ``path`` removed at the end of the tests."""
    _tell(f"d {path}")


@cache
def _guard() -> subprocess.Popen[str]:
    guard = subprocess.Popen(
        [sys.executable, "-I", __file__], stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
    )
    atexit.register(_dismiss, guard)
    return guard


def _dismiss(guard: subprocess.Popen[str]) -> None:
    """Lets the guard finish the rest of its work, and waits."""
    if guard.stdin is not None:
        guard.stdin.close()
    guard.wait()


def _tell(line: str) -> None:
    if (pipe := _guard().stdin) is not None:
        pipe.write(line + "\n")


def _stand_guard() -> None:
    processes: dict[int, int] = {}
    directories: list[str] = []
    for line in sys.stdin:
        match line.rstrip("\n").split(" ", 2):
            case ["+", pid, signal_number]:
                processes[int(pid)] = int(signal_number)
            case ["-", pid]:
                processes.pop(int(pid), None)
            case ["d", *path]:
                directories.append(" ".join(path))
    for pid, number in processes.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, number)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _stand_guard()
