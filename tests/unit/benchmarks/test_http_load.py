"""The load of the benchmarks: what it counts, and what it notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.http_job import Exchange, Job, Numbered, Repeated
from benchmarks.http_load import Load, content_length

Answer = Callable[[bytes], bytes]


@asynccontextmanager
async def serving(answer: Answer, stall_s: float = 0) -> AsyncIterator[int]:
    """A server that gives `answer` to the head of each request, in two pieces; yields its port.

    The first answer of each connection comes after `stall_s`.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pause_s = stall_s
        while request := await next_head(reader):
            await asyncio.sleep(pause_s)
            pause_s = 0
            whole = answer(request)
            writer.write(whole[:30])
            await asyncio.sleep(0)
            writer.write(whole[30:])

    async with listening(serve) as port:
        yield port


@asynccontextmanager
async def listening(serve: Callable[..., Coroutine[Any, Any, None]]) -> AsyncIterator[int]:
    """Yields the port at which `serve` is called for each connection, which is closed when it returns."""
    served: list[asyncio.Future[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.get_running_loop().create_future()
        served.append(done)
        await serve(reader, writer)
        writer.close()
        done.set_result(None)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*served)


async def next_head(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, empty when there are no more."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def echoing(request: bytes) -> bytes:
    path = request.split(b" ")[1]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nx-store: redis\r\n\r\n%b" % (len(path), path)


def exchange(path: bytes) -> Exchange:
    return Exchange(b"GET " + path + b" HTTP/1.1\r\n\r\n", path)


BOTH = Repeated([exchange(b"/a"), exchange(b"/b")])


def job(port: int, exchanges: Numbered | Repeated = BOTH, **options: object) -> Job:
    return Job(port, 2, 0.05, exchanges, warm_up_s=0.01, **options)  # type: ignore[arg-type]


async def test_every_answer_of_a_closed_loop_is_counted_and_right():
    async with serving(echoing) as port:
        outcome = await Load(job(port, head=b"x-store: redis")).run()
    assert outcome.errors == []
    assert 0 < outcome.answers <= outcome.sent
    assert 0 < outcome.median_ms <= outcome.p99_ms <= outcome.longest_ms


async def test_an_open_loop_asks_as_often_as_it_is_told():
    async with serving(echoing) as port:
        outcome = await Load(job(port, rate=400.0)).run()
    assert outcome.errors == []
    assert outcome.answers == pytest.approx(400 * 0.05, abs=1)


async def test_what_is_due_while_a_server_stalls_is_asked_and_counted_afterwards():
    async with serving(echoing, stall_s=0.04) as port:
        outcome = await Load(job(port, rate=400.0)).run()
    assert outcome.errors == []
    assert outcome.answers == pytest.approx(400 * 0.05, abs=1)


async def test_answers_that_come_between_the_loops_waking_and_the_end_are_the_last_ones():
    async with serving(echoing, stall_s=0.02) as port:
        load = Load(Job(port, 2, 60.0, BOTH, warm_up_s=0.01, rate=100.0))

        async def wake_early() -> float:
            await asyncio.sleep(0.025)  # the first request is on its way; it is answered long before the end
            return 0.0

        load._cpu_while_measured = wake_early  # type: ignore[method-assign]
        outcome = await asyncio.wait_for(load.run(), 10)
    assert outcome.errors == []
    assert outcome.sent > 0


async def test_a_number_is_sent_once():
    asked = []

    def noting(request: bytes) -> bytes:
        asked.append(request.split(b" ")[1])
        return echoing(request)

    async with serving(noting) as port:
        outcome = await Load(job(port, Numbered(exchange(b"/new-%09d"), first=7))).run()
    assert outcome.errors == []
    assert sorted(asked) == [b"/new-%09d" % number for number in range(7, 7 + outcome.sent)]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda answer: answer.replace(b"200 OK", b"500 No"), "500 No"),
        (lambda answer: answer.replace(b"redis", b"other"), "other"),
        (lambda answer: answer.replace(b"\r\n/", b"\r\n?"), "is not in"),
    ],
)
async def test_a_wrong_answer_is_told(spoil: Answer, told: str):
    async with serving(lambda request: spoil(echoing(request))) as port:
        outcome = await Load(job(port, head=b"x-store: redis")).run()
    assert outcome.error_count >= outcome.answers > 0
    assert told in outcome.errors[0]


async def test_a_connection_that_is_closed_instead_of_an_answer_is_told():
    async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await next_head(reader)

    async with listening(hang_up) as port:
        outcome = await Load(job(port)).run()
    assert outcome.error_count == 2  # one for each connection
    assert "closed instead of an answer" in outcome.errors[0]


async def test_a_connection_that_is_closed_while_nothing_is_asked_is_done_without():
    connections = 0

    async def close_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        closes = connections == 1
        while request := await next_head(reader):
            writer.write(echoing(request))
            if closes:
                break

    async with listening(close_the_first) as port:
        outcome = await Load(Job(port, 4, 0.3, BOTH, rate=40.0)).run()
    assert outcome.errors == []
    assert outcome.answers == pytest.approx(40 * 0.3, abs=1)


@pytest.mark.parametrize(
    "head", [b"content-length: 12\r\nx: y", b"Content-Length:12", b"a: b\r\nCONTENT-LENGTH: 12"]
)
def test_the_length_of_a_body_is_found_however_it_is_written(head: bytes):
    head = b"HTTP/1.1 200 OK\r\n" + head
    assert content_length(head + b"\r\n\r\ncontent-length: 99\r\n", len(head)) == 12


def test_the_order_of_requests_is_that_of_the_seed():
    many = Repeated([exchange(b"/%d" % number) for number in range(50)])

    def first(seed: int) -> list[Exchange]:
        return [asked for asked, _ in zip(many.exchanges(seed), range(100), strict=False)]

    assert first(1) == first(1) != first(2)
    assert set(first(1)) == set(many.choices)
