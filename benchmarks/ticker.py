"""A clock that ticks at a fixed rate, to the microsecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable


class Ticker:
    """Calls back at a fixed rate, with the time at which each call was due.

    By a timer of the kernel: event loops round their own to milliseconds, which is longer than most answers take.
    """

    def __init__(self, rate: float, tick: Callable[[float], None]) -> None:
        if sys.platform != "linux":
            raise SystemExit("a fixed rate needs a timer that only Linux has")
        self._interval_s = 1 / rate
        self._tick = tick
        self._file = -1

    def __enter__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._next = time.perf_counter() + self._interval_s
        seconds, fraction = divmod(self._interval_s, 1)
        timing = struct.pack("llll", *(int(seconds), int(fraction * 1e9)) * 2)
        if libc.timerfd_settime(self._file, 0, timing, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        asyncio.get_running_loop().add_reader(self._file, self._expired)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)

    def _expired(self) -> None:
        os.read(self._file, 8)
        now = time.perf_counter()
        while self._next <= now:
            self._tick(self._next)
            self._next += self._interval_s
