"""Several workers of one application: what one of them acknowledges, all of them answer, from Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.acceptance.serving import FROM_REDIS, Catalogue, CatalogueServer
from tests.conftest import RedisServerFactory

ROUNDS = 200


@pytest.fixture
def both(database_url: str, redis_server_factory: RedisServerFactory) -> Iterator[list[Catalogue]]:
    """A client of each of two workers, both of them answered from Redis."""
    redis = redis_server_factory()
    # A long lease: on a busy machine a keeper may come too late for the short one, and SQL answer for a moment.
    served = CatalogueServer(database_url, redis.url, workers=2, LEASE_MS="20000")
    with served as server, ExitStack() as clients:
        found: dict[int, Catalogue] = {}
        for _ in range(200):
            client = clients.enter_context(Catalogue(server))
            while (answer := client.get("/books")).headers["cache-status"] != FROM_REDIS:
                pass
            found.setdefault(worker_of(answer, server), client)
            if len(found) == 2:
                break
        assert len(found) == 2, "all connections lead to the same worker"
        yield list(found.values())


def worker_of(answer: httpx.Response, server: CatalogueServer) -> int:
    """The process at the other end of the connection that this answer came by."""
    port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    for process in psutil.Process(server.pid).children(recursive=True):
        if any(peer.raddr and peer.raddr.port == port for peer in process.net_connections("tcp")):
            return int(process.pid)
    raise AssertionError("no worker has this connection")


def test_a_change_through_one_worker_is_at_once_seen_through_the_other(both: list[Catalogue]) -> None:
    both[0].add("Dune")
    for stock in range(ROUNDS):
        writer, reader = both if stock % 2 else reversed(both)
        changed = writer.patch("/books/Dune/edit", json={"stock_quantity": stock})
        assert changed.status_code == 200, changed.text
        for path in ("/books/Dune", "/books"):
            answer = reader.get(path)
            book = answer.json() if path != "/books" else answer.json()["items"][0]
            assert (book["stock_quantity"], answer.headers["cache-status"]) == (stock, FROM_REDIS)


def test_a_book_that_is_renamed_or_deleted_through_one_worker_is_gone_from_the_other(
    both: list[Catalogue],
) -> None:
    for number in range(ROUNDS // 4):
        writer, reader = both if number % 2 else reversed(both)
        writer.add(f"Old {number}")
        assert writer.patch(f"/books/Old {number}/edit", json={"title": f"New {number}"}).status_code == 200
        assert [reader.get(f"/books/{age} {number}").status_code for age in ("Old", "New")] == [404, 200]
        assert writer.delete(f"/books/New {number}/delete").status_code == 204
        assert reader.get(f"/books/New {number}").status_code == 404
        answer = reader.get("/books")
        assert (answer.json()["items"], answer.headers["cache-status"]) == ([], FROM_REDIS)
