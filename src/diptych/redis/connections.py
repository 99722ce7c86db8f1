"""Connections to Redis: a shared connection for queries, and a pool for everything else."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from diptych.redis.channel import CLOSED, Channel, ChannelLostError, OnLost

Opener: TypeAlias = Callable[[OnLost], Awaitable[Channel]]
"""Opens a channel that calls the callback at its end."""


class Connection:
    """A ``Channel``, opened when needed and kept open; everybody shares the opening under way.

    ``open_one`` opens a channel. ``on_failed`` is called with the cause, once for each channel lost and each failure
    to open one.
    """

    def __init__(self, open_one: Opener, on_failed: Callable[[Exception], None]) -> None:
        self.channel: Channel | None = None
        self._open_one = open_one
        self._on_failed = on_failed
        self._opening: asyncio.Task[Channel | None] | None = None
        self._problem = CLOSED
        self._is_closed = False

    async def opened(self) -> Channel:
        """Returns the channel, opened if need be. Raises ``ChannelLostError`` if opening fails."""
        if self.channel is None and not self._is_closed:
            if self._opening is None:
                # A context of its own: that of the request which happened to come first would be kept with it.
                self._opening = asyncio.get_running_loop().create_task(
                    self._open(), context=contextvars.Context()
                )
            # Waited for, not awaited: a cancelled caller must not take the opening from the others, nor may they be
            # taken for cancelled when the opening is.
            await asyncio.wait([self._opening])
        if self.channel is None:
            raise ChannelLostError(CLOSED if self._is_closed else self._problem)
        return self.channel

    def drop(self) -> None:
        """Closes the channel: the next query opens a new channel. Safe to call twice."""
        if self.channel is not None:
            self.channel.close()

    async def close(self) -> None:
        """Closes the connection for good, including an opening under way. Safe to call twice."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self.drop()

    async def _open(self) -> Channel | None:
        try:
            self.channel = await self._open_one(self._lost)
        except Exception as error:
            self._problem = str(error) or type(error).__name__
            self._on_failed(error)
        finally:
            self._opening = None
        return self.channel

    def _lost(self, channel: Channel, error: Exception | None) -> None:
        if self.channel is channel:
            self.channel = None
        if error is not None:
            self._on_failed(error)


class Pool:
    """Channels, each lent to a single task at a time; ``open_one`` opens a new channel when none is idle."""

    def __init__(self, open_one: Opener) -> None:
        self._open_one = open_one
        self._idle: list[Channel] = []
        self._open: set[Channel] = set()
        self._opening: set[asyncio.Task[Channel]] = set()
        self._is_closed = False

    async def take(self) -> Channel:
        """Returns the idle channel given back last, or opens a new channel.

        Raises ``ChannelLostError`` after ``close``, and exceptions of ``open_one``.
        """
        if self._is_closed:
            raise ChannelLostError(CLOSED)
        if self._idle:
            return self._idle.pop()
        # In a task of its own: redis-py opens by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation
        # that comes in the moment in which it is done. Whoever cancelled would wait for a task that goes on.
        opening = asyncio.get_running_loop().create_task(self._opened())
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            opening.add_done_callback(self._give_back_opened)
            raise
        if opening.cancelled():  # by `close`: the caller itself is not cancelled
            raise ChannelLostError(CLOSED)
        return opening.result()

    def give_back(self, channel: Channel) -> None:
        """Takes a lent channel back, or closes a busy channel: the next task would wait for the reply still owed."""
        if channel.is_open and (self._is_closed or not channel.is_idle):
            channel.close()
        elif channel.is_open:
            self._idle.append(channel)

    def drop_idle(self) -> None:
        """Closes the idle channels."""
        for channel in list(self._idle):
            channel.close()

    async def close(self) -> None:
        """Closes every channel for good, lent ones included. Safe to call twice."""
        self._is_closed = True
        for opening in list(self._opening):
            opening.cancel()
            await asyncio.wait([opening])
        for channel in list(self._open):
            channel.close()

    async def _opened(self) -> Channel:
        channel = await self._open_one(self._lost)
        self._open.add(channel)
        return channel

    def _give_back_opened(self, opening: asyncio.Task[Channel]) -> None:
        """Keeps the channel of an opening whose caller was cancelled."""
        if not opening.cancelled() and opening.exception() is None:
            self.give_back(opening.result())

    def _lost(self, channel: Channel, _error: Exception | None) -> None:
        self._open.discard(channel)
        if channel in self._idle:
            self._idle.remove(channel)
