"""The read model of the catalogue."""

from __future__ import annotations

import datetime

from msgspec import Struct

from demo_app.models.book import Book
from diptych import ReadModel, by


class BookDocument(Struct, frozen=True):
    """A book in answers, as JSON."""

    id: int
    title: str
    author: str
    published_date: datetime.date | None
    isbn: str | None
    stock_quantity: int


class BookReadModel(ReadModel[Book]):
    """A document for each book, found by title."""

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
