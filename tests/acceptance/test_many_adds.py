"""Hundreds of commands at once on PostgreSQL: those that have to wait for a connection are queued."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import psycopg

from tests.acceptance.serving import CatalogueServer

NUMBER = 500


async def add_all(url: str) -> list[httpx.Response]:
    """Adds books, each over a connection of its own, all at once."""
    limits = httpx.Limits(max_connections=NUMBER)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        books = [{"title": f"Book {number}", "author": "A"} for number in range(NUMBER)]
        return await asyncio.gather(*(client.post("/books/action/add", json=book) for book in books))


def connections_to(url: str) -> int:
    """Returns the number of connections to a database, this one not counted."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_500_adds_at_once_are_queued(postgres_url: str) -> None:
    # A busy machine must not make those that are queued last give up.
    with CatalogueServer(postgres_url, workers=2, DATABASE_TIMEOUT_MS="60000") as server:
        answers = asyncio.run(add_all(server.url))
        assert Counter(answer.status_code for answer in answers) == {201: NUMBER}
        assert connections_to(postgres_url) <= 2 * (10 + 10 + 9), "the pools of two processes"
        assert httpx.get(f"{server.url}/books", params={"count": 1}).json()["total"] == NUMBER


async def add_while_locked(url: str, database_url: str) -> list[httpx.Response]:
    """Adds books while nobody may write, until all are answered but the one of each worker that has a connection."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        with psycopg.connect(database_url) as blocker:
            blocker.execute("LOCK TABLE books IN EXCLUSIVE MODE")
            books = [{"title": f"Book {number}", "author": "A"} for number in range(20)]
            left = {asyncio.ensure_future(client.post("/books/action/add", json=book)) for book in books}
            answers: list[httpx.Response] = []
            while len(left) > 2:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                answers += (task.result() for task in done)
            blocker.rollback()
        return [*answers, *await asyncio.gather(*left)]


def test_those_that_wait_too_long_for_a_connection_are_told_when_to_come_back(postgres_url: str) -> None:
    settings = {"DATABASE_TIMEOUT_MS": "3000", "DATABASE_POOL_SIZE": "1"}
    with CatalogueServer(postgres_url, workers=2, **settings) as server:
        answers = asyncio.run(add_while_locked(server.url, postgres_url))
        refused = [answer for answer in answers if answer.status_code != 201]
        assert 18 <= len(refused) < 20
        for answer in refused:
            assert (answer.status_code, answer.json()["detail"]) == (503, "the database is busy; try again")
            assert int(answer.headers["retry-after"]) >= 1
