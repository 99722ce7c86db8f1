"""What a list with an ``each`` is called and refused for, and what makes another read model of it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from diptych import ReadModel, WiringError, by, code_point_text, each, join
from diptych.log import Change
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import packed, unpacked
from diptych.sql.registry import EntityRegistry
from diptych.sql.schema.relationships import link_of

DIALECT = postgresql.asyncpg.dialect()


class Base(DeclarativeBase):
    pass


book_tags = sa.Table(
    "book_tags",
    Base.metadata,
    sa.Column("book_id", sa.ForeignKey("books.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True),
)
loose_tags = sa.Table(
    "loose_tags", Base.metadata, sa.Column("book_id", sa.Integer), sa.Column("tag_id", sa.Integer)
)


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    blob: Mapped[bytes | None]


class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship(back_populates="shelf")


class Page(Base):
    __tablename__ = "pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"))
    loose_id: Mapped[int]
    big_id: Mapped[str | None]
    number: Mapped[int]
    is_shown: Mapped[bool]


class Other(Base):
    """Linked by two columns."""

    __tablename__ = "others"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int]
    book_title: Mapped[str]
    at: Mapped[datetime.date]


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(40), unique=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelves.id"))
    shelf: Mapped[Shelf] = relationship(back_populates="books")
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    loose_tags: Mapped[list[Tag]] = relationship(
        secondary=loose_tags,
        primaryjoin=lambda: Book.id == foreign(loose_tags.c.book_id),
        secondaryjoin=lambda: Tag.id == foreign(loose_tags.c.tag_id),
    )
    pages: Mapped[list[Page]] = relationship()
    shown_pages: Mapped[list[Page]] = relationship(
        primaryjoin=lambda: (Book.id == Page.book_id) & Page.is_shown.is_(True), viewonly=True
    )
    loose_pages: Mapped[list[Page]] = relationship(
        primaryjoin=lambda: Book.id == foreign(Page.loose_id), viewonly=True
    )
    big_pages: Mapped[list[Page]] = relationship(
        primaryjoin=lambda: Book.id == sa.cast(foreign(Page.big_id), sa.Integer), viewonly=True
    )
    others: Mapped[list[Other]] = relationship(
        primaryjoin=lambda: (Book.id == foreign(Other.book_id)) & (Book.title == foreign(Other.book_title)),
        viewonly=True,
    )


class BookDocument(Struct):
    id: int


ENTITIES = EntityRegistry("postgresql")


def compiled(lists: Sequence[Any], **more: Any) -> CompiledReadModel:
    document = more.pop("document", BookDocument)
    declared = {"key": Book.id, "document": document, "lists": tuple(lists), **more}
    model: Any = type("Books", (ReadModel,), declared)
    joined = {one: ENTITIES.of(one).describe(DIALECT) for one in joined_models(model)}
    return CompiledReadModel(model, ENTITIES.of(Book).describe(DIALECT), joined)


def test_it_is_shown_as_it_was_written():
    assert str(by(each(Book.tags, Tag.name), Book.title)) == "by(each(tags, name), title)"
    assert by(each(Book.tags, Tag.name), Book.title).name == "tags,title"
    assert str(by(each(Book.tags, Tag.name), name="tagged")) == "by(each(tags, name), name='tagged')"
    assert by(each(Book.tags, Tag.name)).selects_as(by(each(Book.tags, Tag.name), name="other"))
    assert not by(each(Book.tags, Tag.name)).selects_as(by(each(Book.tags, Tag.id)))


REFUSED = {
    "no relationship": ([by(each(Book.title, Tag.name))], "'title' is no relationship of Book"),
    "no attribute": (
        [by(each("tags", Tag.name))],
        "'tags' is no mapped attribute: `each` takes a rel",
    ),
    "of another class": (
        [by(each(Shelf.books, Book.title))],
        "'books' is of Shelf: `each` takes a rel",
    ),
    "one row": ([by(each(Book.shelf, Shelf.name))], "'shelf' is one Shelf and no collection: .* `joined`"),
    "a column of another class": (
        [by(each(Book.tags, Page.number))],
        "'number' is of Page: 'tags' has elements",
    ),
    "a direction": (
        [by(each(Book.tags, Tag.name.desc()))],
        "is no mapped attribute: 'tags' has elements of Tag",
    ),
    "no column": ([by(each(Book.tags, "name"))], "'name' is no mapped attribute"),
    "a type without an order": (
        [by(each(Book.tags, Tag.blob))],
        "Tag.blob must be of one of the types str, int",
    ),
    "two of them": (
        [by(each(Book.tags, Tag.name), each(Book.pages, Page.number))],
        "a list has one `each` at most",
    ),
    "a condition": (
        [by(each(Book.shown_pages, Page.number))],
        "'shown_pages' is not joined by one pair",
    ),
    "two columns": ([by(each(Book.others, Other.at))], "'others' is not joined by one pair"),
    "an expression": ([by(each(Book.big_pages, Page.number))], "'big_pages' is not joined by one pair"),
    "no foreign key": (
        [by(each(Book.loose_pages, Page.number))],
        "Page.loose_id, which links rows, must be in",
    ),
    "a relationship of elements": ([by(each(Shelf.books, Book.tags))], "'books' is of Shelf"),
    "the same name twice": (
        [by(Book.title), by(each(Book.tags, Tag.name), name="title")],
        "2 lists are called 'title'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_served_is_refused_by_name(what):
    lists, problem = REFUSED[what]
    with pytest.raises(WiringError, match=problem) as refused:
        compiled(lists)
    assert "Books: " in str(refused.value)


def test_a_joined_field_is_not_called_like_the_relationship():
    class Document(Struct):
        id: int
        tags: str | None

    joined = {"tags": join(Shelf.name, Book.shelf_id, Shelf.id)}
    with pytest.raises(WiringError, match="'tags' is a field of `joined` too"):
        compiled([by(each(Book.tags, Tag.name))], document=Document, joined=joined)


def test_a_change_tells_whose_entries_it_alters():
    books = compiled([by(each(Book.tags, Tag.name)), by(each(Book.pages, Page.number))])
    [association] = [model for model in joined_models(books.model) if model.__name__ == "book_tags"]
    tag, page, link = (ENTITIES.of(model).describe(DIALECT) for model in (Tag, Page, association))
    assert books.tables == {"books", "tags", "pages", "book_tags"}
    assert books.is_joined
    before, after = {"book_id": 1, "tag_id": 2}, {"book_id": 3, "tag_id": 2}
    assert books.touched(Change(link, before, after)) == [("id", [1, 3])]
    assert books.touched(Change(tag, {"id": 2}, {"id": 4})) == [("tags", [2, 4])]
    assert books.touched(Change(page, {"id": 1, "book_id": 7}, None)) == [("id", [7])]
    assert books.touched(Change(page, None, {"id": 1, "book_id": None})) == []


def test_a_table_without_keys_links_by_its_two_columns():
    """A class is made for it once, and again for a copy of the table."""
    link = link_of(Book, "loose_tags")
    assert not isinstance(link, str)
    assert link.association is not None
    assert ENTITIES.of(link.association).entry_columns == ("book_id", "tag_id")
    assert link_of(Book, "loose_tags") == link
    assert compiled([by(each(Book.loose_tags, Tag.name))]).tables == {"books", "tags", "loose_tags"}
    copy = loose_tags.to_metadata(sa.MetaData())
    assert copy.info == loose_tags.info


def test_another_column_or_link_makes_another_read_model():
    given = [
        [by(Book.title)],
        [by(each(Book.tags, Tag.name), name="title")],
        [by(each(Book.loose_tags, Tag.name), name="title")],
        [by(each(Book.tags, Tag.id), name="title")],
        [by(each(Book.pages, Page.number), name="title")],
        [by(each(Book.tags, Tag.name), Book.title, name="title")],
    ]
    found = {compiled(lists).fingerprint for lists in given}
    assert len(found) == len(given)
    assert compiled(given[1]).fingerprint == compiled(given[1]).fingerprint


def test_a_row_has_an_entry_for_each_value():
    [index] = compiled([by(each(Book.tags, Tag.name), Book.title)]).lists
    row = {"id": 1, "title": "Dune", "tags.name": ["sf", "war", "sf", None, object()]}
    entries = unpacked(index.entries(row, index.sort_key(row), b"1"))
    assert len(entries) == 2
    places = [index.place(index.cursor(index.sort_key_of(entry)))[1] for entry in entries]
    assert places == [("sf", "Dune", 1), ("war", "Dune", 1)]
    assert index.entries({**row, "tags.name": []}, b"place", b"1") == b""
    assert unpacked(packed([b"", b"a" * 300, b"b"])) == [b"", b"a" * 300, b"b"]
