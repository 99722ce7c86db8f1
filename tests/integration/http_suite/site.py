"""The application of the suite: a shelf of books, and its endpoints."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Command,
    ConfigService,
    Diptych,
    Document,
    ORMService,
    Page,
    Query,
    ReadModel,
    Rule,
    by,
    code_point_text,
)
from diptych.http import Endpoint


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(100), unique=True)
    pages: Mapped[int] = mapped_column(default=0)


class BookDocument(Struct):
    id: int
    title: str
    pages: int


class Books(ReadModel[Book]):
    key = Book.title
    also = (Book.id,)
    document = BookDocument
    lists = (by(Book.title),)


def not_dots(text: str) -> str:
    if text in (".", ".."):
        raise ValueError('must not be "." or ".."')
    return text


Title = Annotated[str, Meta(min_length=1, max_length=100), Rule(not_dots)]
Pages = Annotated[int, Meta(ge=0, le=100_000)]


class AddBook(Command[int]):
    """Adds a book."""

    title: Title
    pages: Pages = 0


class Changes(Struct):
    pages: Pages


class EditBook(Command[bool]):
    title: Title
    changes: Changes


class DeleteBook(Command[bool]):
    title: str


class Fail(Command[None]):
    pass


class GetBook(Query[Document[BookDocument]]):
    title: str


class GetBookBy(Query[Document[BookDocument]]):
    id: int


class ListBooks(Query[Page[BookDocument]]):
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    after: str | None = None


class CountBooks(Query[int]):
    pass


class BookCommands:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add(self, command: AddBook) -> int:
        return (await self.orm.create(Book, **msgspec.structs.asdict(command))).id

    async def edit(self, command: EditBook) -> bool:
        return await self.orm.update(Book, command.title, "title", pages=command.changes.pages)

    async def delete(self, command: DeleteBook) -> bool:
        return await self.orm.delete(Book, command.title, "title")

    async def fail(self, command: Fail) -> None:
        raise RuntimeError("hunter2")


class BookQueries:
    def __init__(self, books: Books, orm: ORMService) -> None:
        self.books, self.orm = books, orm

    async def get(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)

    async def get_by(self, query: GetBookBy) -> Document[BookDocument]:
        return await self.books.get(id=query.id)

    async def list(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(limit=query.limit, after=query.after)

    async def count(self, query: CountBooks) -> int:
        return len(await self.orm.all(Book))


ENDPOINTS = (
    Endpoint("GET", "/books", ListBooks),
    Endpoint("POST", "/books", AddBook, status=201, location="/books/{title}"),
    Endpoint("GET", "/books/{title}", GetBook, missing="there is no book “{title}”"),
    Endpoint("PATCH", "/books/{title}", EditBook, body="changes", missing="there is no book “{title}”"),
    Endpoint("DELETE", "/books/{title}", DeleteBook),
    Endpoint("GET", "/by-number/{id:int}", GetBookBy),
    Endpoint("GET", "/count", CountBooks),
    Endpoint("POST", "/failures", Fail),
)


def actor(scope: Any) -> str | None:
    return None if scope is None else dict(scope["headers"]).get(b"x-user", b"nobody").decode()


def shelf(database_url: str, redis_url: str | None = None) -> Diptych:
    settings = {"database_url": database_url} | ({} if redis_url is None else {"redis_url": redis_url})
    return Diptych(
        ConfigService(environ={}, **settings),
        models=Base,
        handlers=[BookCommands, BookQueries],
        read_models=[Books],
        actor=actor,
    )
