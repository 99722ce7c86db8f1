"""The catalogue as benchmarks run it in their own process: the demo's application at diptych's default settings.

Of diptych and of the demonstration only public names: this runs with those of another revision, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.books import title
from demo_app.catalogue import create_catalogue
from demo_app.messages import GetBook
from diptych import ConfigService, Diptych, Document, Query

PATIENCE_S = 600.0


def open_catalogue(database: str, redis_url: str | None, **settings: Any) -> Diptych:
    """To be entered. Nothing of the environment decides."""
    return create_catalogue(ConfigService(environ={}, database_url=database, redis_url=redis_url, **settings))


async def answered_by_redis(
    app: Diptych, query: Callable[[str], Query[Document[Any]]] = GetBook, answers: int = 20
) -> None:
    """Waits until so many answers in a row to the query for the first book came from Redis."""
    deadline, count = time.monotonic() + PATIENCE_S, 0
    while count < answers:
        assert time.monotonic() < deadline, f"Redis does not answer: {await app.health()}"
        document = await app.ask(query(title(0)))
        count = count + 1 if document.served.store == "redis" else 0
        await asyncio.sleep(0.01)


async def served_by_redis(app: Diptych) -> None:
    """Waits until Redis answers for every read model."""
    deadline = time.monotonic() + PATIENCE_S
    while {model.served_by for model in (await app.health()).read_models.values()} != {"redis"}:
        assert time.monotonic() < deadline, f"Redis does not answer: {await app.health()}"
        await asyncio.sleep(0.02)
