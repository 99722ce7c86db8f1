"""How even answers come: the latency of one book by its title at half the greatest rate, 99 % against the median.

In each round a candidate's greatest rate is taken first, in a closed loop of 64 connections; then requests are due
at half that rate, whether or not earlier ones are answered, and latency is counted from when each was due. To be
shown: the 99th percentile is at most 1.5 times as far above the median as with "the limit", one GET over one
connection to Redis in raw ASGI. The load's own lateness, and its CPU, are figures too.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from benchmarks.books import SEEDED, seed
from benchmarks.claims import Claim
from benchmarks.driver import drive, get_one
from benchmarks.http_job import Job
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.served import serve_each
from benchmarks.servers import Peer, catalogue, fill_redis, running, serving, stored
from benchmarks.trees import Tree
from benchmarks.valkey import valkey

CONNECTIONS = 64
CASE = "One book by its title, at half the greatest rate"
SPREAD = "99 % over median"
LIMIT = "the limit"
OURS = "diptych, Redis"
OURS_SQLITE = "diptych, SQLite"
CLAIMS = (Claim(CASE, SPREAD, OURS, LIMIT, at_most=1.5),)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One comparison."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        databases = [f"sqlite:///{folder / name}.db" for name in ("redis", "sqlite")]
        for database in databases:
            await seed(database, SEEDED)
        store = stack.enter_context(stored(valkey()))
        fill_redis(store.url, SEEDED)
        ports = {
            LIMIT: stack.enter_context(running(Peer("limit", REDIS_URL=store.url))),
            OURS: stack.enter_context(serving(catalogue(databases[0], store.url))),
            OURS_SQLITE: stack.enter_context(serving(catalogue(databases[1]))),
        }
        yield _case(CASE, ports, quick)


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """How even answers come over HTTP: one book by its title at half the greatest rate, as `tail` measures it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for where in ("Redis", "SQLite"):
            ports = await serve_each(stack, folder, trees, redis=where == "Redis")
            yield _case(f"{CASE}, {where}", ports, quick)


def _case(name: str, ports: Mapping[str, int], quick: bool) -> Case:
    closed_s, open_s = (0.5, 1.0) if quick else (1.0, 5.0)
    candidates = {name: _at_half(port, closed_s, open_s) for name, port in ports.items()}
    return Case(name, 1 if quick else 7, candidates, warm_up=not quick)


def _at_half(port: int, closed_s: float, open_s: float) -> Candidate:
    asked = get_one(SEEDED)

    async def measure() -> Sample:
        greatest = await drive(Job(port, CONNECTIONS, closed_s, asked))
        rate = greatest.answers / greatest.seconds / 2
        at_half = await drive(Job(port, CONNECTIONS, open_s, asked, rate=rate))
        return {
            "half the greatest rate, requests/s": rate,
            "answered, requests/s": at_half.answers / at_half.seconds,
            "median, ms": at_half.median_ms,
            "99 % within, ms": at_half.p99_ms,
            SPREAD: at_half.p99_ms / at_half.median_ms,
            "longest, ms": at_half.longest_ms,
            "the load's lateness, 99 % within, ms": at_half.late_ms,
            "the load's CPU, % of its core": 100 * at_half.cpu,
            "errors, in all": greatest.error_count + at_half.error_count,
        }

    return measure
