"""The limit: raw ASGI over one connection to Redis that all requests share; what is asked in one turn of the loop
goes out in one write. The smallest thing that answers from Redis; it knows neither leases nor failures.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Any, cast
from urllib.parse import urlsplit

import hiredis

from benchmarks.peers.asgi import Receive, Scope, Send, run_lifespan


class Multiplexed(asyncio.Protocol):
    """The connection: replies come in the order of the commands."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def get(self, key: str) -> asyncio.Future[Any]:
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent.append(hiredis.pack_command(("GET", key)))  # type: ignore[arg-type]
        reply = self._loop.create_future()
        self._waiting.append(reply)
        return reply

    def _write(self) -> None:
        self.transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)


class Limit:
    """The application."""

    redis: Multiplexed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await run_lifespan(receive, send, self._start, self._stop)
            return
        body = await self.redis.get(f"book:{scope['path'][len('/books/') :]}")
        status = 404 if body is None else 200
        body = body or b""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _start(self) -> None:
        url = urlsplit(os.environ["REDIS_URL"])
        loop = asyncio.get_running_loop()
        _, self.redis = await loop.create_connection(Multiplexed, str(url.hostname), url.port or 6379)

    async def _stop(self) -> None:
        self.redis.transport.close()


app = Limit()
