"""Handlers of commands and queries on books."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import asdict

from demo_app.handlers.book_answers import document_of
from demo_app.handlers.book_lists import list_for
from demo_app.handlers.tag_handlers import delete_unused, tag_ids_of
from demo_app.messages import (
    AddBook,
    BookChanges,
    DeleteBook,
    EditBook,
    EmptyBook,
    GetBook,
    ListBooks,
    StartBook,
)
from demo_app.models.book import Book
from demo_app.models.book_read_model import (
    BookDetailDocument,
    BookDetailReadModel,
    BookDocument,
    BookReadModel,
)
from diptych import Document, ORMService, Page


class BookCommandHandler:
    """Changes books in SQL. Each method is a transaction."""

    def __init__(self, orm_service: ORMService) -> None:
        self.orm_service = orm_service

    async def add_book(self, command: AddBook) -> int:
        book = await self.orm_service.create(Book, **asdict(command))
        return book.id

    async def edit_book(self, command: EditBook) -> BookDocument | None:
        book = await self.orm_service.update(
            Book, command.title, "title", return_instance=True, **_given(command.changes)
        )
        return None if book is None else await document_of(book, self.orm_service)

    async def delete_book(self, command: DeleteBook) -> bool:
        # The row itself is not read: one that can't be shown can be deleted.
        tags = await tag_ids_of(command.title, self.orm_service)
        is_deleted = await self.orm_service.delete(Book, command.title, "title")
        if tags:
            await delete_unused(tags, self.orm_service)
        return is_deleted


class BookQueryHandler:
    """Answers from the read models."""

    def __init__(self, books: BookReadModel, details: BookDetailReadModel) -> None:
        self.books = books
        self.details = details

    async def get_book(self, query: GetBook) -> Document[BookDetailDocument]:
        return await self.details.get(query.title)

    async def start_book(self, query: StartBook) -> EmptyBook:
        return EmptyBook()

    async def list_books(self, query: ListBooks) -> Page[BookDocument]:
        order, where = list_for(query)
        return await self.books.page(
            order, where=where, limit=query.limit, after=query.after, before=query.before, count=query.count
        )


def _given(changes: BookChanges) -> dict[str, object]:
    return {name: value for name, value in asdict(changes).items() if value is not UNSET}
