"""Commits pass together; a switch of generations waits until none is under way, and holds the next ones back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """Open: any number may pass. Closed: nobody is inside but the one who closed it."""

    def __init__(self) -> None:
        self._inside = 0
        self._opened = asyncio.Event()
        self._opened.set()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._closing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Waits while the gate is closed."""
        while not self._opened.is_set():
            await self._opened.wait()
        self._inside += 1
        self._emptied.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._emptied.set()

    @contextlib.asynccontextmanager
    async def closed(self, patience_s: float) -> AsyncIterator[None]:
        """Closes the gate and waits until nobody is inside.

        Raises ``TimeoutError`` after ``patience_s``, with the gate open again: a commit that hangs must not hold
        back all the others.
        """
        async with self._closing:
            self._opened.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._emptied.wait()
                yield
            finally:
                self._opened.set()
