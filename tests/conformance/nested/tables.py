"""A schema with every sort of link between rows, and the links as the oracle of nested fields follows them."""

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import code_point_text


class Base(DeclarativeBase):
    pass


class Kind(enum.Enum):
    """Neither the declaration nor the values are in the order of the names, by which lists are sorted."""

    BETA = "1"
    GAMMA = "2"
    ALPHA = "3"


def linked_to(column: str, *, ends: str = "CASCADE", **given: Any) -> Any:
    given = {"index": not given.get("unique"), **given}
    return mapped_column(sa.ForeignKey(column, ondelete=ends, onupdate="CASCADE"), **given)


class Publisher(Base):
    __tablename__ = "publishers"

    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(40))
    kind: Mapped[Kind | None]
    books: Mapped[list[Book]] = relationship(back_populates="publisher", passive_deletes=True)


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40), unique=True)
    mass: Mapped[Decimal | None] = mapped_column(sa.Numeric(38, 0))


book_tags = sa.Table(
    "book_tags",
    Base.metadata,
    sa.Column("book_id", sa.ForeignKey("books.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
)
# Without a key: a pair may be there several times, and either side may be null.
book_marks = sa.Table(
    "book_marks",
    Base.metadata,
    sa.Column("book_id", sa.ForeignKey("books.id", ondelete="CASCADE", onupdate="CASCADE"), index=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id", ondelete="SET NULL", onupdate="CASCADE"), index=True),
)


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(code_point_text(20), unique=True)
    uid: Mapped[uuid.UUID | None] = mapped_column(unique=True)
    title: Mapped[str | None] = mapped_column(sa.String(40))
    kind: Mapped[Kind | None]
    pages: Mapped[int | None] = mapped_column(sa.BigInteger)
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    day: Mapped[datetime.date]
    opened: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    active: Mapped[bool]
    # A whole number that links to one of another width.
    publisher_id: Mapped[int | None] = mapped_column(
        sa.Integer, sa.ForeignKey(Publisher.id, ondelete="SET NULL", onupdate="CASCADE"), index=True
    )
    sequel_to_id: Mapped[int | None] = linked_to("books.id", ends="SET NULL")
    publisher: Mapped[Publisher | None] = relationship(back_populates="books")
    sequel_to: Mapped[Book | None] = relationship(
        remote_side=[id], back_populates="sequels", post_update=True
    )
    sequels: Mapped[list[Book]] = relationship(
        back_populates="sequel_to", passive_deletes=True, post_update=True
    )
    cover: Mapped[Cover | None] = relationship(back_populates="book", passive_deletes=True)
    chapters: Mapped[list[Chapter]] = relationship(back_populates="book", passive_deletes=True)
    notes: Mapped[list[Note]] = relationship(back_populates="book", passive_deletes=True)
    seals: Mapped[list[Seal]] = relationship(passive_deletes=True)
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags, passive_deletes=True)
    marks: Mapped[list[Tag]] = relationship(secondary=book_marks, viewonly=True)
    credits: Mapped[list[Credit]] = relationship(back_populates="book", passive_deletes=True)
    writers: Mapped[list[Writer]] = relationship(secondary="credits", viewonly=True)


class Cover(Base):
    __tablename__ = "covers"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = linked_to("books.id", unique=True)
    text: Mapped[str] = mapped_column(sa.String(40))
    book: Mapped[Book] = relationship(back_populates="cover")


class Chapter(Base):
    __tablename__ = "chapters"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int | None] = linked_to("books.id")
    number: Mapped[int | None]
    title: Mapped[str | None] = mapped_column(sa.String(40))
    weight: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    ratio: Mapped[Decimal | None] = mapped_column(sa.Numeric())
    big: Mapped[int | None] = mapped_column(sa.BigInteger)
    kind: Mapped[Kind | None]
    started: Mapped[datetime.datetime | None]
    flag: Mapped[bool]
    book: Mapped[Book | None] = relationship(back_populates="chapters")
    sections: Mapped[list[Section]] = relationship(back_populates="chapter", passive_deletes=True)


class Section(Base):
    __tablename__ = "sections"

    id: Mapped[int] = mapped_column(primary_key=True)
    chapter_id: Mapped[int] = linked_to("chapters.id")
    size: Mapped[int | None]
    text: Mapped[str] = mapped_column(sa.String(40))
    chapter: Mapped[Chapter] = relationship(back_populates="sections")


class Writer(Base):
    __tablename__ = "writers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40))
    level: Mapped[int] = mapped_column(sa.SmallInteger)
    credits: Mapped[list[Credit]] = relationship(back_populates="writer", passive_deletes=True)
    books: Mapped[list[Book]] = relationship(secondary="credits", viewonly=True)


class Credit(Base):
    __tablename__ = "credits"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = linked_to("books.id")
    writer_id: Mapped[int | None] = linked_to("writers.id", ends="SET NULL")
    share: Mapped[Decimal] = mapped_column(sa.Numeric(9, 4))
    role: Mapped[Kind]
    book: Mapped[Book] = relationship(back_populates="credits")
    writer: Mapped[Writer | None] = relationship(back_populates="credits")


class Note(Base):
    """Linked by a text of another collation than the book's."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_code: Mapped[str] = mapped_column(
        sa.String(20), sa.ForeignKey("books.code", ondelete="CASCADE", onupdate="CASCADE"), index=True
    )
    text: Mapped[str | None] = mapped_column(sa.String(40))
    size: Mapped[int] = mapped_column(sa.BigInteger)
    book: Mapped[Book] = relationship(back_populates="notes")


class Seal(Base):
    __tablename__ = "seals"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_uid: Mapped[uuid.UUID | None] = linked_to("books.uid", ends="SET NULL")
    value: Mapped[int]


MODELS: tuple[Any, ...] = (Publisher, Tag, Book, Cover, Chapter, Section, Writer, Credit, Note, Seal)
"""The mapped classes, those that others refer to first."""

LINKS = (book_tags, book_marks)


class Rel(NamedTuple):
    """A relationship: ``near`` of the ``target``, or of the linking table ``through``, equals ``local``."""

    target: Any
    local: str
    near: str
    is_collection: bool = True
    through: str = ""
    far: str = ""


_BOOK, _TAG = "book_id", "tag_id"
RELS: dict[Any, dict[str, Rel]] = {
    Publisher: {"books": Rel(Book, "id", "publisher_id")},
    Tag: {},
    Book: {
        "publisher": Rel(Publisher, "publisher_id", "id", is_collection=False),
        "sequel_to": Rel(Book, "sequel_to_id", "id", is_collection=False),
        "sequels": Rel(Book, "id", "sequel_to_id"),
        "cover": Rel(Cover, "id", _BOOK, is_collection=False),
        "chapters": Rel(Chapter, "id", _BOOK),
        "notes": Rel(Note, "code", "book_code"),
        "seals": Rel(Seal, "uid", "book_uid"),
        "tags": Rel(Tag, "id", _BOOK, through="book_tags", far=_TAG),
        "marks": Rel(Tag, "id", _BOOK, through="book_marks", far=_TAG),
        "credits": Rel(Credit, "id", _BOOK),
        "writers": Rel(Writer, "id", _BOOK, through="credits", far="writer_id"),
    },
    Cover: {"book": Rel(Book, _BOOK, "id", is_collection=False)},
    Chapter: {
        "book": Rel(Book, _BOOK, "id", is_collection=False),
        "sections": Rel(Section, "id", "chapter_id"),
    },
    Section: {"chapter": Rel(Chapter, "chapter_id", "id", is_collection=False)},
    Writer: {
        "credits": Rel(Credit, "id", "writer_id"),
        "books": Rel(Book, "id", "writer_id", through="credits", far=_BOOK),
    },
    Credit: {
        "book": Rel(Book, _BOOK, "id", is_collection=False),
        "writer": Rel(Writer, "writer_id", "id", is_collection=False),
    },
    Note: {"book": Rel(Book, "book_code", "code", is_collection=False)},
    Seal: {},
}


def columns_of(model: Any) -> dict[str, Any]:
    """The columns of a class by name."""
    return dict(model.__table__.columns.items())


def type_of(column: Any) -> Any:
    """The type of a document's field with the values of this column."""
    kind = column.type.python_type
    return kind | None if column.nullable else kind
