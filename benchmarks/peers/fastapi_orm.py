"""FastAPI, SQLAlchemy's ORM and aiosqlite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmarks.peers.models import BooksView, BookView, NewBook
from benchmarks.peers.orm import Book, Change, log_values, open_database

# Writers that meet wait for each other in the file; the five seconds of the default are too short for all of them.
engine = open_database(connect_args={"timeout": 60})
sessions = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def opened() -> AsyncIterator[AsyncSession]:
    """A session for one request."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(opened)]


@app.get("/books/{title}", response_model=BookView)
async def get_book(title: str, session: Session) -> Book:
    book = await session.scalar(sa.select(Book).where(Book.title == title))
    if book is None:
        raise HTTPException(404)
    return book


@app.get("/books", response_model=BooksView)
async def list_books(session: Session, limit: int = 50, after: str | None = None) -> dict[str, object]:
    query = sa.select(Book).order_by(Book.title).limit(limit + 1)
    if after is not None:
        query = query.where(Book.title > after)
    found = (await session.scalars(query)).all()
    items = found[:limit]
    return {"items": items, "next": items[-1].title if len(found) > limit else None}


@app.post("/books/action/add", status_code=201, response_model=BookView)
async def add_book(new: NewBook, session: Session) -> Book:
    book = Book(**new.model_dump())
    session.add(book)
    await session.flush()  # its id belongs into the log
    session.add(Change(**log_values({"id": book.id, **new.model_dump()})))
    await session.commit()
    return book
