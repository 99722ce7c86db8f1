"""The demo's catalogue as tests use it: the real application, and waiting for what it does by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from demo_app.handlers.book_handlers import BookCommandHandler, BookQueryHandler
from demo_app.models.book import Base
from demo_app.models.book_read_model import BookReadModel
from diptych import ConfigService, Diptych

PATIENCE_S = 20.0


def catalogue(database_url: str, redis_url: str | None = None, **settings: Any) -> Diptych:
    """The catalogue without its pages. Redis may answer slowly here: a busy machine must not fail a test."""
    values: dict[str, Any] = {
        "redis_query_timeout_ms": 2000,
        "redis_command_timeout_ms": 5000,
        "redis_probe_interval_ms": 20,
    }
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    return Diptych(
        ConfigService(environ={}, **values),
        models=Base,
        handlers=[BookCommandHandler, BookQueryHandler],
        read_models=[BookReadModel],
    )


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits until the condition holds; fails, naming it, if it does not within reason."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        await asyncio.sleep(0.01)


async def answered_by(app: Diptych, store: str) -> None:
    """Waits until this store answers the catalogue's queries."""

    async def does() -> bool:
        return (await app.health()).read_models["BookReadModel"].served_by == store

    await eventually(does, f"{store} answers")
