"""Starts the load on its core, once a measurement, and makes a sample of what came of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil

from benchmarks.books import PAGE_SIZE, title
from benchmarks.cores import load_core, on_cores
from benchmarks.http_job import Exchange, Job, Outcome, Repeated
from benchmarks.runner import Candidate, Sample

ROOT = Path(__file__).parents[1]
ASKED = 5000
"""Of how many books one after the other is asked, in random order, each time round."""
SERVER_CPU = "the server's CPU, µs a request"


async def drive(job: Job, cores: set[int] | None = None) -> Outcome:
    """Runs a job in a process of its own, on the load's core or those that are given."""
    with on_cores(load_core() if cores is None else cores):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.http_load"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
    output, _ = await process.communicate(msgspec.msgpack.encode(job))
    assert process.returncode == 0, "the load has failed"
    outcome = msgspec.msgpack.decode(output, type=Outcome)
    for error in outcome.errors:
        print(f"! {error}", flush=True)
    return outcome


def loaded(job: Job, cores: set[int] | None = None) -> Candidate:
    """A candidate whose figures are those of this job."""

    async def measure() -> Sample:
        return sample_of(await drive(job, cores))

    return measure


def loaded_and_counted(job: Job, server: int) -> Candidate:
    """As ``loaded``, with the CPU time of the ``server``, a process with its children."""

    async def measure() -> Sample:
        return (await drive_and_count(job, server))[0]

    return measure


async def drive_and_count(job: Job, server: int) -> tuple[Sample, int]:
    """Runs a job; returns its figures with the CPU time of the ``server``, and the number of requests sent."""
    before = _cpu_s(server)
    outcome = await drive(job)
    # The load's warm-up is in the time and in the number of requests.
    counted = {SERVER_CPU: 1e6 * (_cpu_s(server) - before) / max(1, outcome.sent)}
    return sample_of(outcome) | counted, outcome.sent


def _cpu_s(server: int) -> float:
    process = psutil.Process(server)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def sample_of(outcome: Outcome) -> dict[str, float]:
    """The figures of a closed loop."""
    return {
        "requests/s": outcome.answers / outcome.seconds,
        "median, ms": outcome.median_ms,
        "99 % within, ms": outcome.p99_ms,
        "the load's CPU, % of its core": 100 * outcome.cpu,
        "errors, in all": outcome.error_count,
    }


def get_one(books: int, path: str = "/books/") -> Repeated:
    """GET of one book by its title: of as many as are asked for, spread over all there are."""
    step = max(1, books // ASKED)
    numbers = range(0, books, step)
    return Repeated([_get(f"{path}{quote(title(n), safe='')}", _title_in_json(n)) for n in numbers])


def get_page(after: str | None = None, last: int = PAGE_SIZE - 1) -> Repeated:
    """GET of a page, the first one without a cursor: the ``last`` book that belongs on it has to be there."""
    cursor = "" if after is None else f"&after={quote(after, safe='')}"
    return Repeated([_get(f"/books?limit={PAGE_SIZE}{cursor}", _title_in_json(last))])


def _get(target: str, body: bytes) -> Exchange:
    lines = (f"GET {target} HTTP/1.1", "host: localhost", "accept: application/json", "", "")
    return Exchange("\r\n".join(lines).encode(), body)


def _title_in_json(number: int) -> bytes:
    return b'"title":' + msgspec.json.encode(title(number))
