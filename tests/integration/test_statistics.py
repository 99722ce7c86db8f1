"""``Diptych.statistics``, and the same for Prometheus: each figure, by what makes it grow."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from diptych import Diptych, Statistics
from diptych.http import metrics_app
from diptych.http.metrics import prometheus_text
from diptych.statistics import PassStatistics, ReadModelStatistics, WaitStatistics
from tests.books import AddBook, BookReadModel, GetBook, ListBooks
from tests.catalogue import answered_by, catalogue, eventually, fail_to_apply, stop_keeper
from tests.programs import Foreign

ROOT = Path(__file__).parents[2]
LONG = 60_000
"""A lease that stands as long as a test, in milliseconds."""


async def of_books(app: Diptych) -> ReadModelStatistics:
    return (await app.statistics()).read_models["BookReadModel"]


async def test_answers_are_counted_by_store_and_reason(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=LONG) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        before = await of_books(app)
        await asyncio.gather(*(app.ask(GetBook("Dune")) for _ in range(100)))
        await app.ask(GetBook("nobody's"))
        await app.ask(ListBooks())
        await app.health()
        after = await of_books(app)
        assert after.answers_from_redis - before.answers_from_redis == 102, "health asks for no document"
        assert after.answers_from_sql == before.answers_from_sql
        valkey.kill()
        served = [(await app.ask(GetBook("Dune"))).served for _ in range(3)]
        served.append((await app.ask(ListBooks())).served)
        later = await of_books(app)
        assert {each.store for each in served} == {"sql"}
        assert sum(later.answers_from_sql.values()) == sum(after.answers_from_sql.values()) + 4
        assert {each.reason for each in served} <= later.answers_from_sql.keys()
        assert later.answers_from_redis == after.answers_from_redis


async def test_several_documents_are_one_answer_and_a_key_of_no_row_has_its_own_reason(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, lease_ms=LONG) as app:
        await answered_by(app, "redis")
        books = app._run.bus.handler_of(GetBook).__self__.books  # type: ignore[attr-defined]
        assert isinstance(books, BookReadModel)
        before = await of_books(app)
        await books.get_many(["Dune", "Emma"])
        await books.get(7)
        after = await of_books(app)
        assert after.answers_from_redis == before.answers_from_redis + 1
        assert after.answers_from_sql["no-key"] == 1


async def test_without_redis_sql_answers_and_there_is_no_lag(database_url):
    async with catalogue(database_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert"))
        await app.ask(GetBook("Dune"))
        expected = ReadModelStatistics(answers_from_sql={"no-redis": 1})
        assert await of_books(app) == expected


async def test_the_lag_grows_while_nobody_carries_the_changes(database_url, valkey):
    program = Foreign(database_url)
    async with catalogue(database_url, valkey.url, lease_ms=LONG) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        assert (await of_books(app)).lag_changes == 0, "a command brings its change by itself"
        await stop_keeper(app)
        await program.runs("UPDATE books SET stock_quantity = 1", "UPDATE books SET stock_quantity = 2")
        found = await of_books(app)
        assert found.lag_changes == 2
        await asyncio.sleep(0.2)
        later = await of_books(app)
        assert found.lag_seconds is not None
        assert later.lag_seconds is not None
        assert later.lag_seconds >= found.lag_seconds + 0.15
        await app.catch_up()
        assert (await of_books(app)).lag_changes == 0
    await program.close()


async def test_passes_are_counted_with_what_they_find(database_url, valkey):
    program = Foreign(database_url)
    async with catalogue(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        before = (await of_books(app)).passes
        await program.runs("UPDATE books SET stock_quantity = 1", "UPDATE books SET stock_quantity = 2")

        async def are_carried() -> bool:
            return (await of_books(app)).passes.changes >= before.changes + 2

        await eventually(are_carried, "a pass finds the program's changes")
        after = (await of_books(app)).passes
        assert after.number > before.number
        assert after.last_seconds is not None
        assert 0 < after.last_seconds < 30
    await program.close()


async def test_waits_of_commands_are_counted_with_those_for_a_pass(database_url, valkey):
    async with catalogue(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        before = (await app.statistics()).waits
        await app.execute(AddBook("Dune", "Frank Herbert"))
        one = (await app.statistics()).waits
        assert (one.number - before.number, one.by_pass - before.by_pass) == (1, 0)
        assert one.total_seconds > before.total_seconds
        fail_to_apply(app)
        await app.execute(AddBook("Emma", "Jane Austen"))
        two = (await app.statistics()).waits
        assert (two.number - one.number, two.by_pass - one.by_pass) == (1, 1)
        waited_s = two.total_seconds - one.total_seconds
        assert waited_s > 0
        assert two.greatest_seconds == pytest.approx(max(one.greatest_seconds, waited_s))


# For Prometheus


class Sample(NamedTuple):
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'

ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parsed(text: str) -> list[Sample]:
    """Reads the text format 0.0.4, and nothing that is not of it: each metric once, behind its HELP and TYPE."""
    assert text.endswith("\n")
    samples, kinds, current = [], {}, ""
    for line in text[:-1].split("\n"):
        if found := re.fullmatch(rf"# HELP ({NAME}) ((?:[^\\]|\\[\\n])*)", line):
            current = found[1]
            assert current not in kinds
        elif found := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|summary)", line):
            assert found[1] == current
            kinds[current] = found[2]
            assert current.endswith("_total") == (found[2] == "counter")
        else:
            found = re.fullmatch(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)", line)
            assert found, line
            suffixes = ("_sum", "_count") if kinds[current] == "summary" else ("",)
            assert found[1] in {current + suffix for suffix in suffixes}
            pairs = re.findall(LABEL, found[2] or "")
            labels = tuple((n, re.sub(r"\\.", lambda e: ESCAPES[e[0]], v)) for n, v in pairs)
            samples.append(Sample(found[1], labels, float(found[found.lastindex or 0])))
    assert len({sample[:2] for sample in samples}) == len(samples)
    return samples


def test_values_and_labels_are_told_exactly():
    name = 'A "model" of\n\\n'
    model = ReadModelStatistics(7, {"no-lease": 3, "lost": 1}, 2, 0.25, PassStatistics(5, 9, 0.001))
    found = parsed(prometheus_text(Statistics({name: model}, WaitStatistics(4, 1, 2.5, 1.5))))
    of = (("read_model", name),)
    assert set(found) == {
        Sample("diptych_answers_total", (*of, ("store", "redis"), ("reason", "")), 7),
        Sample("diptych_answers_total", (*of, ("store", "sql"), ("reason", "no-lease")), 3),
        Sample("diptych_answers_total", (*of, ("store", "sql"), ("reason", "lost")), 1),
        Sample("diptych_lag_changes", of, 2),
        Sample("diptych_lag_seconds", of, 0.25),
        Sample("diptych_passes_total", of, 5),
        Sample("diptych_pass_changes_total", of, 9),
        Sample("diptych_pass_last_seconds", of, 0.001),
        Sample("diptych_command_wait_seconds_sum", (), 2.5),
        Sample("diptych_command_wait_seconds_count", (), 4),
        Sample("diptych_command_waits_by_pass_total", (), 1),
        Sample("diptych_command_wait_greatest_seconds", (), 1.5),
    }
    documented = set(re.findall(r"`(diptych_\w+)`", (ROOT / "docs/reference/commands.md").read_text("utf-8")))
    assert documented == {sample.name for sample in found}


def test_what_is_not_known_is_left_out():
    nothing = Statistics({"A": ReadModelStatistics()}, WaitStatistics())
    names = {sample.name for sample in parsed(prometheus_text(nothing))}
    assert not names & {"diptych_lag_changes", "diptych_lag_seconds", "diptych_pass_last_seconds"}


@pytest.mark.parametrize("path", ["/metrics", "/internal/figures"])
async def test_metrics_are_served_at_any_path(sqlite_url, path):
    async with catalogue(sqlite_url) as app:
        await app.ask(GetBook("Dune"))
        transport = httpx.ASGITransport(metrics_app(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://books") as client:
            answer, head = await client.get(path), await client.head(path)
            refused = await client.post(path)
    assert answer.status_code == head.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))
    labels = (("read_model", "BookReadModel"), ("store", "sql"), ("reason", "no-redis"))
    assert Sample("diptych_answers_total", labels, 1) in parsed(answer.text)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.headers["content-type"] == "application/problem+json"


async def test_an_application_that_is_not_started_answers_with_a_problem(sqlite_url):
    transport = httpx.ASGITransport(metrics_app(catalogue(sqlite_url)))
    async with httpx.AsyncClient(transport=transport, base_url="http://books") as client:
        answer = await client.get("/metrics")
    assert answer.status_code >= 500
    assert answer.headers["content-type"] == "application/problem+json"
