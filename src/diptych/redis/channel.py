"""The connections to Redis. All queries of a process share one: what comes in one turn of the loop goes out together.

One connection, many requests in flight: Redis answers in the order of asking, so the replies are dealt out in that
order and nothing needs to name them. It costs a process one system call a turn where a connection for each request
costs two and a lock. Everything else has a connection lent while it needs it. Opening is left to redis-py: its URL,
TLS, user and password, and its handshake.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from hiredis import ProtocolError, Reader, pack_command
from redis._parsers import BaseParser  # its table of errors; the package shows it nowhere else
from redis.exceptions import ConnectionError as RedisConnectionError

from diptych.redis.identity import RedisIdentity

_MOST_IN_FLIGHT = 1024
"""More wait here, where one that is cancelled costs Redis nothing."""

_GRACE_S = 0.005
"""Time for what has come already: a loop that was held up may look at its timers before its sockets (uvloop does)."""


class Receiver(Protocol):
    """Who waits for a reply: a future, or what takes it at once, within the turn of the loop in which it comes."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Any, /) -> None:
        """Takes the reply."""

    def set_exception(self, exception: Exception, /) -> None:
        """Takes what came in its place."""


_Reply: TypeAlias = tuple[Receiver, int | None]
"""Who waits for a reply, and how many values it must have."""

_NOT_ENOUGH = object()
_IS_CLOSED = "the connection to Redis is closed"


class ChannelLostError(RedisConnectionError):
    """There is no connection any more, or none could be opened: told to each request that waited for its reply."""


def packed(*words: Any) -> bytes:
    """A command as it is sent."""
    command: bytes = pack_command(words)
    return command


