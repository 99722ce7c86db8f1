"""The applications that are tried, each served by itself with SQLite and, where there is one, a Valkey of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from tests.acceptance.serving import FROM_REDIS, CatalogueServer
from tests.servers import RedisServer, valkey_binary


@contextmanager
def demo() -> Iterator[str]:
    """Serves the books catalogue; gives its URL."""
    # On a machine that has no time for the process, a keeper may hold SQLite for long: no answer may be 503 for that.
    with _valkey() as redis, CatalogueServer(redis=redis, DATABASE_TIMEOUT_MS="60000") as server:
        if redis != "none":
            server.await_cache_status(FROM_REDIS)
        yield server.url


@contextmanager
def _valkey() -> Iterator[str]:
    binary = valkey_binary()
    if binary is None:
        yield "none"
        return
    with RedisServer(binary) as valkey:
        yield valkey.url


APPLICATIONS: Mapping[str, Callable[[], AbstractContextManager[str]]] = {"demo": demo}
