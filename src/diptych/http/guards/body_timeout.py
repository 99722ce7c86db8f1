"""A limit of time for bodies that come slowly, for servers that have none."""

from __future__ import annotations

import asyncio

from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.http.guards.refusal import refuse
from diptych.http.reading import RequestTimeout, closing

WITHOUT_BODY = frozenset({"GET", "HEAD"})
"""Methods whose requests nobody expects to have a body."""

_DISCONNECT: Message = {"type": "http.disconnect"}


class BodyTimeout:
    """Answers a request with 408 whose body does not arrive in time.

    A body has `timeout_s` seconds, and a second more for every `bytes_per_s` bytes that have arrived: a client that
    stalls is given up, and a slow one may go on at this rate. Only the time counts in which the application waits for
    the body. After the answer the connection is closed, and the application finds its client gone.

    >>> import asyncio
    >>> from diptych.http import BodyTimeout, read_body
    >>> async def site(scope, receive, send):
    ...     await read_body(scope, receive, max_bytes=1000)
    >>> async def receive():
    ...     await asyncio.sleep(60)
    >>> async def send(message):
    ...     print(message.get("status", ""))
    >>> app = BodyTimeout(site, timeout_s=0.01)
    >>> asyncio.run(app({"type": "http", "method": "POST", "headers": []}, receive, send))
    408
    <BLANKLINE>
    """

    def __init__(self, app: ASGIApp, timeout_s: float = 10.0, bytes_per_s: int = 4_000) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._bytes_per_s = bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http" or scope["method"] in WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._timeout_s, self._bytes_per_s)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.is_late:  # else the application says that its client has gone
                raise


class _Exchange:
    """One request whose body is awaited, and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, left_s: float, bytes_per_s: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._left_s = left_s
        self._bytes_per_s = bytes_per_s
        self._is_whole = False
        self._has_begun = False
        self.is_late = False

    async def receive(self) -> Message:
        """Awaits the next part of the body; gives up, and answers, when the time is over."""
        if self._is_whole:
            return await self._receive()
        if self.is_late:
            return _DISCONNECT
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout_at(began + self._left_s):
                message = await self._receive()
        except TimeoutError:
            self.is_late = True
            if not self._has_begun:
                await refuse(closing(RequestTimeout(), self._scope), self._send)
            return _DISCONNECT
        self._left_s += len(message.get("body", b"")) / self._bytes_per_s - (loop.time() - began)
        self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Sends the application's answer, unless the request was answered already."""
        if not self.is_late:
            self._has_begun = True
            await self._send(message)
