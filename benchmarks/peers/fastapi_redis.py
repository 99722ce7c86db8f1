"""FastAPI, redis-py and pydantic."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from redis.asyncio import Redis

from benchmarks.peers.models import BooksView, BookView


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Redis.from_url(os.environ["REDIS_URL"]) as client:
        app.state.redis = client
        yield


app = FastAPI(lifespan=lifespan)


def opened(request: Request) -> Redis:
    """The client of this process, with its pool of connections."""
    client: Redis = request.app.state.redis
    return client


Client = Annotated[Redis, Depends(opened)]


@app.get("/books/{title}")
async def get_book(title: str, client: Client) -> BookView:
    found = await client.get(f"book:{title}")
    if found is None:
        raise HTTPException(404)
    return BookView.model_validate_json(found)


@app.get("/books")
async def list_books(client: Client, limit: int = 50, after: str | None = None) -> BooksView:
    begin = "-" if after is None else f"({after}"
    titles: list[Any] = await client.zrange("books", begin, "+", bylex=True, offset=0, num=limit + 1)
    found = await client.mget([b"book:" + title for title in titles[:limit]])
    items = [BookView.model_validate_json(one) for one in found if one is not None]
    return BooksView(items=items, next=items[-1].title if len(titles) > limit else None)
