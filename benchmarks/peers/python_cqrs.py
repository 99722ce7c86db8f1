"""python-cqrs behind FastAPI: a query by key from Redis, and a command that writes its event into the outbox.

As its documentation has it (https://mkdocs.python-cqrs.dev, "FastAPI" and "Transactional Outbox"): one mediator for
the process, a session and a repository for each request from the container of ``di``, and on SQLite an outbox whose
ids the database gives. The event stands for the row of the change log that the others write.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import cqrs
import di
from cqrs.bootstrap import requests as bootstrap
from di import dependent
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmarks.peers.models import BookView, NewBook
from benchmarks.peers.orm import Book, open_database

_OUTBOX = """
    CREATE TABLE IF NOT EXISTS outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        event_id BLOB NOT NULL,
        event_id_bin BLOB NOT NULL,
        event_status VARCHAR(12) NOT NULL,
        flush_counter SMALLINT NOT NULL,
        event_name VARCHAR(255) NOT NULL,
        topic VARCHAR(255) NOT NULL,
        created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (event_id_bin, event_name)
    )
"""


class BookAdded(BaseModel):
    id: int
    title: str
    author: str
    published_date: datetime.date | None
    isbn: str | None
    stock_quantity: int


cqrs.OutboxedEventMap.register("book_added", cqrs.PydanticNotificationEvent[BookAdded])


class BookResponse(BookView, cqrs.PydanticResponse):
    pass


class AddBook(NewBook, cqrs.PydanticRequest[BookResponse]):
    pass


class GetBook(cqrs.PydanticRequest[BookResponse | None]):
    title: str


@dataclasses.dataclass
class Persistence:
    """A session, and the outbox on it."""

    session: AsyncSession
    outbox: cqrs.OutboxedEventRepository


class AddBookHandler(cqrs.RequestHandler[AddBook]):
    def __init__(self, persistence: Persistence) -> None:
        self.persistence = persistence

    async def handle(self, request: AddBook) -> BookResponse:
        session, outbox = self.persistence.session, self.persistence.outbox
        book = Book(**request.model_dump())
        try:
            session.add(book)
            await session.flush()
            payload = BookAdded(id=book.id, **request.model_dump())
            outbox.add(
                cqrs.PydanticNotificationEvent[BookAdded](
                    event_name="book_added", topic="books", payload=payload
                )
            )
            await outbox.commit()
        finally:
            await session.close()
        return BookResponse.model_validate(payload.model_dump())


class GetBookHandler(cqrs.RequestHandler[GetBook]):
    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def handle(self, request: GetBook) -> BookResponse | None:
        found = await self.redis.get(f"book:{request.title}")
        return None if found is None else BookResponse.model_validate_json(found)


engine = open_database(connect_args={"timeout": 60})
sessions = async_sessionmaker(engine, expire_on_commit=False)
redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1"))  # connected by the first query


def _persistence() -> Persistence:
    session = sessions()
    return Persistence(session, cqrs.SqlAlchemyOutboxedEventRepository(session))


def _commands(mapper: Any) -> None:
    mapper.bind(AddBook, AddBookHandler)


def _queries(mapper: Any) -> None:
    mapper.bind(GetBook, GetBookHandler)


@functools.lru_cache(maxsize=1)
def mediator_factory() -> Any:
    container = di.Container()
    container.bind(di.bind_by_type(dependent.Dependent(_persistence, scope="request"), Persistence))
    container.bind(di.bind_by_type(dependent.Dependent(lambda: redis, scope="request"), Redis))
    return bootstrap.bootstrap(di_container=container, commands_mapper=_commands, queries_mapper=_queries)


Mediator = Annotated[Any, Depends(mediator_factory)]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.exec_driver_sql(_OUTBOX)
    yield
    await engine.dispose()
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/books/{title}")
async def get_book(title: str, mediator: Mediator) -> BookView:
    found: BookView | None = await mediator.send(GetBook(title=title))
    if found is None:
        raise HTTPException(404)
    return found


@app.post("/books/action/add", status_code=201)
async def add_book(command: AddBook, mediator: Mediator) -> BookView:
    added: BookView = await mediator.send(command)
    return added
