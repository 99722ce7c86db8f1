"""An application whose messages are models of pydantic and dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec import Struct
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    CommandOf,
    ConfigService,
    Diptych,
    Document,
    ORMService,
    QueryOf,
    ReadModel,
    build,
    code_point_text,
)


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"
    title: Mapped[str] = mapped_column(code_point_text(100), primary_key=True)
    pages: Mapped[int]


class BookDocument(Struct):
    title: str
    pages: int


class Books(ReadModel[Book]):
    key = Book.title
    document = BookDocument


class AddBook(BaseModel, CommandOf[str]):
    title: str
    pages: int = 1


@dataclass(frozen=True, slots=True)
class Extend(CommandOf[bool]):
    title: str
    pages: int


@dataclass(frozen=True)
class GetBook(QueryOf[Document[BookDocument]]):
    title: str


class BookHandler:
    def __init__(self, orm: ORMService, books: Books) -> None:
        self.orm, self.books = orm, books

    async def add(self, command: AddBook) -> str:
        return (await self.orm.create(Book, **command.model_dump())).title

    async def extend(self, command: Extend) -> bool:
        return await self.orm.update(Book, command.title, pages=command.pages)

    async def get(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)


async def test_they_are_executed_and_asked(database_url: str):
    app = Diptych(
        ConfigService(database_url=database_url), models=Base, handlers=[BookHandler], read_models=[Books]
    )
    async with app:
        assert await app.execute(build(AddBook, {"title": "Emma", "pages": "7"})) == "Emma"
        assert (await app.ask(GetBook("Emma"))).body == b'{"title":"Emma","pages":7}'
        assert await app.execute(Extend("Emma", 9)) is True
        assert (await app.ask(build(GetBook, {"title": "Emma"}, text=True))).decode() == BookDocument(
            "Emma", 9
        )
        with pytest.raises(TypeError, match="queries go to ask"):
            await app.execute(GetBook("Emma"))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="commands go to execute"):
            await app.ask(AddBook(title="Emma"))  # type: ignore[arg-type]
