"""The event loop that something was opened in, and the refusal to be used from another one."""

from __future__ import annotations

import asyncio

from diptych.errors import DifferentLoopError


class HomeLoop:
    """The event loop that runs now. What is opened in it has its locks, connections and tasks there.

    In another loop a future of this one never wakes anybody: whoever awaited it there would wait for ever. ``what``
    is opened, as the error is to name it.
    """

    __slots__ = ("_loop", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raises ``DifferentLoopError`` unless this loop is the one that runs now."""
        if asyncio.get_running_loop() is not self._loop:
            raise DifferentLoopError(self._what, is_closed=self._loop.is_closed())
