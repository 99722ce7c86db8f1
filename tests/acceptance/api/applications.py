"""The applications that are tried, each served by itself with SQLite and, where there is one, a Valkey of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from tempfile import TemporaryDirectory

from tests.acceptance.serving import FROM_REDIS, CatalogueServer
from tests.acceptance.shops import ShopServer, migrate
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
def shop(framework: str) -> Iterator[str]:
    """Serves the shop of `examples/fastapi_shop`, or of `examples/litestar_shop`; gives its URL."""
    with _valkey() as redis, TemporaryDirectory() as directory:
        settings = {"DATABASE_URL": f"sqlite:///{directory}/shop.db", "DATABASE_TIMEOUT_MS": "60000"}
        migrate(settings["DATABASE_URL"])
        with ShopServer(framework, "diptych run", settings | {"REDIS_URL": redis}, workers=1) as server:
            yield server.url


@contextmanager
def _valkey() -> Iterator[str]:
    binary = valkey_binary()
    if binary is None:
        yield "none"
        return
    with RedisServer(binary) as valkey:
        yield valkey.url


APPLICATIONS: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "demo": demo,
    "fastapi": partial(shop, "fastapi"),
    "litestar": partial(shop, "litestar"),
}
