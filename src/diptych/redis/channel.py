"""An open connection to Redis with many requests in flight.

Redis answers in the order of asking, so replies are dealt out in that order and nothing needs to name them. All
queries of a process share one channel, and everything else has one lent while it needs it (``connections.py``).
Opening is left to redis-py: its URL, TLS, user and password, and its handshake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from hiredis import ProtocolError, Reader, pack_command
from redis._parsers import BaseParser  # its table of errors; the package shows it nowhere else
from redis.exceptions import ConnectionError as RedisConnectionError

from diptych.redis import RedisIdentity
from diptych.redis.server import RefusedServerError, identity_in

_MOST_IN_FLIGHT = 1024
"""Number of requests that Redis is sent at most before it answers. Further ones wait in the channel, where a request
that is cancelled costs Redis nothing."""

_GRACE_S = 0.005
"""Seconds that an overdue reply is given once more, since it may have come already: an event loop that was held up
may look at its timers before its sockets (uvloop does)."""


class Receiver(Protocol):
    """The recipient of a reply: a future, or an object that acts in the turn of the reply."""

    def done(self) -> bool:
        """Says if the reply is not wanted any more."""

    def set_result(self, result: Any, /) -> None:
        """Takes the reply."""

    def set_exception(self, exception: Exception, /) -> None:
        """Takes the error in place of the reply."""


_Reply: TypeAlias = tuple[Receiver, int | None]
"""The recipient of a reply, and the number of values the reply must have (None: any)."""

OnLost: TypeAlias = Callable[["Channel", Exception | None], None]
"""Takes note of the end of a channel, and of its cause (None: closed on purpose, or while idle)."""

_NOT_ENOUGH = object()
CLOSED = "the connection to Redis is closed"
"""Text of the error of a request made after the end."""


class ChannelLostError(RedisConnectionError):
    """The loss of a connection, or a failure to open a connection; raised to each request without its reply."""


def packed(*words: Any) -> bytes:
    """Encodes a command in Redis's protocol."""
    command: bytes = pack_command(words)
    return command


class Channel(asyncio.Protocol):
    """An open connection to the Redis named by ``server``, taken over from the connection ``opened`` of redis-py.

    The channel is lost when Redis sends nothing for ``timeout_s`` while replies are missing: all its requests fail
    with ``ChannelLostError``, and ``on_lost`` is called with the channel and the cause (None: closed on purpose, or
    while idle). An error that Redis answers (``ResponseError`` and its like) concerns one request.
    """

    def __init__(
        self,
        opened: Any,
        timeout_s: float,
        on_lost: OnLost,
    ) -> None:
        self.server: RedisIdentity = opened.diptych_server
        self._opened = opened
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(replyError=BaseParser.parse_error, notEnoughData=_NOT_ENOUGH)
        self._unsent: list[bytes] = []
        self._in_flight: deque[_Reply] = deque()
        self._waiting: deque[tuple[bytes, _Reply]] = deque()
        self._heard = self._overdue = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._error: ChannelLostError | None = None  # copied for each request: a raised exception grows
        # The StreamWriter stays where it is, in `opened`: collected, it would close the transport.
        self._transport: asyncio.Transport = opened._writer.transport
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Says if the channel has been neither closed nor lost."""
        return self._error is None

    @property
    def is_idle(self) -> bool:
        """Says if no reply is to come, not even for a cancelled request."""
        return not self._in_flight and not self._waiting

    def call(self, *words: Any) -> asyncio.Future[Any]:
        """Sends a command at once, with those that are queued. Returns a future of the reply.

        A cancelled request keeps its place in the order of replies, and its reply is dropped.
        """
        future = self._loop.create_future()
        self.send(packed(*words), future)
        self.flush()
        return future

    async def identify(self) -> None:
        """Reads ``server`` anew. If the server is unfit by now, closes the channel; raises ``RefusedServerError``."""
        try:
            self.server = identity_in(await self.call("INFO"))
        except RefusedServerError as refused:
            self.close(refused)
            raise

    def send(self, packed: bytes, receiver: Receiver, length: int | None = None) -> None:
        """Queues a packed command for the next ``flush``. ``receiver`` gets the reply of ``length`` values."""
        if self._error is not None:
            receiver.set_exception(ChannelLostError(*self._error.args))
        elif self._waiting or self._is_paused or len(self._in_flight) >= _MOST_IN_FLIGHT:
            self._waiting.append((packed, (receiver, length)))
        else:
            self._unsent.append(packed)
            self._in_flight.append((receiver, length))

    def flush(self) -> None:
        """Sends the queued commands now, in one system call."""
        unsent, self._unsent = self._unsent, []
        if self._error is not None or not unsent:
            return
        if len(self._in_flight) == len(unsent):  # from here on Redis has something to answer
            self._heard = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._timeout_s, self._check_silence)
        self._transport.write(b"".join(unsent) if len(unsent) > 1 else unsent[0])

    def close(self, error: Exception | None = None) -> None:
        """Ends the connection at once; waiting requests fail. ``error`` is the cause, if any. Safe to call twice."""
        if self._error is not None:
            return
        self._error = ChannelLostError(CLOSED if error is None else str(error))
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._opened._close()  # does no more than to forget the streams; `disconnect` is a coroutine
        self._unsent.clear()
        for receiver, _ in [*self._in_flight, *(reply for _, reply in self._waiting)]:
            if not receiver.done():
                receiver.set_exception(ChannelLostError(*self._error.args))
        self._in_flight.clear()
        self._waiting.clear()
        self._on_lost(self, error)

    # Called by the event loop

    def data_received(self, data: bytes) -> None:
        """Deals complete replies out. A reply may come in many parts."""
        self._heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_ENOUGH:
                self._deal_out(reply)
        except (ProtocolError, IndexError, ValueError):
            # ★ From here on it can't be known which reply is whose: none may be given to anybody.
            self.close(RedisConnectionError("Redis answered what nobody had asked, or not in its protocol"))
        if self._waiting:
            self._send_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closes the channel after the other end did. No failure is reported if the connection was idle."""
        self.close(
            None if self.is_idle else RedisConnectionError(str(exc) if exc else "Redis closed the connection")
        )

    def pause_writing(self) -> None:
        """Has further requests wait here, since the socket takes no more bytes."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Sends the waiting requests: the socket takes bytes again."""
        self._is_paused = False
        self._send_waiting()

    # Internals

    def _deal_out(self, reply: Any) -> None:
        receiver, length = self._in_flight[0]
        is_error = isinstance(reply, Exception)
        if length is not None and not is_error and (type(reply) is not list or len(reply) != length):
            raise ValueError  # the reply of another request
        del self._in_flight[0]
        if receiver.done():  # it was cancelled
            return
        if is_error:
            receiver.set_exception(reply)
        else:
            receiver.set_result(reply)

    def _send_waiting(self) -> None:
        while self._waiting and not self._is_paused and len(self._in_flight) < _MOST_IN_FLIGHT:
            packed, reply = self._waiting.popleft()
            if not reply[0].done():
                self._unsent.append(packed)
                self._in_flight.append(reply)
        self.flush()

    def _check_silence(self) -> None:
        """Closes the channel if Redis was silent too long. A single timer serves all, since replies come in order."""
        self._watch = None
        if not self._in_flight:
            return
        left_s = self._heard + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._check_silence)
        elif self._overdue != self._heard:
            self._overdue = self._heard
            self._watch = self._loop.call_later(_GRACE_S, self._check_silence)
        else:
            self.close(TimeoutError("Redis did not answer in time"))
