"""The event loop of an opened object, and the refusal to work in any other."""

from __future__ import annotations

import asyncio

from diptych.errors import DifferentLoopError


class HomeLoop:
    """The event loop in which an object was opened, and where its locks, connections and tasks are.

    A future of this loop never wakes a task of another loop, which would wait for ever. ``what`` names the opened
    object in the error. The loop is the one that runs when the ``HomeLoop`` is made.
    """

    __slots__ = ("_loop", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raises ``DifferentLoopError`` unless this loop is running now."""
        if asyncio.get_running_loop() is not self._loop:
            raise DifferentLoopError(self._what, is_closed=self._loop.is_closed())
