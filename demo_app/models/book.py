"""The tables of books, their reviews and their tags, and the rules for the fields of each."""

from __future__ import annotations

import datetime
import re
import unicodedata
from typing import Annotated

from msgspec import Meta
from sqlalchemy import Column, Date, ForeignKey, Index, Integer, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates

from demo_app.models.folding import MAX_LENGTH, folded
from diptych import Rule, code_point_text


class Base(DeclarativeBase):
    """The declarative base of the catalogue."""


# With a book or a tag go its links, and with a book its reviews: the database does that.
book_tags = Table(
    "book_tags",
    Base.metadata,
    Column("book_id", ForeignKey("books.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True),
)
Index("ix_book_tags_tagged", book_tags.c.tag_id, book_tags.c.book_id)


class Tag(Base):
    """A tag that books have. It goes when no book has it any more."""

    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    books: Mapped[list[Book]] = relationship(secondary=book_tags, back_populates="tags")


class Review(Base):
    """What a reader says of a book, and how many stars the book gets for it."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"))
    stars: Mapped[int] = mapped_column(Integer)
    text: Mapped[str] = mapped_column(String(2000))


# The newest reviews of a book are read along this index, and its last ones are not looked at.
Index("ix_reviews_newest", Review.book_id, Review.id)


class Book(Base):
    """A book in stock."""

    __tablename__ = "books"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    author: Mapped[str] = mapped_column(code_point_text(200))
    published_date: Mapped[datetime.date | None] = mapped_column(Date)
    isbn: Mapped[str | None] = mapped_column(String(13), unique=True)
    stock_quantity: Mapped[int] = mapped_column(Integer, default=0)
    # The title as it is searched for. It is null for a title that another program has written.
    search_title: Mapped[str | None] = mapped_column(code_point_text(MAX_LENGTH))
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags, back_populates="books")
    reviews: Mapped[list[Review]] = relationship(cascade="all, delete-orphan", passive_deletes=True)

    @validates("title")
    def _fold(self, _: str, title: str) -> str:
        """Keeps `search_title` up to date, whether a title comes by `ORMService` or by a session."""
        self.search_title = folded(title)
        return title


# One index for each list of the read model, for pages from SQL, as `diptych check` proposes them for each database.
# That of the titles is their uniqueness.
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


def _line(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("must not contain control characters")
    return text


def _lines(text: str) -> str:
    text = text.replace("\r\n", "\n")  # a browser sends line ends of a text area in this way
    _line(text.replace("\n", " ").replace("\t", " "))
    return text


def _all_different(names: list[str]) -> list[str]:
    repeated = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if repeated is not None:
        raise ValueError(f"must not have the same name twice: “{repeated}”")
    return names


def _title(text: str) -> str:
    if text in (".", ".."):
        raise ValueError('must not be just "." or "..", which no URL can carry')
    return _line(text)


def _isbn(text: str) -> str:
    digits = text.replace("-", "")
    if not re.fullmatch(r"[0-9]{13}|[0-9]{9}[0-9X]", digits):
        raise ValueError("must have 13 digits, or 10 of which the last may be X")
    return digits


Title = Annotated[str, Meta(min_length=1, max_length=200), Rule(_title)]
Author = Annotated[str, Meta(min_length=1, max_length=200), Rule(_line)]
Isbn = Annotated[str, Rule(_isbn)]
Stock = Annotated[int, Meta(ge=0, le=2147483647)]
Stars = Annotated[int, Meta(ge=1, le=5)]
ReviewText = Annotated[str, Meta(min_length=1, max_length=2000), Rule(_lines)]
TagName = Annotated[str, Meta(min_length=1, max_length=200), Rule(_title)]
TagNames = Annotated[list[TagName], Meta(max_length=20), Rule(_all_different)]