class Channel(asyncio.Protocol):
    """An open connection; made from redis-py's, which it takes over. ``server`` is whom it leads to.

    It is lost, with all that wait, when Redis sends nothing for ``timeout_s`` while replies are missing: they fail
    with ``ChannelLostError``. An error that Redis answers (``ResponseError`` and its like) concerns one request.
    """

    def __init__(
        self, opened: Any, timeout_s: float, on_lost: Callable[[Channel, Exception | None], None]
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
        self._error: ChannelLostError | None = None
        # The StreamWriter stays where it is, in `opened`: collected, it would close the transport.
        self._transport: asyncio.Transport = opened._writer.transport
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether it has not been lost."""
        return self._error is None

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for a reply, nor is one to come that nobody waits for."""
        return not self._in_flight and not self._waiting

    def request(
        self, packed: bytes, length: int | None = None, *, at_once: bool = False
    ) -> asyncio.Future[Any]:
        """Sends one command, packed, with those of this turn of the loop, or ``at_once``. Awaited, it is the reply.

        Who is cancelled leaves its place in the order of replies, and its reply goes to nobody. ``length`` is how
        many values the reply must have.
        """
        future = self._loop.create_future()
        self.send(packed, future, length)
        if at_once:
            self.flush()
        elif len(self._unsent) == 1:
            self._loop.call_soon(self.flush)
        return future

    def send(self, packed: bytes, receiver: Receiver, length: int | None = None) -> None:
        """What ``request`` does, for any receiver; but it goes out with the next ``flush``."""
        if self._error is not None:
            receiver.set_exception(_again(self._error))
        elif self._waiting or self._is_paused or len(self._in_flight) >= _MOST_IN_FLIGHT:
            self._waiting.append((packed, (receiver, length)))
        else:
            self._let_go(packed, (receiver, length))

    def call(self, *words: Any, at_once: bool = False) -> asyncio.Future[Any]:
        """Sends one command, as ``request`` does."""
        return self.request(packed(*words), at_once=at_once)

    def flush(self) -> None:
        """Sends what has been asked, without waiting for what else comes in this turn."""
        unsent, self._unsent = self._unsent, []
        if self._error is not None or not unsent:
            return
        if len(self._in_flight) == len(unsent):  # from here on Redis has something to answer
            self._heard = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._timeout_s, self._look_at_the_time)
        self._transport.write(b"".join(unsent) if len(unsent) > 1 else unsent[0])

    def close(self, error: Exception | None = None) -> None:
        """Ends it at once; all that wait fail. ``error`` is what was wrong, if anything was. Safe to call twice."""
        if self._error is not None:
            return
        self._error = ChannelLostError(_IS_CLOSED if error is None else str(error))
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._opened._close()  # does no more than to forget the streams; `disconnect` is a coroutine
        self._unsent.clear()
        for receiver, _ in [*self._in_flight, *(reply for _, reply in self._waiting)]:
            if not receiver.done():
                receiver.set_exception(_again(self._error))
        self._in_flight.clear()
        self._waiting.clear()
        self._on_lost(self, error)

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Deals the replies out. One may come in many parts; of its parts nobody hears."""
        self._heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_ENOUGH:
                self._deal_out(reply)
        except (ProtocolError, IndexError, ValueError):
            # ★ From here on it can't be known which reply is whose: none may be given to anybody.
            self.close(RedisConnectionError("Redis answered what nobody had asked, or not in its protocol"))
        if self._waiting:
            self._let_more_go()

    def connection_lost(self, exc: Exception | None) -> None:
        """Redis, or what is between, has ended it. If nobody waited, that is no failure: it may have been idle."""
        self.close(
            None if self.is_idle else RedisConnectionError(str(exc) if exc else "Redis closed the connection")
        )

    def pause_writing(self) -> None:
        """What has been written does not get away: the requests wait here."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_paused = False
        self._let_more_go()

    # Within

    def _deal_out(self, reply: Any) -> None:
        receiver, length = self._in_flight[0]
        is_error = isinstance(reply, Exception)
        if length is not None and not is_error and (type(reply) is not list or len(reply) != length):
            raise ValueError  # the reply of another request
        del self._in_flight[0]
        if receiver.done():  # it was cancelled: nobody waits for it any more
            return
        if is_error:
            receiver.set_exception(reply)
        else:
            receiver.set_result(reply)

    def _let_go(self, packed: bytes, reply: _Reply) -> None:
        self._unsent.append(packed)
        self._in_flight.append(reply)

    def _let_more_go(self) -> None:
        while self._waiting and not self._is_paused and len(self._in_flight) < _MOST_IN_FLIGHT:
            packed, reply = self._waiting.popleft()
            if not reply[0].done():
                self._let_go(packed, reply)
        self.flush()

    def _look_at_the_time(self) -> None:
        """One timer for all: those who came first have waited longest, and are answered first."""
        self._watch = None
        if not self._in_flight:
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

    ``open_one`` gives a new connection of redis-py that has shaken hands and knows whom it leads to. ``on_failed``
    hears once of each channel that was lost, and of each that could not be opened, why.
    """

    def __init__(
        self,
        open_one: Callable[[], Awaitable[Any]],
        timeout_s: float,
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.channel: Channel | None = None
        self._open_one = open_one
        self._timeout_s = timeout_s
        self._on_failed = on_failed
        self._opening: asyncio.Task[Channel | None] | None = None
        self._problem = _IS_CLOSED
        self._is_closed = False

    async def opened(self) -> Channel:
        """The channel, opened if need be. Raises ``ChannelLostError`` if it can't be."""
        if self.channel is None and not self._is_closed:
            if self._opening is None:
                # A context of its own: that of the request which happened to come first would be kept with it.
                self._opening = asyncio.get_running_loop().create_task(
                    self._open(), context=contextvars.Context()
                )
            # Waited for, not awaited: who is cancelled must not take it from the others, nor they be taken for
            # cancelled when it is.
            await asyncio.wait([self._opening])
        if self.channel is None:
            raise ChannelLostError(_IS_CLOSED if self._is_closed else self._problem)
        return self.channel

    def drop(self) -> None:
        """Ends the channel: the next query opens another. Safe to call twice."""
        if self.channel is not None:
            self.channel.close()

    async def close(self) -> None:
        """Ends it for good, an opening that is under way included. Safe to call twice."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self.drop()

    async def _open(self) -> Channel | None:
        try:
            opened = await self._open_one()
            self.channel = Channel(opened, self._timeout_s, self._lost)
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
    """Channels that are lent to one task each. One is opened when none is idle.

    ``open_one`` gives a new connection of redis-py, as for ``Connection``.
    """

    def __init__(self, open_one: Callable[[], Awaitable[Any]], timeout_s: float) -> None:
        self._open_one = open_one
        self._timeout_s = timeout_s
        self._idle: list[Channel] = []
        self._open: set[Channel] = set()
        self._opening: set[asyncio.Task[Channel]] = set()
        self._is_closed = False

    async def take(self) -> Channel:
        """The channel that was given back last, or a new one. Raises what ``open_one`` does, ``ChannelLostError``."""
        if self._is_closed:
            raise ChannelLostError(_IS_CLOSED)
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
            opening.add_done_callback(self._was_left)
            raise
        if opening.cancelled():  # by `close`: who waits is not cancelled himself
            raise ChannelLostError(_IS_CLOSED)
        return opening.result()

    def give_back(self, channel: Channel) -> None:
        """Takes it back from who had it. One that still owes him a reply is ended: the next would wait for that."""
        if channel.is_open and (self._is_closed or not channel.is_idle):
            channel.close()
        elif channel.is_open:
            self._idle.append(channel)

    def drop_idle(self) -> None:
        """Ends those that nobody has."""
        for channel in list(self._idle):
            channel.close()

    async def close(self) -> None:
        """Ends all of them for good. Safe to call twice."""
        self._is_closed = True
        for opening in list(self._opening):
            opening.cancel()
            await asyncio.wait([opening])
        for channel in list(self._open):
            channel.close()

    async def _opened(self) -> Channel:
        channel = Channel(await self._open_one(), self._timeout_s, self._lost)
        self._open.add(channel)
        return channel

    def _was_left(self, opening: asyncio.Task[Channel]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.give_back(opening.result())

    def _lost(self, channel: Channel, _error: Exception | None) -> None:
        self._open.discard(channel)
        if channel in self._idle:
            self._idle.remove(channel)


def _again(error: ChannelLostError) -> ChannelLostError:
    """Each who waits is given one of its own: they grow as they are raised."""
    return ChannelLostError(*error.args)
