"""``RedisService``: the connections to Redis, whether it may be used, and a breaker that makes an outage cheap."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from diptych.config.urls import check_redis_url, mask
from diptych.errors import ConfigurationError, MissingExtraError, RedisRefusedError, RedisUnavailableError
from diptych.redis.identity import RedisIdentity

try:
    import redis.asyncio as redis_asyncio
    from redis import exceptions as redis_errors
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    from diptych.redis.channel import Channel, ChannelLostError, Connection, Pool
    from diptych.redis.refusals import RefusedServerError, fault_of_kind, said_by, try_out
except ImportError as missing:  # pragma: no cover - tried in an environment without the extra
    raise MissingExtraError("REDIS_URL", "redis", missing.name or "redis") from missing

_log = logging.getLogger("diptych.redis")

_FAILURES_TO_OPEN = 3


class Link:
    """A connection lent to one task, for everything but queries.

    ``server`` is whom it led to when it was opened, or looked at again.
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def server(self) -> RedisIdentity:
        return self._channel.server

    async def look_again(self) -> None:
        """Reads ``server`` anew. Raises ``RedisUnavailableError`` (within ``asking``) if it may not be used."""
        await _look_again(self._channel)

    def call(self, *words: Any) -> asyncio.Future[Any]:
        """Sends one command, at once. Awaited, it is the reply."""
        return self._channel.call(*words, at_once=True)


