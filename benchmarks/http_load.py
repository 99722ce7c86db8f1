"""Loads an HTTP server from one process and checks every answer: ``python -m benchmarks.http_load``.

It reads a ``Job`` from standard input and writes an ``Outcome`` to standard output, both in MessagePack;
``benchmarks.driver`` starts it. It imports little, parses no more of an answer than it has to, and is meant to be
faster than what it measures: ``Outcome.cpu`` says how much of its core it needed.

In a closed loop every connection sends its next request when it has the answer to the last one. In an open loop
requests are due at a fixed rate, whether or not earlier ones are answered, and their latency is counted from when
they were due: a server that stalls is charged for all who would have come meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from collections import deque
from typing import cast

import msgspec

from benchmarks.http_job import Exchange, Job, Outcome
from benchmarks.ticker import Ticker

_HOST = "127.0.0.1"
_PATIENCE_S = 30.0
_TOLD_ERRORS = 5


class Load:
    """One run of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._exchanges = job.exchanges.exchanges(job.seed)
        self._latencies = array("d")
        self._lateness = array("d")
        self._errors: list[str] = []
        self._error_count = 0
        self._sent = 0
        self._connections: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._busy = 0
        self._is_over = False
        self._begin = self._end = 0.0
        self._done = asyncio.Event()
        self._take = self._take_closed if job.rate is None else self._take_open

    async def run(self) -> Outcome:
        """From the first connection to the last answer."""
        loop = asyncio.get_running_loop()
        for _ in range(self.job.connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), _HOST, self.job.port)
            self._connections.append(connection)
        self._begin = time.perf_counter() + self.job.warm_up_s
        self._end = self._begin + self.job.seconds
        if self.job.rate is None:
            for connection in self._connections:
                self._send(connection, time.perf_counter())
            cpu = await self._cpu_while_measured()
        else:
            self._idle.extend(self._connections)
            with Ticker(self.job.rate, self._tick):
                cpu = await self._cpu_while_measured()
        await self._last_answers()
        return self._outcome(cpu)

    def answered(self, connection: _Connection, data: bytes, head_end: int) -> None:
        """Takes the answer to the request of ``connection``, which is free for another one."""
        now = time.perf_counter()
        self._busy -= 1
        if data[9:12] != self.job.status or data.find(self.job.head, 0, head_end) < 0:
            self.failed(f"not as it was to be: {data[:head_end]!r}")
        elif data.find(connection.wanted, head_end) < 0:
            self.failed(f"{connection.wanted!r} is not in {data[head_end : head_end + 300]!r}")
        self._take(connection, now)

    def lost(self, connection: _Connection, error: Exception | None) -> None:
        """A connection was closed by the server, which it may do while nothing is asked on it."""
        if self._done.is_set():
            return
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self.failed(f"a connection was closed instead of an answer: {error}")
            self._busy -= 1
            self._finish_if_idle()

    def failed(self, error: str) -> None:
        """Counts an error, and keeps the words of the first ones."""
        self._error_count += 1
        if len(self._errors) < _TOLD_ERRORS:
            self._errors.append(error)

    def _send(self, connection: _Connection, due: float) -> None:
        exchange = next(self._exchanges)
        self._busy += 1
        self._sent += 1
        connection.send(exchange, due)

    def _take_closed(self, connection: _Connection, now: float) -> None:
        if self._begin <= now <= self._end:
            self._latencies.append(now - connection.due)
        if now < self._end:
            self._send(connection, now)
        else:
            self._finish_if_idle()

    def _take_open(self, connection: _Connection, now: float) -> None:
        if self._begin <= connection.due <= self._end:
            self._latencies.append(now - connection.due)
        if self._due:
            self._send(connection, self._due.popleft())
        else:
            self._idle.append(connection)
            self._finish_if_idle()

    def _tick(self, due: float) -> None:
        if due > self._end:
            return
        if self._idle:
            self._lateness.append(time.perf_counter() - due)
            self._send(self._idle.popleft(), due)
        else:
            self._due.append(due)

    def _finish_if_idle(self) -> None:
        if self._is_over and self._busy == 0:
            self._done.set()

    async def _cpu_while_measured(self) -> float:
        await asyncio.sleep(self._begin - time.perf_counter())
        before = time.process_time()
        await asyncio.sleep(self._end - time.perf_counter())
        return time.process_time() - before

    async def _last_answers(self) -> None:
        # Not by the clock: the loop wakes up a little before its time, and the last answer may come before it, too.
        self._is_over = True
        self._finish_if_idle()
        try:
            await asyncio.wait_for(self._done.wait(), _PATIENCE_S)
        except TimeoutError:
            self.failed(f"{self._busy} requests were not answered within {_PATIENCE_S:.0f} s")
        self._done.set()
        for connection in self._connections:
            connection.close()

    def _outcome(self, cpu: float) -> Outcome:
        ordered = sorted(self._latencies)
        return Outcome(
            answers=len(ordered),
            seconds=self.job.seconds,
            cpu=cpu / self.job.seconds,
            median_ms=_share(ordered, 0.5),
            p99_ms=_share(ordered, 0.99),
            longest_ms=_share(ordered, 1.0),
            late_ms=_share(sorted(self._lateness), 0.99),
            sent=self._sent,
            error_count=self._error_count,
            errors=self._errors,
        )


class _Connection(asyncio.Protocol):
    """One request at a time. ``wanted`` is what the body of the answer has to hold."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self.wanted = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, exchange: Exchange, due: float) -> None:
        """Sends a request that is due since then."""
        self.due = due
        self.wanted = exchange.body
        self._transport.write(exchange.request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + content_length(data, head_end):
            self._received = data
            return
        self._received = b""
        self._load.answered(self, data, head_end)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self, error)

    def close(self) -> None:
        self._transport.close()


def content_length(data: bytes, head_end: int) -> int:
    """How long the body is that follows the head. Raises ValueError if the head does not say it."""
    at = data.find(b"content-length:", 0, head_end)
    if at < 0:
        at = data[:head_end].lower().index(b"content-length:")
    # The head's last line has no line break within the head.
    line_end = data.find(b"\r\n", at, head_end)
    return int(data[at + 15 : line_end if line_end >= 0 else head_end])


def _share(ordered: list[float], part: float) -> float:
    """The latency in ms below which this part of the answers is."""
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def main() -> None:
    """Runs the job of standard input."""
    import uvloop

    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
    gc.disable()  # a pause of ours would be counted as the server's

    async def run() -> Outcome:
        return await Load(job).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run())
    sys.stdout.buffer.write(msgspec.msgpack.encode(outcome))


if __name__ == "__main__":
    main()
