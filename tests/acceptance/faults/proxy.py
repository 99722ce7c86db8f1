"""The network between one process and one server: a TCP proxy that can do to it what networks do.

What is held or delayed keeps its order within its connection and is delivered even if the client has gone meanwhile:
that is how a message arrives late. Bytes are never left out of a connection that goes on afterwards: no network does
that, and replies would be taken for those of other requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import cast

from tests.servers import HOST


class Mode(Enum):
    """What a link does with what comes."""

    PASS = "pass"
    REFUSE = "refuse"  # new connections are reset
    HOLD = "hold"  # nothing is delivered until the link passes again, then all of it
    DEAF = "deaf"  # requests are delivered; replies are not, nor any later reply on that connection


class Link:
    """Listens on a port of its own and leads who connects to ``target``, a port. All in the running event loop."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.mode = Mode.PASS
        self.delay: Callable[[], float] | None = None
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begins to listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self).client, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cuts all connections and listens no more."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next turn

    def cut(self, share: float = 1.0) -> None:
        """Resets every connection, or this share of them, both ways; what was held is lost."""
        for connection in list(self.connections):
            if random.random() < share:
                connection.cut()

    def refuse(self) -> None:
        """Cuts, and resets whoever connects from now on."""
        self.mode = Mode.REFUSE
        self.cut()

    def hold(self) -> None:
        """Delivers nothing any more, and keeps it."""
        self.mode = Mode.HOLD

    def deafen(self) -> None:
        """Delivers requests, but no replies."""
        self.mode = Mode.DEAF

    def slow_down(self, delay: Callable[[], float]) -> None:
        """Delivers each piece after so many seconds, on each connection by itself: messages overtake each other."""
        self.delay = delay

    def heal(self) -> None:
        """As if nothing had been: what is held is delivered."""
        self.mode, self.delay = Mode.PASS, None
        for connection in list(self.connections):
            connection.release()

    def lead_to(self, target: int) -> None:
        """Leads to another server, for which every connection is cut: no proxy may swap it behind a connection."""
        self.target = target
        self.cut()

    def lead_new_to(self, target: int) -> None:
        """Leads those to another server who connect from now on, as a name does that is given another address."""
        self.target = target

    async def flap(self, period_s: float) -> None:
        """Refuses for half of each period and passes for the other, until it is cancelled."""
        try:
            while True:
                self.refuse()
                await asyncio.sleep(period_s / 2)
                self.heal()
                await asyncio.sleep(period_s / 2)
        finally:
            self.heal()


class _Connection:
    """A client's connection and the one it was given to the server."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.client = _End(self)
        self.server = _End(self)
        self._deaf = False
        self._opening: asyncio.Task[None] | None = None

    def opened(self, end: _End) -> None:
        if end is not self.client:
            return
        self.link.connections.add(self)
        if self.link.mode is Mode.REFUSE:
            self.cut()
        else:
            self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self.server, HOST, self.link.target)
        except OSError:
            self.cut()

    def received(self, end: _End, data: bytes) -> None:
        if end is self.client:
            self.server.send(data)
        elif self.link.mode is Mode.DEAF or self._deaf:
            self._deaf = True
        else:
            self.client.send(data)

    def closed(self, end: _End) -> None:
        other = self.server if end is self.client else self.client
        other.close_when_sent()
        if end.gone and other.gone:
            self.link.connections.discard(self)

    def release(self) -> None:
        self.client.flush()
        self.server.flush()

    def cut(self) -> None:
        self.link.connections.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        self.client.reset()
        self.server.reset()


class _End(asyncio.Protocol):
    """One of the two sockets, and what is to be sent on it: each piece with the time when it is due."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.gone:
            self._transport.abort()
            return
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.opened(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._connection.received(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        self._connection.closed(self)

    def send(self, data: bytes) -> None:
        link = self._connection.link
        if self.gone:
            return
        if (
            self._transport is not None
            and not self._waiting
            and link.mode is not Mode.HOLD
            and link.delay is None
        ):
            self._transport.write(data)
            return
        delay_s = link.delay() if link.delay is not None else 0.0
        now = asyncio.get_running_loop().time()
        last = self._waiting[-1][0] if self._waiting else 0.0
        self._waiting.append((max(last, now + delay_s), data))
        self.flush()

    def flush(self) -> None:
        """Sends what is due, unless the link holds it; comes again for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is None or self.gone or self._connection.link.mode is Mode.HOLD:
            return
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self._transport.write(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0][0], self.flush)
        elif self._closing:
            self._transport.close()

    def close_when_sent(self) -> None:
        self._closing = True
        if not self._waiting and self._transport is not None:
            self._transport.close()
        elif self._transport is None and not self._waiting:
            self._forget()

    def reset(self) -> None:
        """Closes with RST and forgets what was to be sent."""
        self._forget()
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    @property
    def _socket(self) -> socket.socket:
        assert self._transport is not None
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def _forget(self) -> None:
        self.gone = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
