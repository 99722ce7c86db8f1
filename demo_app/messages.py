"""What the catalogue can be told and asked."""

from __future__ import annotations

import datetime

from msgspec import UNSET, Struct, UnsetType

from demo_app.models.book import Author, Isbn, Stock, Title
from demo_app.models.book_read_model import BookDocument
from diptych import Command, Document, Page, Query


class AddBook(Command[int]):
    """Adds a book; the result is its id."""

    title: Title
    author: Author
    published_date: datetime.date | None = None
    isbn: Isbn | None = None
    stock_quantity: Stock = 0


class BookChanges(Struct, frozen=True):
    """The fields of a book to be changed; those left out stay as they are."""

    title: Title | UnsetType = UNSET
    author: Author | UnsetType = UNSET
    published_date: datetime.date | UnsetType | None = UNSET
    isbn: Isbn | UnsetType | None = UNSET
    stock_quantity: Stock | UnsetType = UNSET


class EditBook(Command[BookDocument | None]):
    """Changes the book of this title; the result is the book as it is now, None if there is none."""

    title: str
    changes: BookChanges


class DeleteBook(Command[bool]):
    """Deletes the book of this title; the result says whether there was one."""

    title: str


class GetBook(Query[Document[BookDocument]]):
    """The book of this title."""

    title: str


class ListBooks(Query[Page[BookDocument]]):
    """A page of the catalogue, by title."""

    limit: int = 50
    after: str | None = None
