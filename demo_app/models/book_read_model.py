"""The read models of the catalogue."""

from __future__ import annotations

import datetime

from msgspec import Struct

from demo_app.models.book import Book, Review, Tag
from diptych import ReadModel, average, by, count, each, field, many


class BookDocument(Struct, frozen=True):
    """A book in lists and in answers to commands, as JSON.

    `tags` are sorted by name; `rating` is the average of the stars with two decimal places, None without reviews.
    """

    id: int
    title: str
    author: str
    published_date: datetime.date | None
    isbn: str | None
    stock_quantity: int
    tags: list[str] = []
    review_count: int = 0
    rating: float | None = None


class ReviewDocument(Struct, frozen=True):
    """A review in the document of its book."""

    id: int
    stars: int
    text: str


class BookDetailDocument(BookDocument, frozen=True):
    """A book by itself, with its newest reviews."""

    reviews: list[ReviewDocument] = []


class TagDocument(Struct, frozen=True):
    """A tag, with the number of its books."""

    name: str
    books: int


_BOOK = {
    "tags": many(Book.tags, Tag.name, order=Tag.name),
    "review_count": count(Book.reviews),
    "rating": average(Book.reviews, Review.stars, places=2),
}
_TAGGED = each(Book.tags, Tag.name)
_NEWEST = Book.published_date.desc().nulls_last()
_BEST = field("rating").desc().nulls_last()


class BookReadModel(ReadModel[Book]):
    """A document for each book, for lists."""

    key = Book.title
    document = BookDocument
    nested = _BOOK
    lists = (
        by(Book.title),
        by(Book.author, Book.title),
        by(Book.search_title, name="search"),
        by(Book.author, Book.search_title, name="author_search"),
        by(_NEWEST, name="newest"),
        by(Book.author, _NEWEST, name="author_newest"),
        by(_BEST, name="best"),
        by(_TAGGED, Book.title, name="tagged"),
        by(_TAGGED, _NEWEST, name="tagged_newest"),
        by(_TAGGED, _BEST, name="tagged_best"),
    )


class BookDetailReadModel(ReadModel[Book]):
    """A document for each book with its newest five reviews, found by title."""

    key = Book.title
    document = BookDetailDocument
    nested = _BOOK | {"reviews": many(Book.reviews, order=Review.id.desc(), limit=5)}


class TagReadModel(ReadModel[Tag]):
    """A document for each tag."""

    key = Tag.name
    document = TagDocument
    nested = {"books": count(Tag.books)}  # noqa: RUF012
    lists = (by(field("books").desc(), name="most"),)
