"""What the catalogue answers while a store is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.acceptance.serving import FROM_REDIS, HTML, Catalogue, CatalogueServer, values_shown
from tests.conftest import RedisServerFactory
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres(own_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A PostgreSQL that may be stopped, with an empty database."""
    own_postgres.start()
    own_postgres.execute("DROP DATABASE IF EXISTS books WITH (FORCE)")
    own_postgres.execute("CREATE DATABASE books")
    yield own_postgres
    own_postgres.start()


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1


def assert_commands_are_refused(books: Catalogue) -> None:
    assert_unavailable(books.post("/books/action/add", json={"title": "Emma", "author": "A"}))
    assert_unavailable(books.patch("/books/Dune/edit", json={"author": "B"}))
    assert_unavailable(books.delete("/books/Dune/delete"))
    form = {"title": "Emma", "author": "A", "published_date": "", "isbn": "", "stock_quantity": "1"}
    page = books.post("/books/action/add", data=form, headers=HTML)
    assert_unavailable(page)
    assert values_shown(page.text) == form
    health = books.get("/health")
    assert_unavailable(health)
    assert health.json()["sql"]["state"] == "away"


def test_without_sql_commands_and_queries_that_need_it_are_503(postgres: PostgresServer) -> None:
    with CatalogueServer(postgres.url_of("books")) as server, Catalogue(server) as books:
        books.add("Dune")
        postgres.stop()
        assert_commands_are_refused(books)
        for path in ("/books", "/books/Dune", "/books/Dune/edit"):
            assert_unavailable(books.get(path))
            page = books.get(path, headers=HTML)
            assert_unavailable(page)
            assert "Please try again in" in page.text
        assert books.get("/books/action/add", headers=HTML).status_code == 200
        postgres.start()
        assert books.get("/books/Dune").status_code == 200
        assert books.add("Emma").status_code == 201


def test_without_sql_redis_goes_on_answering_until_its_lease_ends(
    postgres: PostgresServer, redis_server_factory: RedisServerFactory
) -> None:
    redis = redis_server_factory()
    with (
        CatalogueServer(postgres.url_of("books"), redis.url, LEASE_MS="5000") as server,
        Catalogue(server) as books,
    ):
        books.add("Dune")
        server.await_cache_status(FROM_REDIS)
        postgres.stop()
        answer = books.get("/books/Dune")
        assert (answer.status_code, answer.headers["cache-status"]) == (200, FROM_REDIS)
        assert [book["title"] for book in books.get("/books").json()["items"]] == ["Dune"]
        deadline = time.monotonic() + 20
        while (answer := books.get("/books/Dune")).status_code == 200:
            assert answer.headers["cache-status"] == FROM_REDIS
            assert time.monotonic() < deadline, "nobody renews the lease, and yet it does not end"
            time.sleep(0.05)
        assert_unavailable(answer)
        assert_commands_are_refused(books)
        postgres.start()
        assert books.add("Emma").status_code == 201
        server.await_cache_status(FROM_REDIS)


def test_without_redis_sql_answers_and_hits_resume_when_it_is_back(
    redis_server_factory: RedisServerFactory,
) -> None:
    redis = redis_server_factory()
    with CatalogueServer(redis=redis.url) as server, Catalogue(server) as books:
        server.await_cache_status(FROM_REDIS)
        books.add("Dune")
        redis.stop()
        answer = books.get("/books/Dune")
        assert answer.status_code == 200
        assert answer.headers["cache-status"] == "diptych; fwd=miss; detail=redis-away"
        assert "answered from <strong>SQL</strong> (redis-away)" in books.get("/books", headers=HTML).text
        books.add("Emma")
        assert books.get("/health").json()["redis"]["state"] == "away"
        redis.start()
        server.await_cache_status(FROM_REDIS)
        assert books.get("/books/Emma").headers["cache-status"] == FROM_REDIS


def test_a_sql_server_that_hangs_is_503_long_before_its_statements_time_out(postgres: PostgresServer) -> None:
    """It accepts connections and answers nothing; many clients ask at once."""
    with CatalogueServer(postgres.url_of("books")) as server, Catalogue(server) as books:
        books.add("Dune")
        postgres.pause()
        try:
            with ThreadPoolExecutor(30) as clients:
                answers = list(
                    clients.map(lambda _: httpx.get(f"{server.url}/books/Dune", timeout=25), range(30))
                )
            for answer in answers:
                assert_unavailable(answer)
            assert_unavailable(httpx.get(f"{server.url}/health", timeout=25))
        finally:
            postgres.resume()
        assert books.get("/books/Dune").status_code == 200
