"""A catalogue of books alone: one table, one read model without joined rows. For tests of diptych itself.

A command writes its documents into Redis by itself here. Those of the demonstration have fields from other tables.
"""

from __future__ import annotations

import datetime

from msgspec import UNSET, Struct, UnsetType, convert
from msgspec.structs import asdict
from sqlalchemy import Date, Index, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates

from demo_app.models.book import Author, Isbn, Stock, Title
from demo_app.models.folding import MAX_LENGTH, folded
from diptych import (
    Command,
    ConfigService,
    Diptych,
    Document,
    ORMService,
    Page,
    Query,
    ReadModel,
    by,
    code_point_text,
)


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    author: Mapped[str] = mapped_column(code_point_text(200))
    published_date: Mapped[datetime.date | None] = mapped_column(Date)
    isbn: Mapped[str | None] = mapped_column(String(13), unique=True)
    stock_quantity: Mapped[int] = mapped_column(Integer, default=0)
    search_title: Mapped[str | None] = mapped_column(code_point_text(MAX_LENGTH))

    @validates("title")
    def _fold(self, _: str, title: str) -> str:
        self.search_title = folded(title)
        return title


Index("ix_books_author", Book.author, Book.title)
_ORDERS = {
    "sqlite": (Book.published_date.desc(), (Book.search_title.is_(None), Book.search_title)),
    "postgresql": (Book.published_date.desc().nulls_last(), (Book.search_title,)),
}
for _database, (_newest, _search) in _ORDERS.items():
    for _index in (
        Index("ix_books_search", *_search, Book.title),
        Index("ix_books_author_search", Book.author, *_search, Book.title),
        Index("ix_books_newest", _newest, Book.title),
        Index("ix_books_author_newest", Book.author, _newest, Book.title),
    ):
        _index.ddl_if(dialect=_database)


class BookDocument(Struct, frozen=True):
    id: int
    title: str
    author: str
    published_date: datetime.date | None
    isbn: str | None
    stock_quantity: int


class BookReadModel(ReadModel[Book]):
    key = Book.title
    document = BookDocument
    lists = (
        by(Book.title),
        by(Book.author, Book.title),
        by(Book.search_title, name="search"),
        by(Book.author, Book.search_title, name="author_search"),
        by(Book.published_date.desc().nulls_last(), name="newest"),
        by(Book.author, Book.published_date.desc().nulls_last(), name="author_newest"),
    )


class AddBook(Command[int]):
    title: Title
    author: Author
    published_date: datetime.date | None = None
    isbn: Isbn | None = None
    stock_quantity: Stock = 0


class BookChanges(Struct, frozen=True):
    title: Title | UnsetType = UNSET
    author: Author | UnsetType = UNSET
    published_date: datetime.date | UnsetType | None = UNSET
    isbn: Isbn | UnsetType | None = UNSET
    stock_quantity: Stock | UnsetType = UNSET


class EditBook(Command[BookDocument | None]):
    title: str
    changes: BookChanges


class DeleteBook(Command[bool]):
    title: str


class GetBook(Query[Document[BookDocument]]):
    title: str


class ListBooks(Query[Page[BookDocument]]):
    limit: int = 50
    after: str | None = None
    before: str | None = None
    count: bool = False


class BookCommandHandler:
    def __init__(self, orm_service: ORMService) -> None:
        self.orm_service = orm_service

    async def add_book(self, command: AddBook) -> int:
        return (await self.orm_service.create(Book, **asdict(command))).id

    async def edit_book(self, command: EditBook) -> BookDocument | None:
        changes = {name: value for name, value in asdict(command.changes).items() if value is not UNSET}
        book = await self.orm_service.update(Book, command.title, "title", return_instance=True, **changes)
        return None if book is None else convert(book, BookDocument, from_attributes=True)

    async def delete_book(self, command: DeleteBook) -> bool:
        return await self.orm_service.delete(Book, command.title, "title")


class BookQueryHandler:
    def __init__(self, books: BookReadModel) -> None:
        self.books = books

    async def get_book(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)

    async def list_books(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(
            limit=query.limit, after=query.after, before=query.before, count=query.count
        )


def create_books(config: ConfigService | None = None) -> Diptych:
    """Returns the catalogue, for `--app tests.books:create_books` with the settings of the environment."""
    return Diptych(
        config,
        models=Base,
        handlers=[BookCommandHandler, BookQueryHandler],
        read_models=[BookReadModel],
    )
