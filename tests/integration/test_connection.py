"""The connections to Redis: whose reply is whose, whatever happens to the network, to Redis and to who asks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from hiredis import Reader
from redis import exceptions

from diptych import RedisService, RedisUnavailableError
from diptych.redis.channel import Channel, ChannelLostError, packed
from tests.catalogue import eventually
from tests.servers import HOST, RedisServer, free_port

CERTIFICATE = Path(__file__).with_name("localhost.pem")
MEGABYTE = 1_000_000

Answer = Callable[[list[bytes]], bytes | None]
"""What a server answers to a command; None ends the connection."""

HANDSHAKE = {
    b"INFO": b"redis_version:7.4.0\r\nrole:master\r\nrun_id:r1\r\nmaster_replid:p1\r\nmaxmemory_policy:noeviction",
}


def bulk(value: bytes) -> bytes:
    """A string in Redis's protocol."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


class Scripted(asyncio.Protocol):
    """One connection of a server that shakes hands as Redis does and answers what it is told to."""

    def __init__(self, answer: Answer, log: list[int]) -> None:
        self._answer = answer
        self._log = log
        self._reader = Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        count = 0
        while (command := self._reader.gets()) is not False:
            name = command[0].upper()
            if name in HANDSHAKE:
                self.transport.write(bulk(HANDSHAKE[name]))
            elif name in (b"CLIENT", b"SELECT", b"AUTH", b"SCRIPT"):
                self.transport.write(b"+OK\r\n")
            elif name in (b"EVALSHA", b"EVALSHA_RO"):  # a probe tries out what is needed
                self.transport.write(b"*0\r\n")
            else:
                count += 1
                answer = self._answer(command)
                if answer is None:
                    self.transport.close()
                else:
                    self.transport.write(answer)
        if count:
            self._log.append(count)


