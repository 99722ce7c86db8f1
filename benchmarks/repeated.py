"""Performs something again and again, and tells how long it took: one after the other, or many at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks.runner import Sample

Perform = Callable[[int], Awaitable[object]]
"""What is performed, for the client of this number; one after the other, it is that of the call."""


async def one_at_a_time(perform: Perform, calls: int) -> Sample:
    """The latency of so many calls."""
    latencies = []
    for number in range(calls):
        begin = time.perf_counter()
        await perform(number)
        latencies.append((time.perf_counter() - begin) * 1000)
    return {"median, ms": statistics.median(latencies), "mean, ms": statistics.fmean(latencies)}


async def many_at_once(perform: Perform, clients: int, duration_s: float) -> Sample:
    """Throughput and latency of so many clients, each of which calls without a pause."""
    latencies: list[float] = []

    async def client(number: int, deadline: float) -> None:
        while (begin := time.perf_counter()) < deadline:
            await perform(number)
            latencies.append((time.perf_counter() - begin) * 1000)

    begin, begin_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client(number, begin + duration_s) for number in range(clients)))
    elapsed, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    return {
        "commands/s": len(latencies) / elapsed,
        "median, ms": statistics.median(latencies),
        "client CPU, µs/command": cpu / len(latencies) * 1e6,
    }
