"""Commands and queries of the catalogue."""

from __future__ import annotations

import datetime
from typing import Annotated, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from demo_app.models.book import Author, Isbn, ReviewText, Stars, Stock, TagName, TagNames, Title
from demo_app.models.book_read_model import BookDetailDocument, BookDocument, TagDocument
from diptych import Command, Document, Page, Query, Rule

Limit = Annotated[int, Meta(ge=1, le=500)]

SORTS = ("title", "-published_date", "author", "-rating")
"""The orders of the catalogue."""


class AddBook(Command[int]):
    """Adds a book. The result is the id of the book."""

    title: Title
    author: Author
    published_date: datetime.date | None = None
    isbn: Isbn | None = None
    stock_quantity: Stock = 0


class EmptyBook(Struct, frozen=True):
    """The fields of a new book with what they start with: null where there is nothing yet."""

    title: str | None = None
    author: str | None = None
    published_date: datetime.date | None = None
    isbn: str | None = None
    stock_quantity: int = 0


class StartBook(Query[EmptyBook]):
    """Asks for the fields of a new book."""


class BookChanges(Struct, frozen=True):
    """New values for fields of a book; fields left out stay as before."""

    title: Title | UnsetType = UNSET
    author: Author | UnsetType = UNSET
    published_date: datetime.date | UnsetType | None = UNSET
    isbn: Isbn | UnsetType | None = UNSET
    stock_quantity: Stock | UnsetType = UNSET


class EditBook(Command[BookDocument | None]):
    """Changes the book of this title. The result is the changed book; None without such a book."""

    title: str
    changes: BookChanges


class DeleteBook(Command[bool]):
    """Deletes the book of this title. The result is True if there was such a book."""

    title: str


class NewReview(Struct, frozen=True):
    """The fields of a review."""

    stars: Stars
    text: ReviewText


class AddedReview(NamedTuple):
    """The id of a review, and its book."""

    id: int
    book: BookDocument


class AddReview(Command[AddedReview | None]):
    """Adds a review to the book of this title. The result is None without such a book."""

    title: str
    review: NewReview


ReviewId = Annotated[int, Meta(ge=1, le=2_147_483_647)]


class DeleteReview(Command[bool]):
    """Deletes a review. The result is True if the book of this title had it."""

    title: str
    review_id: ReviewId


class BookTags(Struct, frozen=True):
    """The tags of a book, each by its name."""

    tags: TagNames


class SetTags(Command[BookDocument | None]):
    """Gives the book of this title these tags and no others. The result is the book; None without such a book."""

    title: str
    tags: BookTags


class TagChanges(Struct, frozen=True):
    """The new name of a tag."""

    name: TagName


class RenameTag(Command[TagDocument | None]):
    """Gives the tag of this name another one, in all books. The result is the tag; None without such a tag."""

    name: str
    changes: TagChanges


class GetBook(Query[Document[BookDetailDocument]]):
    """Asks for the book of this title."""

    title: str


class GetTag(Query[Document[TagDocument]]):
    """Asks for the tag of this name."""

    name: str


class ListTags(Query[Page[TagDocument]]):
    """Asks for a page of the tags, those of most books first."""

    limit: Limit = 50
    after: str | None = None
    before: str | None = None
    count: bool = False


def _sort(text: str) -> str:
    if text not in SORTS:
        raise ValueError(f"must be one of {', '.join(SORTS)}")
    return text


Sort = Annotated[str, Rule(_sort), Meta(extra_json_schema={"enum": list(SORTS)})]


class ListBooks(Query[Page[BookDocument]]):
    """Asks for a page of the catalogue.

    `title` is the beginning of a title, in any case and with or without accents. What can be asked for together is in
    `handlers/book_lists.py`.
    """

    limit: Limit = 50
    after: str | None = None
    before: str | None = None
    author: str | None = None
    title: str | None = None
    tag: str | None = None
    published_from: datetime.date | None = None
    published_to: datetime.date | None = None
    sort: Sort = "title"
    count: bool = False
