"""Raw ASGI and SQLAlchemy's Core: adding a book, as one would write it for this one transaction alone."""

from __future__ import annotations

import datetime
import os
from typing import Annotated

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from benchmarks.peers.asgi import Receive, Scope, Send, nothing, run_lifespan
from benchmarks.peers.orm import Book, Change, log_values, open_database

Line = Annotated[str, Meta(min_length=1, max_length=200)]


class NewBook(msgspec.Struct):
    title: Line
    author: Line
    published_date: datetime.date | None = None
    isbn: Annotated[str, Meta(pattern="^([0-9]{13}|[0-9]{9}[0-9X])$")] | None = None
    stock_quantity: Annotated[int, Meta(ge=0)] = 0


class BookDocument(NewBook, kw_only=True):
    id: int


# SQLite lets one write at a time: one connection, for which requests queue, beats many that wait in the file.
engine = open_database(pool_size=1 if os.environ["DATABASE_URL"].startswith("sqlite") else 10, max_overflow=0)
decoder = msgspec.json.Decoder(NewBook)
insert_book = sa.insert(Book).returning(Book.id)
insert_change = sa.insert(Change)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send, nothing, engine.dispose)
        return
    if scope["method"] == "GET":
        status, body = 200, b"{}"  # it is asked whether it is there
    else:
        status, body = 201, msgspec.json.encode(await add(decoder.decode(await _body(receive))))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def add(new: NewBook) -> BookDocument:
    """Adds the book and its row of the change log."""
    values = msgspec.structs.asdict(new)
    async with engine.begin() as connection:
        book_id = (await connection.execute(insert_book, values)).scalar_one()
        values = {"id": book_id, **values}
        await connection.execute(insert_change, log_values(values))
    return BookDocument(**values)
