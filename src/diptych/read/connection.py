"""The connection on which all queries of a process go to Redis: what comes in one turn of the loop goes out together.

One connection, many requests in flight: Redis answers in the order of asking, so the replies are dealt out in that
order and nothing needs to name them. It costs a process one system call a turn where a connection for each request
costs two and a lock. Opening is left to redis-py: its URL, TLS, user and password, and its handshake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from hiredis import ProtocolError, Reader, pack_command
from redis._parsers import BaseParser  # its table of errors; the package shows it nowhere else
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError

from diptych.ports import Incarnation

_MOST_WAITING = 1024
"""So many requests may be in flight; more wait here, where a cancelled one costs Redis nothing."""

_GRACE_S = 0.005
"""Time for what has come already: a loop that was held up looks at its timers before its sockets."""

_IS_CLOSED = "the connection to Redis is closed"


def packed(*words: Any) -> bytes:
    """A command as it is sent."""
    command: bytes = pack_command(words)
    return command


class Channel(asyncio.Protocol):
    """An open connection; made from redis-py's, which it takes over. ``server`` is whom it leads to.

    It is lost, with all that wait, when Redis sends nothing for ``timeout_s`` while somebody waits. A request fails
    with what redis-py would raise: an error that Redis answered (``ResponseError`` and its like) concerns it alone.
    """

    def __init__(self, opened: Any, timeout_s: float, on_lost: Callable[[Channel], None]) -> None:
        self.server: Incarnation = opened.diptych_server
        self._opened = opened
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(replyError=BaseParser.parse_error)
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._room: asyncio.Future[None] | None = None
        self._heard = self._loop.time()
        self._overdue = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._error: Exception | None = None
        # The StreamWriter stays where it is, in `opened`: collected, it would close the transport.
        self._transport: asyncio.Transport = opened._writer.transport
        self._transport.set_protocol(self)

    def request(self, packed: bytes) -> Awaitable[Any]:
        """Sends one command, packed, with those of this turn of the loop. Awaited, it is the reply.

        Who is cancelled leaves its place in the order of replies, and its reply goes to nobody.
        """
        if self._error is not None or self._is_full():
            return self._request_later(packed)
        reply = self._loop.create_future()
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(packed)
        if not self._waiting:
            self._heard = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._timeout_s, self._look_at_the_time)
        self._waiting.append(reply)
        return reply

    async def call(self, *words: Any) -> Any:
        """Sends one command and returns its reply."""
        return await self.request(packed(*words))

    def close(self, error: Exception | None = None) -> None:
        """Ends it at once; all that wait fail with ``error``. Safe to call twice."""
        if self._error is not None:
            return
        self._error = error or RedisConnectionError(_IS_CLOSED)
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._opened._close()  # does no more than to forget the streams; `disconnect` is a coroutine
        self._unsent.clear()
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(type(self._error)(*self._error.args))
        self._make_room()
        self._on_lost(self)

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Deals the replies out. One may come in many parts; of its parts nobody hears."""
        self._heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._deal_out(reply)
        except (ProtocolError, IndexError):
            # ★ From here on it can't be known which reply is whose: none may be given to anybody.
            self.close(RedisConnectionError("Redis answered what nobody had asked, or not in its protocol"))
        if self._room is not None and not self._is_full():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Redis, or what is between, has ended it."""
        self.close(RedisConnectionError(str(exc) if exc else "Redis closed the connection"))

    def pause_writing(self) -> None:
        """What has been written does not get away: the requests wait here."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_paused = False
        self._make_room()

    # Within

    def _deal_out(self, reply: Any) -> None:
        waiting = self._waiting.popleft()
        if waiting.done():  # cancelled: nobody waits for it any more
            return
        if isinstance(reply, Exception):
            waiting.set_exception(reply)
        else:
            waiting.set_result(reply)

    def _send(self) -> None:
        if self._unsent:
            packed, self._unsent = self._unsent, []
            self._transport.write(b"".join(packed) if len(packed) > 1 else packed[0])

    def _is_full(self) -> bool:
        return self._is_paused or len(self._waiting) >= _MOST_WAITING

    async def _request_later(self, packed: bytes) -> Any:
        while self._error is None and self._is_full():
            if self._room is None:
                self._room = self._loop.create_future()
            await asyncio.shield(self._room)
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        return await self.request(packed)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def _look_at_the_time(self) -> None:
        """One timer for all: those who came first have waited longest, and are answered first."""
        self._watch = None
        if not self._waiting:
            return
        left_s = self._heard + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look_at_the_time)
        elif self._overdue != self._heard:
            self._overdue = self._heard
            self._watch = self._loop.call_later(_GRACE_S, self._look_at_the_time)
        else:
            self.close(TimeoutError("Redis did not answer in time"))


class Connection:
    """Keeps one ``Channel`` open, for as long as it is used; who needs one while there is none waits for the same.

    ``open`` gives a new connection of redis-py that has shaken hands and knows whom it leads to.
    """

    def __init__(self, open_one: Callable[[], Awaitable[Any]], timeout_s: float) -> None:
        self.channel: Channel | None = None
        self._open_one = open_one
        self._timeout_s = timeout_s
        self._opening: asyncio.Task[Channel] | None = None

    async def opened(self) -> Channel:
        """The channel, opened if need be. Raises redis-py's errors, ``OSError`` and ``TimeoutError``."""
        if self.channel is not None:
            return self.channel
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._opened)
        # Shielded: who is cancelled must not take the channel from the others.
        return await asyncio.shield(self._opening)

    def drop(self) -> None:
        """Ends the channel: the next query opens another. Safe to call twice."""
        if self.channel is not None:
            self.channel.close()

    async def close(self) -> None:
        """Ends it for good, an opening that is under way included. Safe to call twice."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self.drop()

    async def _open(self) -> Channel:
        channel = Channel(await self._open_one(), self._timeout_s, self._lost)
        self.channel = channel
        return channel

    def _opened(self, opening: asyncio.Task[Channel]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to those who waited, if anybody still did

    def _lost(self, channel: Channel) -> None:
        if self.channel is channel:
            self.channel = None
