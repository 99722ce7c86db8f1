"""``RedisService``: the connections to Redis, and a breaker for cheap outages."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from diptych.config.urls import check_redis_url, mask
from diptych.errors import ConfigurationError, MissingExtraError, RedisRefusedError, RedisUnavailableError
from diptych.redis import WrongContentsError

try:
    import redis.asyncio as redis_asyncio
    from redis import exceptions as redis_errors
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    from diptych.redis.channel import Channel, ChannelLostError, OnLost
    from diptych.redis.connections import Connection, Opener, Pool
    from diptych.redis.server import RefusedServerError, identity_in, is_of_contents, said_by, try_out
except ImportError as missing:  # pragma: no cover - tried in an environment without the extra
    raise MissingExtraError("REDIS_URL", "redis", missing.name or "redis") from missing

__all__ = ["Channel", "RedisService"]

_log = logging.getLogger("diptych.redis")

_FAILURES_TO_OPEN = 3
"""Number of requests in a row without an answer that open the breaker."""


_WRONG = "a key in Redis holds a value of another type: somebody else has written to the keys of diptych"


class RedisService:
    """Redis 7.0 or later, or Valkey, at ``url``: ``redis://``, ``rediss://`` or ``unix://``, with user and password.

    ``Diptych`` makes the service from the settings, and handlers may take it as a parameter. Without Redis the start
    fails and queries raise ``RedisUnavailableError`` if it is ``critical``, else SQL answers queries. ``namespace``
    is put before every key. Queries share one connection, ``queries``, on which Redis may be silent for
    ``query_timeout_ms`` while they wait; anything else waits at most ``command_timeout_ms``. Raises
    ``ConfigurationError`` for a malformed URL.

    >>> import asyncio
    >>> from diptych import RedisService
    >>> async def main() -> None:
    ...     redis = RedisService("redis://app:secret@localhost:1/0")
    ...     await redis.start()  # raises nothing although no server is there: SQL can answer
    ...     print(redis.address, redis.available)
    ...     await redis.close()
    >>> asyncio.run(main())
    redis://app:***@localhost:1/0 False
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
            self._opener(url, query_timeout_ms / 1000), partial(self._failed, patient=False)
        )
        self._commands = Pool(self._opener(url, command_timeout_ms / 1000))

    @property
    def available(self) -> bool:
        """True while the breaker is closed: Redis will likely answer."""
        return self.problem is None

    async def start(self) -> None:
        """Tries to reach Redis once. If critical, raises ``RedisUnavailableError`` or ``RedisRefusedError``."""
        if not await self.probe() and self.critical:
            raise self._unavailable()

    async def close(self) -> None:
        """Closes every connection. Safe to call twice, and before ``start``."""
        self.problem = "closed"
        await self.queries.close()
        await self._commands.close()

    async def probe(self) -> bool:
        """Tries out every command in use, and closes the breaker if Redis does all.

        Returns ``available``.
        """
        with contextlib.suppress(RedisUnavailableError):
            # Fresh connections: those from before the outage may lead to a server that is no more.
            if not self.available:
                self.queries.drop()
            self._commands.drop_idle()
            async with self.commanding() as channel:
                await channel.call("PING")
                await try_out(channel, self.namespace)
            if not self.available:
                self.since = datetime.datetime.now(datetime.UTC)
            self.problem, self.refused = None, False
        return self.available

    def is_well(self) -> None:
        """Logs the end of an outage, since Redis serves a read model again; the next outage is logged anew."""
        if self._told is not None and self.available:
            self._told = None
            _log.info("Redis at %s answers", self.address)

    @property
    def fails(self) -> bool:
        """True if Redis left the last request without an answer."""
        return self._failures > 0

    async def check_server(self) -> None:
        """Reads the server's ``INFO`` once more. Raises ``RedisUnavailableError`` for a server unfit by now."""
        async with self.commanding() as channel:
            await channel.identify()

    @property
    def channel(self) -> Channel | None:
        """The connection for queries while open and with a closed breaker, else None."""
        return self.queries.channel if self.problem is None else None

    def answered(self) -> None:
        """Takes note of an answered query: failures count only in a row."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Takes note of a query without an answer.

        Raises the error itself unless Redis caused the error, ``WrongContentsError`` if what is stored did.
        """
        if not isinstance(error, redis_errors.RedisError | OSError | TimeoutError):
            raise error
        if is_of_contents(error):
            raise WrongContentsError(_WRONG) from error
        if not isinstance(
            error, ChannelLostError | RefusedServerError
        ):  # noted already, once for all requests
            self._failed(error, patient=False)

    @contextlib.asynccontextmanager
    async def commanding(self) -> AsyncIterator[Channel]:
        """Lends a connection for everything but queries. Inside, errors of Redis become ``RedisUnavailableError``.

        ``WrongContentsError`` if what is stored caused the error: Redis itself is well.
        """
        try:
            channel = await self._commands.take()
            try:
                yield channel
            finally:
                self._commands.give_back(channel)
        except (redis_errors.RedisError, OSError, TimeoutError) as error:
            if is_of_contents(error):
                raise WrongContentsError(_WRONG) from error
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
        is_timeout = isinstance(error, TimeoutError | redis_errors.TimeoutError)
        self._failures += _FAILURES_TO_OPEN if patient and is_timeout else 1
        said, is_passing = said_by(error)
        self.refused = said is not None and not is_passing
        is_broken = said is not None or isinstance(error, redis_errors.ConnectionError | OSError)
        if (is_broken and not is_timeout) or self._failures >= _FAILURES_TO_OPEN or self.problem is not None:
            was_available = self.available
            self.problem = said or str(error) or type(error).__name__
            if was_available:
                self.since = datetime.datetime.now(datetime.UTC)
                for callback in self.on_away:
                    callback()
            # An outage has another text with each attempt, and is logged once all the same.
            self._tell(said or "away")

    def _tell(self, what: str) -> None:
        """Logs the problem, unless the last line of the log was about the same."""
        if what != self._told:
            self._told = what
            outcome = "queries fail" if self.critical else "SQL answers"
            _log.warning("Redis at %s can't be used, %s: %s", self.address, outcome, self.problem)

    def _unavailable(self, error: Exception | None = None) -> RedisUnavailableError:
        kind = RedisRefusedError if self.refused else RedisUnavailableError
        said = said_by(error)[0] if error is not None else None
        problem = self.problem or said or (str(error) if error else "it did not answer in time")
        return kind(f"Redis at {self.address} can't be used: {problem}")

    def _opener(self, url: str, timeout_s: float) -> Opener:
        client = redis_asyncio.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=max(timeout_s, 0.2),
            # Neither retries nor redirects: a repeated script might reach a server that is not the one it was for.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            redis_connect_func=self._greet,
        )

        async def open_one(on_lost: OnLost) -> Channel:
            connection: Any = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            await connection.connect()
            return Channel(connection, timeout_s, on_lost)

        return open_one

    async def _greet(self, connection: Any) -> None:
        """Shakes hands on a new connection and reads the server's identity."""
        try:
            await connection.on_connect()
            await connection.send_command("INFO")
            connection.diptych_server = identity_in(await connection.read_response())
        except BaseException:
            # Left half-way (by a cancelled task, say) the connection would give this reply to the next request.
            await connection.disconnect(nowait=True)
            raise