class Fake:
    """A server of Redis's protocol on a free port; ``arrivals`` says how many commands came together each time."""

    def __init__(self) -> None:
        self.answer: Answer = lambda command: bulk(command[-1])
        self.arrivals: list[int] = []
        self.connections: list[Scripted] = []
        self.url = ""

    def accept(self) -> Scripted:
        self.connections.append(Scripted(lambda command: self.answer(command), self.arrivals))
        return self.connections[-1]


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Fake]:
    fake = Fake()
    server = await asyncio.get_running_loop().create_server(fake.accept, HOST, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    fake.url = f"redis://{HOST}:{port}/0" if tls is None else f"rediss://localhost:{port}/0"
    try:
        yield fake
    finally:
        server.close()
        for connection in fake.connections:
            if hasattr(connection, "transport"):  # not without a handshake that succeeded
                connection.transport.abort()
        await asyncio.sleep(0)  # in which the sockets are closed


@contextlib.asynccontextmanager
async def connected(url: str, timeout_ms: int = 5000) -> AsyncIterator[RedisService]:
    service = RedisService(url, query_timeout_ms=timeout_ms)
    try:
        yield service
    finally:
        await service.close()


async def get(channel: Channel, key: str) -> Any:
    return await channel.call("GET", key)


async def test_requests_that_are_queued_go_out_together_and_a_call_at_once():
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()
        replies = [asyncio.get_running_loop().create_future() for _ in range(100)]
        for number, reply in enumerate(replies):
            channel.send(packed("GET", str(number)), reply)
        assert channel._unsent
        last = channel.call("GET", "last")
        assert not channel._unsent
        assert [*(await asyncio.gather(*replies)), await last][::50] == [b"0", b"50", b"last"]
        assert fake.arrivals == [101]
        channel.flush()  # there is nothing more


async def test_those_who_need_it_at_once_open_one_connection():
    async with serving() as fake, connected(fake.url) as service:
        channels = await asyncio.gather(*(service.queries.opened() for _ in range(50)))
        assert len(set(channels)) == len(fake.connections) == 1


async def test_who_is_cancelled_while_it_is_opened_does_not_take_it_from_the_others():
    async with serving() as fake, connected(fake.url) as service:
        first, second = (asyncio.create_task(service.queries.opened()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await get(await second, "a") == b"a"
        assert len(fake.connections) == 1


async def test_no_reply_ever_reaches_another_request(valkey: RedisServer):
    """Values of all sizes, requests cancelled at any moment, and a network that cuts and splits where it likes."""
    chance = random.Random(7)
    values = {f"key {n}": (f"value {n} " * chance.choice([1, 30, 3000])).encode() for n in range(200)}
    with redis.Redis.from_url(valkey.url) as client:
        client.mset(values)
    found = {"right": 0, "failed": 0, "cancelled": 0}

    async def ask(service: RedisService, key: str, patience_s: float | None) -> None:
        try:
            async with asyncio.timeout(patience_s):
                lease, value = await (await service.queries.opened()).call("MGET", "lease", key)
        except TimeoutError:
            found["cancelled"] += 1
        except exceptions.ConnectionError:
            found["failed"] += 1
        else:
            assert (lease, value) == (None, values[key])
            found["right"] += 1

    async with splitting(valkey.port, chance) as port, connected(f"redis://{HOST}:{port}/0") as service:
        for _ in range(150):
            keys = chance.choices(list(values), k=40)
            hurries = [chance.choice([None, None, chance.random() * 0.01]) for _ in keys]
            await asyncio.gather(*(ask(service, key, s) for key, s in zip(keys, hurries, strict=True)))
    assert found["right"] > 1000
    assert found["cancelled"] > 100
    assert found["failed"] > 10


@contextlib.asynccontextmanager
async def splitting(target: int, chance: random.Random) -> AsyncIterator[int]:
    """A proxy that hands on in pieces of random sizes, and now and then cuts in the midst of one."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(chance.choice([7, 1000, 100_000])):
                if chance.random() < 0.002:
                    writer.write(data[: len(data) // 2])
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    links: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        links.add(link)
        upstream = await asyncio.open_connection(HOST, target)
        await asyncio.gather(pump(reader, upstream[1]), pump(upstream[0], writer))
        links.discard(link)

    server = await asyncio.start_server(accept, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*links), 10)


async def test_a_reply_of_ten_megabytes_arrives_whole(redis_server: RedisServer):
    value = random.Random(1).randbytes(10 * MEGABYTE)
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("large", value)
        client.set("small", "x")
    async with connected(redis_server.url) as service:
        channel = await service.queries.opened()
        large, small = await asyncio.gather(get(channel, "large"), get(channel, "small"))
        assert large == value
        assert small == b"x"


async def test_an_error_that_redis_answers_concerns_one_request(redis_server: RedisServer):
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("text", "x")
    async with connected(redis_server.url) as service:
        channel = await service.queries.opened()
        results = await asyncio.gather(
            get(channel, "text"),
            channel.call("LPUSH", "text", "y"),
            channel.call("EVALSHA", "0" * 40, 0),
            get(channel, "text"),
            return_exceptions=True,
        )
        assert results[0] == results[3] == b"x"
        assert "WRONGTYPE" in str(results[1])
        assert isinstance(results[2], exceptions.NoScriptError)
        assert service.channel is None or service.channel is channel


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", exceptions.BusyLoadingError),
        (b"-READONLY You can't write against a read only replica.\r\n", exceptions.ReadOnlyError),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", exceptions.ResponseError),
    ],
)
async def test_a_server_that_cannot_answer_now_says_so_by_its_error(reply: bytes, error: type[Exception]):
    async with serving() as fake, connected(fake.url) as service:
        await service.start()
        channel = await service.queries.opened()
        fake.answer = lambda _: reply
        with pytest.raises(error) as caught:
            await get(channel, "a")
        service.failed(caught.value)
        assert not service.available  # at once: it is its own word
        fake.answer = lambda command: bulk(command[-1])
        assert await get(channel, "b") == b"b"


async def test_a_server_that_became_a_replica_is_refused_when_it_is_looked_at_again(redis_server_factory):
    server = redis_server_factory()
    async with connected(server.url) as service:
        await service.start()
        channel = await service.queries.opened()
        with redis.Redis.from_url(server.url) as client:
            client.replicaof(HOST, free_port())
        with pytest.raises(exceptions.ConnectionError, match="it is a replica"):
            await channel.identify()
        assert service.queries.channel is None


async def test_a_reply_that_breaks_off_reaches_nobody():
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()

        def break_off(command: list[bytes]) -> None:
            fake.connections[-1].transport.write(bulk(b"whole") + b"$100\r\nonly the begi")

        fake.answer = break_off
        whole, half, unsent = await asyncio.gather(
            *(get(channel, key) for key in "abc"), return_exceptions=True
        )
        assert whole == b"whole"
        assert isinstance(half, exceptions.ConnectionError)
        assert isinstance(unsent, exceptions.ConnectionError)
        fake.answer = lambda command: bulk(command[-1])
        again = await service.queries.opened()
        assert again is not channel
        assert await get(again, "d") == b"d"


@pytest.mark.parametrize("reply", [b"$1\r\nx\r\n$1\r\ny\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_nobody_asked_for_ends_the_connection(reply: bytes):
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()
        fake.answer = lambda _: reply
        with contextlib.suppress(exceptions.ConnectionError):
            await get(channel, "a")
        with pytest.raises(exceptions.ConnectionError):
            await get(channel, "b")
        assert service.queries.channel is None


async def test_silence_ends_the_wait_of_all():
    async with serving() as fake, connected(fake.url, timeout_ms=50) as service:
        channel = await service.queries.opened()
        fake.answer = lambda _: b""
        results = await asyncio.gather(*(get(channel, str(n)) for n in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [ChannelLostError] * 5
        assert service.queries.channel is None


async def test_a_reply_that_is_long_on_its_way_is_waited_for():
    """Redis is not silent: something of the reply comes each 20 ms."""
    async with serving() as fake, connected(fake.url, timeout_ms=200) as service:
        channel = await service.queries.opened()
        fake.answer = lambda _: b"$20\r\n"
        reply = asyncio.ensure_future(get(channel, "a"))
        for _ in range(20):
            await asyncio.sleep(0.02)
            fake.connections[-1].transport.write(b"x")
        fake.connections[-1].transport.write(b"\r\n")
        assert await reply == b"x" * 20


async def test_what_does_not_get_away_waits_and_may_be_cancelled():
    """A server that reads nothing for a while: what is buffered stays bounded, and then all are answered."""
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()
        fake.connections[-1].transport.pause_reading()
        key = "x" * 100_000
        asked = [asyncio.create_task(get(channel, f"{n} {key}")) for n in range(3000)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(channel._in_flight) <= 1024
        for task in asked[::2]:
            task.cancel()
        fake.connections[-1].transport.resume_reading()
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert replies[1::2] == [f"{n} {key}".encode() for n in range(1, 3000, 2)]
        assert all(isinstance(reply, asyncio.CancelledError) for reply in replies[::2])
        assert await get(channel, "after") == b"after"


async def test_closing_fails_those_who_wait_and_those_who_wait_to_wait():
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()
        fake.answer = lambda _: b""
        asked = [asyncio.create_task(get(channel, str(n))) for n in range(2000)]
        await asyncio.sleep(0.05)
        await service.close()
        await service.close()
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(reply) for reply in replies} == {ChannelLostError}


async def test_a_server_that_comes_back_is_connected_to_again(valkey: RedisServer):
    async with connected(valkey.url) as service:
        channel = await service.queries.opened()
        assert await get(channel, "a") is None
        valkey.kill()
        with pytest.raises(exceptions.ConnectionError):
            await get(channel, "a")
        with pytest.raises(ChannelLostError):
            await service.queries.opened()
        before = channel.server
        valkey.start()
        again = await service.queries.opened()
        assert await get(again, "a") is None
        assert again.server != before


async def test_user_password_and_database_of_the_url_are_heeded(redis_server_factory):
    server = redis_server_factory({"user": "app on >secret ~* +@all"})
    async with connected(f"redis://app:secret@{HOST}:{server.port}/3") as service:
        channel = await service.queries.opened()
        assert await channel.call("ACL", "WHOAMI") == b"app"
        await channel.call("SET", "a", "in 3")
    with redis.Redis(HOST, server.port, db=3) as client:
        assert client.get("a") == b"in 3"
    async with connected(f"redis://app:wrong@{HOST}:{server.port}/3") as service:
        with pytest.raises(ChannelLostError, match="password"):
            await service.queries.opened()


async def test_a_connection_may_be_encrypted():
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    async with serving(tls) as fake:
        async with connected(f"{fake.url}?ssl_ca_certs={CERTIFICATE}") as service:
            channel = await service.queries.opened()
            replies = await asyncio.gather(*(get(channel, f"{n}" * 1000) for n in range(100)))
            assert replies == [(f"{n}" * 1000).encode() for n in range(100)]
        async with connected(fake.url) as service:
            with pytest.raises(exceptions.ConnectionError, match="certificate"):
                await service.queries.opened()


async def test_one_silence_is_one_failure_however_many_wait():
    async with serving() as fake, connected(fake.url, timeout_ms=50) as service:
        await service.start()
        for number in (1, 2, 3):
            channel = await service.queries.opened()
            fake.answer = lambda _: b""
            results = await asyncio.gather(*(get(channel, "a") for _ in range(20)), return_exceptions=True)
            for result in results:
                assert isinstance(result, ChannelLostError)
                service.failed(result)
            assert service.available == (number < 3)


async def test_a_silence_is_noticed_also_if_nobody_has_the_patience_to_wait_for_its_end():
    async with serving() as fake, connected(fake.url, timeout_ms=50) as service:
        await service.start()
        channel = await service.queries.opened()
        fake.answer = lambda _: b""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(get(channel, "a"), 0.01)
        await asyncio.sleep(0.1)
        assert service.queries.channel is None


async def test_a_reply_that_cannot_be_the_one_that_was_asked_for_ends_the_connection():
    """One reply too many: all that follow would be one behind."""
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()
        pair = b"*2\r\n$-1\r\n$1\r\nx\r\n"
        replies = iter([pair, b"+OK\r\n" + pair, pair])
        fake.answer = lambda _: next(replies)
        asked = [asyncio.get_running_loop().create_future() for _ in range(3)]
        for future in asked:
            channel.send(packed("MGET", "lease", "a"), future, length=2)
        channel.flush()
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert first == [None, b"x"]
        assert [type(other) for other in others] == [ChannelLostError] * 2
        assert service.queries.channel is None


async def test_who_waits_for_an_opening_is_not_cancelled_when_it_is_given_up():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, HOST, 0)  # it says nothing
    async with server:
        service = RedisService(
            f"redis://{HOST}:{server.sockets[0].getsockname()[1]}/0", query_timeout_ms=5000
        )
        waiting = asyncio.create_task(service.queries.opened())
        await asyncio.sleep(0.05)
        await service.close()
        with pytest.raises(ChannelLostError):
            await waiting
        with pytest.raises(ChannelLostError):
            await service.queries.opened()
        await asyncio.sleep(0.05)  # in which the server hears that it was closed


async def test_requests_that_wait_are_answered_in_their_order():
    async with serving() as fake, connected(fake.url) as service:
        channel = await service.queries.opened()
        order: list[int] = []

        async def ask(number: int) -> None:
            assert await get(channel, str(number)) == str(number).encode()
            order.append(number)

        await asyncio.gather(*(ask(number) for number in range(20_000)))
        assert order == list(range(20_000))


# Connections that are lent


async def test_a_connection_is_lent_to_one_task_and_used_again():
    async with serving() as fake, connected(fake.url) as service:
        async with service.commanding() as one:
            async with service.commanding() as two:
                assert one is not two
            async with service.commanding() as again:
                assert again is two
            assert await one.call("GET", "a") == b"a"
        async with service.commanding() as again:
            assert again is one


async def test_a_connection_that_still_owes_a_reply_is_not_lent_again():
    """The next one would wait for that reply, perhaps for a long script."""
    async with serving() as fake, connected(fake.url) as service:
        await service.start()
        async with service.commanding() as link:
            first = link
        answer, fake.answer = fake.answer, lambda _: b""

        async def left_half_way() -> None:
            async with service.commanding() as link:
                assert link is first
                await link.call("GET", "a")

        task = asyncio.create_task(left_half_way())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not first.is_open
        fake.answer = answer
        async with service.commanding() as link:
            assert await link.call("GET", "b") == b"b"
        assert service.available


async def test_an_idle_connection_that_the_server_has_ended_is_not_lent(valkey: RedisServer):
    async with connected(valkey.url) as service:
        await service.start()
        async with service.commanding() as link:
            ended = link
        with redis.Redis.from_url(valkey.url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def is_noticed() -> bool:
            return not ended.is_open

        await eventually(is_noticed, "the connection was ended")
        async with service.commanding() as link:
            assert await link.call("PING") in (b"PONG", "PONG")
        assert service.available


async def test_an_opening_whose_caller_has_gone_serves_the_next():
    async with serving() as fake, connected(fake.url) as service:
        task = asyncio.create_task(_greeted(service))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def is_there() -> bool:
            return bool(service._commands._idle)

        await eventually(is_there, "the connection was opened")
        (opened,) = service._commands._idle
        async with service.commanding() as link:
            assert link is opened


async def test_nothing_is_lent_and_nothing_left_open_once_it_is_closed():
    async with serving() as fake, connected(fake.url) as service:
        async with service.commanding() as link:
            channel = link
            await service.close()
            assert not channel.is_open
        with pytest.raises(RedisUnavailableError):
            await _greeted(service)
        await service.close()


async def test_who_waits_for_a_connection_hears_that_it_was_closed_and_is_not_cancelled():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, HOST, 0)  # it says nothing
    async with server:
        service = RedisService(f"redis://{HOST}:{server.sockets[0].getsockname()[1]}/0")
        waiting = asyncio.create_task(_greeted(service))
        await asyncio.sleep(0.05)
        await service.close()
        with pytest.raises(RedisUnavailableError):
            await waiting
        await asyncio.sleep(0.05)  # in which the server hears that it was closed


async def _greeted(service: RedisService) -> None:
    async with service.commanding() as link:
        await link.call("PING")