class RedisService:
    """Redis 7.0 or later, or Valkey, at ``url``: ``redis://``, ``rediss://`` or ``unix://``, with user and password.

    ``critical`` says what its absence means: the start fails and queries answer 503, or SQL answers them.
    ``namespace`` is put before every key. Queries share one connection, ``queries``, on which Redis may be silent for
    ``query_timeout_ms`` while they wait; anything else waits at most ``command_timeout_ms``. Raises
    ``ConfigurationError`` for a malformed URL.
    """

    def __init__(
        self,
        url: str,
        *,
        critical: bool = False,
        namespace: str = "diptych",
        query_timeout_ms: int = 50,
        command_timeout_ms: int = 2000,
    ) -> None:
        try:
            check_redis_url(url)
        except ValueError as error:
            raise ConfigurationError("REDIS_URL", str(error)) from None
        self.address = mask(url)
        self.critical = critical
        self.namespace = namespace
        self.problem: str | None = "not connected yet"
        self.refused = False
        self.since = datetime.datetime.now(datetime.UTC)
        self.on_away: list[Callable[[], None]] = []
        self._failures = 0
        self._told: str | None = None
        self.queries = Connection(
            partial(_opened_by, self._client(url, query_timeout_ms / 1000)),
            query_timeout_ms / 1000,
            self._lost,
        )
        client = self._client(url, command_timeout_ms / 1000)
        self._commands = Pool(partial(_opened_by, client), command_timeout_ms / 1000)

    @property
    def available(self) -> bool:
        """Whether the breaker is closed: what asks Redis now will likely be answered."""
        return self.problem is None

    async def start(self) -> None:
        """Tries to reach Redis once. If it is critical, raises ``RedisUnavailableError`` or ``RedisRefusedError``."""
        if not await self.probe() and self.critical:
            raise self._unavailable()

    async def close(self) -> None:
        """Closes every connection. Safe to call twice, and before ``start``."""
        self.problem = "closed"
        await self.queries.close()
        await self._commands.close()

    async def probe(self) -> bool:
        """Asks Redis whether it is there, and does what it will be asked to; closes the breaker if so.

        Returns whether it is closed.
        """
        with contextlib.suppress(RedisUnavailableError):
            # Fresh connections: the ones from before the outage may lead to a server that is no more.
            if not self.available:
                self.queries.drop()
            self._commands.drop_idle()
            async with self.commanding() as link:
                await link.call("PING")
                await try_out(link, self.namespace)
            if not self.available:
                self.since = datetime.datetime.now(datetime.UTC)
            self.problem, self.refused = None, False
        return self.available

    def is_well(self) -> None:
        """It serves a read model: what was wrong is over, and is told again if it comes back."""
        if self._told is not None and self.available:
            self._told = None
            _log.info("Redis at %s answers", self.address)

    @property
    def fails(self) -> bool:
        """Whether the last query was not answered."""
        return self._failures > 0

    async def check_server(self) -> None:
        """Looks at the server once more. Raises ``RedisUnavailableError`` if it may not be used any more."""
        async with self.commanding() as link:
            await link.look_again()

    @property
    def channel(self) -> Channel | None:
        """The connection for queries, if it is open and Redis may be used."""
        return self.queries.channel if self.problem is None else None

    def answered(self) -> None:
        """A query was answered: failures count only in a row."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """A query was not. Raises the error itself if Redis has nothing to do with it."""
        if not isinstance(error, redis_errors.RedisError | OSError | TimeoutError):
            raise error
        if not isinstance(error, ChannelLostError):  # of which `_lost` has heard, once for all that waited
            self._failed(error, patient=False)

    def _lost(self, error: Exception) -> None:
        self._failed(error, patient=False)

    async def look_again(self, channel: Channel) -> None:
        """Reads anew whom the channel leads to."""
        try:
            await _look_again(channel)
        except RefusedServerError as refused:
            raise ChannelLostError(str(refused)) from refused

    @contextlib.asynccontextmanager
    async def commanding(self) -> AsyncIterator[Link]:
        """A connection for everything else. Inside it errors of Redis are ``RedisUnavailableError``."""
        async with self._asking():
            channel = await self._commands.take()
            try:
                yield Link(channel)
            finally:
                self._commands.give_back(channel)

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            yield
        except (redis_errors.RedisError, OSError, TimeoutError) as error:
            self._failed(error, patient=True)
            raise self._unavailable(error) from error
        else:
            self._failures = 0

    def check_available(self) -> None:
        """Raises ``RedisUnavailableError`` if the breaker is open."""
        if self.problem is not None:
            raise self._unavailable()

    def _failed(self, error: Exception, *, patient: bool) -> None:
        # A command waits long for an answer: if none comes, the next ones had better not wait as long.
        self._failures += _FAILURES_TO_OPEN if patient and _is_timeout(error) else 1
        said = said_by(error)
        self.refused = said is not None and not said.is_passing
        broken = said is not None or isinstance(error, redis_errors.ConnectionError | OSError)
        if (
            (broken and not _is_timeout(error))
            or self._failures >= _FAILURES_TO_OPEN
            or self.problem is not None
        ):
            was_available = self.problem is None
            self.problem = said.text if said is not None else str(error) or type(error).__name__
            if was_available:
                self.since = datetime.datetime.now(datetime.UTC)
                for callback in self.on_away:
                    callback()
            # An outage has other words with each attempt, and is one all the same.
            told = "away" if said is None else said.text
            if told != self._told:
                self._told = told
                outcome = "queries fail" if self.critical else "SQL answers"
                _log.warning("Redis at %s can't be used, %s: %s", self.address, outcome, self.problem)

    def _unavailable(self, error: Exception | None = None) -> RedisUnavailableError:
        kind = RedisRefusedError if self.refused else RedisUnavailableError
        said = said_by(error) if error is not None else None
        problem = self.problem or (
            said.text if said else str(error) if error else "it did not answer in time"
        )
        return kind(f"Redis at {self.address} can't be used: {problem}")

    def _client(self, url: str, timeout_s: float) -> redis_asyncio.Redis:
        return redis_asyncio.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=max(timeout_s, 0.2),
            # Neither retries nor redirects: a repeated script might reach a server that is not the one it was for.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            redis_connect_func=self._greet,
        )

    async def _greet(self, connection: Any) -> None:
        """Shakes hands on a new connection and looks at whom it leads to."""
        try:
            await connection.on_connect()
            await connection.send_command("INFO")
            connection.diptych_server = _server_of(await connection.read_response())
        except BaseException:
            # Left half-way (by a cancelled task, say) the connection would give this reply to the next request.
            await connection.disconnect(nowait=True)
            raise


async def _opened_by(client: redis_asyncio.Redis) -> Any:
    connection: Any = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()
    return connection


async def _look_again(channel: Channel) -> None:
    try:
        channel.server = _server_of(await channel.call("INFO"))
    except RefusedServerError as refused:
        channel.close(refused)
        raise


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError | redis_errors.TimeoutError)


def _server_of(reply: Any) -> RedisIdentity:
    """Whose ``INFO`` this is. Raises ``RefusedServerError`` if it must not be used."""
    info = _parsed(reply)
    if fault := _fault_of(info):
        raise RefusedServerError(fault)
    return RedisIdentity(info.get("run_id", ""), info.get("master_replid", ""))


def _parsed(reply: Any) -> dict[str, str]:
    text = reply if isinstance(reply, str) else bytes(reply).decode("utf-8", "replace")
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def _fault_of(info: dict[str, str]) -> str | None:
    """Why this server must not be used; None if it may."""
    if fault := fault_of_kind(info):
        return fault
    version = info.get("redis_version", "0")
    numbers = [int(n) for n in re.findall(r"\d+", version)[:1]]
    if not numbers or numbers[0] < 7:
        return f"it is Redis {version}: use Redis 7.0 or later, or Valkey"
    if info.get("role") != "master":
        return "it is a replica: REDIS_URL must lead to the master"
    policy = info.get("maxmemory_policy", "")
    if policy != "noeviction" and not policy.startswith("volatile-"):
        return (
            f"its maxmemory-policy is {policy}, which drops keys that have no expiry: "
            "set maxmemory-policy to noeviction or volatile-lru"
        )
    return None
