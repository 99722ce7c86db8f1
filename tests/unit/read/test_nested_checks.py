"""What nested fields are refused for at start, and which unusual declarations are none of that."""

# ruff: noqa: E501 - a fault is a sentence, and is here in one piece

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any, Generic, Optional, TypeVar

import pytest
import sqlalchemy as sa
from msgspec import Meta, Struct, defstruct
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship, remote

from diptych import (
    ReadModel,
    WiringError,
    average,
    by,
    code_point_text,
    computed,
    count,
    each,
    field,
    join,
    many,
    maximum,
    minimum,
    one,
    total,
)
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.read.set_aside import Misfit, misfit_of
from diptych.sql.description import Unreadable
from diptych.sql.registry import EntityRegistry

DIALECT = postgresql.asyncpg.dialect()


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "red"


class Folded(sa.TypeDecorator[str]):
    """Text of the application's own making."""

    impl = sa.String
    cache_ok = True


book_tags = sa.Table(
    "book_tags",
    Base.metadata,
    sa.Column("book_id", sa.ForeignKey("books.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True),
)
similar = sa.Table(
    "similar_books",
    Base.metadata,
    sa.Column("left_id", sa.ForeignKey("books.id"), primary_key=True),
    sa.Column("right_id", sa.ForeignKey("books.id"), primary_key=True),
)
loose_tags = sa.Table(
    "loose_tags", Base.metadata, sa.Column("book_id", sa.Integer), sa.Column("tag_id", sa.Integer)
)


class Publisher(Base):
    __tablename__ = "publishers"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    seal: Mapped[bytes | None]
    books: Mapped[list[Book]] = relationship(back_populates="publisher")


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    code: Mapped[str | None] = mapped_column(sa.CHAR(4))


class Cover(Base):
    """One to one."""

    __tablename__ = "covers"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), unique=True)
    colour: Mapped[Colour] = mapped_column(sa.Enum(Colour, native_enum=False))


class Copy(Base):
    """One to one by the mapping, and several in the database."""

    __tablename__ = "copies"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), index=True)
    folded_id: Mapped[str] = mapped_column(Folded(40))
    loose_id: Mapped[int]
    text_id: Mapped[str] = mapped_column(code_point_text(40), unique=True)


class Review(Base):
    """An association with columns of its own, of a composite key."""

    __tablename__ = "reviews"

    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    stars: Mapped[int]
    weight: Mapped[float]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    text: Mapped[str | None]
    folded: Mapped[str] = mapped_column(Folded(40))
    written: Mapped[datetime.date]
    seal: Mapped[bytes]
    tag_id: Mapped[int] = mapped_column(sa.ForeignKey("tags.id"), index=True)
    tag: Mapped[Tag] = relationship()

    @hybrid_property
    def shout(self) -> str:
        return self.folded


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    isbn: Mapped[str | None] = mapped_column(code_point_text(40), unique=True)
    title: Mapped[str] = mapped_column(code_point_text(40))
    publisher_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey(Publisher.id), index=True)
    sequel_to_id: Mapped[int | None] = mapped_column(sa.ForeignKey("books.id"), index=True)
    publisher: Mapped[Publisher | None] = relationship(back_populates="books")
    sequel_to: Mapped[Book | None] = relationship(remote_side=[id], back_populates="sequels")
    sequels: Mapped[list[Book]] = relationship(back_populates="sequel_to")
    similar: Mapped[list[Book]] = relationship(
        secondary=similar,
        primaryjoin=lambda: Book.id == similar.c.left_id,
        secondaryjoin=lambda: Book.id == similar.c.right_id,
    )
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    first_tag: Mapped[Tag | None] = relationship(secondary=book_tags, viewonly=True)
    best: Mapped[list[Review]] = relationship(order_by="Review.stars.desc()", viewonly=True)
    loose_tags: Mapped[list[Tag]] = relationship(
        secondary=loose_tags,
        primaryjoin=lambda: Book.id == foreign(loose_tags.c.book_id),
        secondaryjoin=lambda: Tag.id == foreign(loose_tags.c.tag_id),
    )
    cover: Mapped[Cover | None] = relationship()
    copy: Mapped[Copy | None] = relationship()
    reviews: Mapped[list[Review]] = relationship()
    good_reviews: Mapped[list[Review]] = relationship(
        primaryjoin=lambda: (Book.id == Review.book_id) & (Review.stars > 3), viewonly=True
    )
    loose_copies: Mapped[list[Copy]] = relationship(
        primaryjoin=lambda: Book.id == foreign(Copy.loose_id), viewonly=True
    )
    folded_copies: Mapped[list[Copy]] = relationship(
        primaryjoin=lambda: Book.isbn == foreign(Copy.folded_id), viewonly=True
    )
    typed_copies: Mapped[list[Copy]] = relationship(
        primaryjoin=lambda: Book.id == remote(foreign(Copy.text_id)), viewonly=True
    )

    @hybrid_property
    def shout(self) -> str:
        return self.title


class ReviewDocument(Struct):
    stars: int


class TagDocument(Struct):
    name: str


T = TypeVar("T")


class Named(Struct, Generic[T]):
    name: T


class PublisherDocument(Struct):
    name: str


class Before(Struct):
    title: str
    sequel_to: Before | None


class Tree(Struct):
    title: str
    found: tuple[Tree, ...]


class Chain(Struct):
    title: str
    found: Chain | None


class Stars(enum.IntEnum):
    ONE = 1


ENTITIES = EntityRegistry("postgresql")


def compiled(nested: Any, hints: dict[str, Any], lists: Any = (), joined: Any = None) -> CompiledReadModel:
    """The read model of books whose document has these fields beside the title."""
    document = defstruct("BookDocument", [("title", str), *hints.items()], module=__name__)
    declared = {"key": Book.id, "document": document, "nested": nested, "lists": tuple(lists)}
    model: Any = type("Books", (ReadModel,), {**declared, "joined": joined or {}})
    entities = {one: ENTITIES.of(one).describe(DIALECT) for one in joined_models(model)}
    return CompiledReadModel(model, ENTITIES.of(Book).describe(DIALECT), entities)


def problems_of(*arguments: Any, **more: Any) -> list[str]:
    with pytest.raises(WiringError) as caught:
        compiled(*arguments, **more)
    return [problem.removeprefix("Books: ") for problem in caught.value.problems]


def plain(*values: Any) -> str:
    return str(values)


def anything(value: Any) -> Any:
    """What a type checker would refuse."""
    return value


async def awaited(title: str) -> str:
    return title


FIELD: list[tuple[str, Any, Any, str]] = [
    # What is declared, its type in the document, and why it is refused.
    ("no declaration", Book.reviews, list[ReviewDocument], "must be made by one, many, count, total, average, minimum, maximum or computed; a column of the class needs no declaration"),
    # Computed
    ("no function", computed(anything("label"), Book.title), str, "is computed by what is no function: computed(label_of, Book.title)"),
    ("a coroutine", computed(awaited, Book.title), str, "is computed by an asynchronous function, which would have no value: make it a plain one"),
    ("too many arguments", computed(lambda title: title, Book.title, Book.id), str, "is computed from 2 columns, which its function does not take: too many positional arguments"),
    ("too few arguments", computed(lambda title, year: title, Book.title), str, "is computed from 1 columns, which its function does not take: missing a required argument: 'year'"),
    ("no column", computed(plain), str, "is computed from no column: a field without a column is the same for all rows"),
    ("a name", computed(plain, "title"), str, "is computed from 'title', which is no mapped attribute of Book"),
    ("another class", computed(plain, Tag.name), str, "is computed from Tag.name, which is no mapped attribute of Book"),
    ("a relationship", computed(plain, Book.tags), str, "is computed from 'tags', which is not a mapped column of Book; its columns are: id, isbn, title, publisher_id, sequel_to_id"),
    ("a hybrid", computed(plain, Book.shout), str, "is computed from 'shout', which is not a mapped column of Book; its columns are: id, isbn, title, publisher_id, sequel_to_id"),
    # Relationships
    ("a name", many("reviews"), list[ReviewDocument], "can't be followed: 'reviews' is no mapped attribute: write a relationship with its class, such as Book.reviews"),
    ("a column", count(Book.title), int, "can't be followed: 'title' is no relationship of Book, as Book.tags would be"),
    ("a hybrid", count(Book.shout), int, "can't be followed: 'shout' is no relationship of Book, as Book.tags would be"),
    ("a class", count(Book), int, f"can't be followed: {Book!r} is no mapped attribute: write a relationship with its class, such as Book.reviews"),
    ("a condition in the join", count(Book.good_reviews), int, "can't be followed: 'good_reviews' is not joined by one pair of equal columns alone: what can be followed is one foreign key of one column to either side. Add a relationship that is joined so, with viewonly=True if there is another"),
    ("a relationship with a condition", many(Book.reviews.and_(Review.stars > 3)), list[ReviewDocument], "can't be followed: Book.reviews has something added: name the relationship itself, and choose its rows by `where=`"),
    ("of another class", count(Publisher.books), int, "starts at Publisher.books, which is no relationship of Book"),
    ("one row counted", count(Book.publisher), int, "is of one Publisher and no collection: declare it by one(Book.publisher)"),
    ("one row as many", many(Book.publisher), list[PublisherDocument], "is of one Publisher and no collection: declare it by one(Book.publisher)"),
    ("many as one row", one(Book.reviews), ReviewDocument | None, "is the first of several Review: say in which order, one(Book.reviews, order=Review.….desc())"),
    ("an empty order", one(Book.reviews, order=()), ReviewDocument | None, "is the first of several Review: say in which order, one(Book.reviews, order=Review.….desc())"),
    ("a depth elsewhere", many(Book.reviews, depth=2), list[ReviewDocument], "has a depth, which is for a relationship of Book to itself"),
    ("one by the mapping alone", one(Book.copy, Copy.id), int | None, "is one Copy by the mapping, of which the database may have several: Copy.book_id must be unique by itself, in the database too (unique=True or the primary key, not deferrable); or say in which order it is the first, order=…"),
    ("one of many to many", one(Book.first_tag, Tag.name), str | None, "is one Tag by the mapping, of which the database may have several: say in which order it is the first, order=…"),
    # Linking columns
    ("not in the log", count(Book.loose_copies), int, "is linked by Copy.loose_id, which must be in the entries of the change log: make it a foreign key, or unique"),
    ("an unknown type", count(Book.folded_copies), int, "is linked by Copy.folded_id, which must be compared byte for byte, and is of the type Folded: make it text of a deterministic collation (see code_point_text), a number, a date or a UUID"),
    ("of two types", count(Book.typed_copies), int, "is linked by Book.id and Copy.text_id, of different types"),
    # Arguments
    ("no column", total(Book.reviews, None), int, "needs a column of Review"),
    ("a column by its name", total(Book.reviews, "stars"), int, "takes 'stars', which is no mapped attribute of Review"),
    ("an expression", total(Book.reviews, Review.stars * Review.number), int, "takes `reviews.stars * reviews.number`, which is no mapped attribute of Review: let the database compute a column of it, and name that column"),
    ("a function of a column", maximum(Book.reviews, sa.func.length(Review.text)), int | None, "takes `length(reviews.text)`, which is no mapped attribute of Review: let the database compute a column of it, and name that column"),
    ("a column of another class", many(Book.reviews, Tag.name), list[str], "takes Tag.name, which is no mapped attribute of Review"),
    ("a relationship as column", many(Book.reviews, Review.tag), list[str], "takes 'tag', which is not a mapped column of Review; its columns are: book_id, number, stars, weight, price, text, folded, written, seal, tag_id"),
    ("a hybrid as column", many(Book.reviews, Review.shout), list[str], "takes 'shout', which is not a mapped column of Review; its columns are: book_id, number, stars, weight, price, text, folded, written, seal, tag_id"),
    ("ordered by a name", many(Book.reviews, order="stars"), list[ReviewDocument], "is in the order of 'stars', which is no mapped attribute of Review: order=Review.….desc()"),
    ("ordered by a number", many(Book.reviews, order=1), list[ReviewDocument], "is in the order of '1', which is no mapped attribute of Review: order=Review.….desc()"),
    ("ordered by an expression", many(Book.reviews, order=Review.stars + 1), list[ReviewDocument], "is in the order of 'reviews.stars + :stars_1', which is no mapped attribute of Review: order=Review.….desc()"),
    ("ordered by another class", many(Book.reviews, order=Tag.name.desc()), list[ReviewDocument], "is in the order of 'name.desc()', which is no mapped attribute of Review: order=Review.….desc()"),
    ("ordered by a field", many(Book.reviews, order=field("stars")), list[ReviewDocument], "is in the order of \"field('stars')\", which is no mapped attribute of Review: order=Review.….desc()"),
    ("ordered by an order", many(Book.reviews, order=by(Review.stars)), list[ReviewDocument], "is in the order of 'by(stars)', which is no mapped attribute of Review: order=Review.….desc()"),
    ("ordered by the mapping", many(Book.best), list[ReviewDocument], "is in the order that the mapping gives Book.best (order_by), which documents do not follow: say the order here, order=Review.…"),
    ("ordered by elements", many(Book.sequels, order=each(Book.tags, Tag.name)), list[TagDocument], "is in the order of 'each(tags, name)', which is no mapped attribute of Book: order=Book.….desc()"),
    ("ordered by a relationship", many(Book.reviews, order=Review.tag), list[ReviewDocument], "is ordered by 'tag', which is not a mapped column of Review; its columns are: book_id, number, stars, weight, price, text, folded, written, seal, tag_id"),
    ("ordered by bytes", many(Book.reviews, order=Review.seal), list[ReviewDocument], "is ordered by 'seal', which must be of one of the types str, int, date, datetime, UUID, bool, float, Decimal, time, timedelta, or an enum"),
    ("ordered without blanks", many(Book.tags, order=Tag.code), list[TagDocument], "is ordered by 'code', which is of the type CHAR, which the database orders by rules of its own: make it text of a deterministic collation (see code_point_text), a number, a date or a UUID"),
    ("no limit", many(Book.reviews, limit=0), list[ReviewDocument], "has a limit that is no whole number from 1 to 1_000_000"),
    ("True as limit", many(Book.reviews, limit=True), list[ReviewDocument], "has a limit that is no whole number from 1 to 1_000_000"),
    ("a limit of text", many(Book.reviews, limit=anything("3")), list[ReviewDocument], "has a limit that is no whole number from 1 to 1_000_000"),
    ("no places", average(Book.reviews, Review.stars, places=anything(None)), Decimal | None, "needs places=, the number of decimal places, from 0 to 30"),
    ("too many places", average(Book.reviews, Review.stars, places=31), Decimal | None, "needs places=, the number of decimal places, from 0 to 30"),
    ("no depth", one(Book.sequel_to, depth=0), Before | None, "has a depth that is no whole number from 1 to 20"),
    ("True as depth", one(Book.sequel_to, depth=True), Before | None, "has a depth that is no whole number from 1 to 20"),
    ("too deep", one(Book.sequel_to, depth=21), Before | None, "has a depth that is no whole number from 1 to 20"),
    ("a column with a depth", one(Book.sequel_to, Book.title, depth=2), str | None, "has the values of a column, and so neither nested fields nor a depth"),
    ("a column with nested fields", many(Book.reviews, Review.stars, nested={"tag": one(Review.tag)}), list[int], "has the values of a column, and so neither nested fields nor a depth"),
    # Conditions
    ("a condition on another class", count(Book.reviews, where=Tag.name == "a"), int, "has a condition: `where` compares 'name' of Tag: conditions are over Review's own columns; keep what decides in a column of Review"),
    ("a constant of another type", count(Book.reviews, where=Review.stars == "many"), int, "has a condition: `where` compares 'stars', which can't hold the constant 'many': it must be a whole number"),
    # Types
    ("floats added up", total(Book.reviews, Review.weight), float, "adds up Review.weight, which must have whole numbers or be Numeric (with Decimal values): the sum of other numbers depends on the order of the rows"),
    ("a sum as text", total(Book.reviews, Review.stars), str, "is a whole number, which the document's field does not take"),
    ("decimals as whole numbers", total(Book.reviews, Review.price), int, "is a Decimal, which the document's field does not take"),
    ("an average as whole number", average(Book.reviews, Review.stars, places=1), int | None, "is a Decimal, which the document's field does not take"),
    ("a number as text", count(Book.reviews), str, "is a whole number, which the document's field does not take"),
    ("no average", average(Book.reviews, Review.stars, places=1), float, "is null where there is no row, but the document's field may not be: write `… | None`"),
    ("no greatest", maximum(Book.reviews, Review.stars), int, "is null where there is no row, but the document's field may not be: write `… | None`"),
    ("no row", one(Book.publisher), PublisherDocument, "is null where there is no row, but the document's field may not be: write `… | None`"),
    ("no value", one(Book.publisher, Publisher.name), str, "is null where there is no row, but the document's field may not be: write `… | None`"),
    ("one row as a list", one(Book.publisher), list[PublisherDocument] | None, "is one row: the document's field must be a struct or None, and no list"),
    ("a list as one row", many(Book.reviews), ReviewDocument | None, "is a list, which the document's field does not take: declare it as list[…]"),
    ("no struct", many(Book.reviews), list[int], "has documents of its own: declare the field with their struct, such as list[ReviewDocument], or name a column"),
    ("lists in a list", many(Book.tags), list[list[TagDocument]], "has documents of its own: declare the field with their struct, such as list[ReviewDocument], or name a column"),
    ("anything", one(Book.publisher), Any, "has documents of its own: declare the field with their struct, such as PublisherDocument | None, or name a column"),
    ("numbers as text", many(Book.reviews, Review.stars), list[str], "takes Review.stars, which has int values, and the document's field takes none of them"),
    ("numbers as text or nothing", many(Book.reviews, Review.stars), Annotated[list[str] | None, Meta(description="x")], "takes Review.stars, which has int values, and the document's field takes none of them"),
    ("nulls in a list", many(Book.reviews, Review.text), list[str], "takes Review.text, which may be null, but the document's field may not: write `… | None`"),
    ("the least of bytes", minimum(Book.reviews, Review.seal), bytes | None, "is ordered by 'seal', which must be of one of the types str, int, date, datetime, UUID, bool, float, Decimal, time, timedelta, or an enum"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "hint", "reason"), [each[1:] for each in FIELD], ids=[e[0] for e in FIELD]
)
def test_a_field_is_refused_with_its_reason(declared: Any, hint: Any, reason: str):
    found = problems_of({"found": declared}, {"found": hint})
    assert found == [f"`nested`: 'found' {reason}"]


class Array(Struct, array_like=True):
    stars: int


class Unmapped(Struct):
    stars: int
    votes: int


class Wrong(Struct):
    stars: str
    text: str
    tag: TagDocument | None


class Childless(Struct):
    title: str


class Endless(Struct):
    title: str
    sequel_to: Endless


class Listed(Struct):
    title: str
    sequel_to: list[Listed] | None


class Second(Struct):
    nothing: int
    sequel_to: Second | None


class First(Struct):
    title: str
    sequel_to: Second | None


class Bare(Struct):
    title: str
    found: list[Bare] | None = None


def test_documents_in_documents_are_refused_with_their_place():
    many_reviews = many(Book.reviews, nested={"tag": one(Review.tag)})
    assert problems_of({"reviews": many(Book.reviews)}, {"reviews": list[Unmapped]}) == [
        "`nested` of 'reviews': the field 'votes' of Unmapped is neither in `nested=` nor a column of Review; its "
        "columns are: book_id, number, stars, weight, price, text, folded, written, seal, tag_id"
    ]
    assert problems_of({"reviews": many_reviews}, {"reviews": list[Wrong]}) == [
        "`nested` of 'reviews': the field 'stars' of Wrong has the column Review.stars, which has int values, and the "
        "document's field takes none of them",
        "`nested` of 'reviews': the field 'text' of Wrong has the column Review.text, which may be null, but the "
        "document's field may not: write `… | None`",
    ]
    assert problems_of({"reviews": many_reviews}, {"reviews": list[ReviewDocument]}) == [
        "`nested` of 'reviews': 'tag' is not a field of ReviewDocument"
    ]
    assert problems_of({"tags": many(Book.tags)}, {"tags": list[Named[int]]}) == [
        "`nested` of 'tags': the field 'name' of Named has the column Tag.name, which has str values, and the "
        "document's field takes none of them"
    ]
    assert problems_of({"reviews": many(Book.reviews)}, {"reviews": list[Array]}) == [
        "`nested` of 'reviews': Array must not be array_like: its fields go out under their names"
    ]


def test_faults_of_the_form_deep_within_are_named_with_their_place():
    inner = many(Book.reviews, nested={"tag": many(Review.tag)})
    assert problems_of({"reviews": inner}, {"reviews": list[Wrong]}) == [
        "`nested` of 'reviews': 'tag' is of one Tag and no collection: declare it by one(Review.tag)"
    ]
    assert problems_of(
        {"reviews": many(Book.reviews, nested=anything([]))}, {"reviews": list[ReviewDocument]}
    ) == ["`nested` of 'reviews' must be a dict of the document's fields: {'reviews': many(Book.reviews)}"]
    again = one(Book.sequel_to, depth=2, nested={"sequel_to": one(Book.sequel_to)})
    assert problems_of({"sequel_to": again}, {"sequel_to": Before | None}) == [
        "`nested` of 'sequel_to': 'sequel_to' is there by its depth already: leave it out, or the depth"
    ]


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (Childless, " has a depth: Childless must have the field 'sequel_to' too, for the next row"),
        (
            Endless,
            ": 'sequel_to' is null below its depth, but the document's field may not be: write `… | None`",
        ),
        (Listed, ": 'sequel_to' is one row: the document's field must be a struct or None, and no list"),
        (
            First,
            " of 'sequel_to': the field 'nothing' of Second is neither in `nested=` nor a column of Book; its columns "
            "are: id, isbn, title, publisher_id, sequel_to_id",
        ),
    ],
)
def test_the_structs_on_the_way_of_a_depth_are_checked(hint: Any, reason: str):
    found = problems_of({"sequel_to": one(Book.sequel_to, depth=3)}, {"sequel_to": hint | None})
    assert found == [f"`nested` of 'sequel_to'{reason}"]


def test_fields_are_refused_that_are_something_else_already():
    assert problems_of([], {}) == [
        "`nested` must be a dict of the document's fields: {'reviews': many(Book.reviews)}"
    ]
    assert problems_of({"reviews": count(Book.reviews)}, {}) == [
        "`nested`: 'reviews' is not a field of BookDocument"
    ]
    assert problems_of({"isbn": count(Book.reviews)}, {"isbn": int}) == [
        "`nested`: 'isbn' is a column of Book too: give the document's field another name"
    ]
    joined = {"name": join(Tag.name, Book.id, Tag.id)}
    assert problems_of({"name": count(Book.reviews)}, {"name": int}, joined=joined)[0] == (
        "'name' is in `joined` and in `nested`: leave it in one of them"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "nope",
            "'nope' is in neither `nested` nor `joined`: `field` sorts by those, and a column by Book.title",
        ),
        (
            "title",
            "'title' is in neither `nested` nor `joined`: `field` sorts by those, and a column by Book.title",
        ),
        (
            "label",
            "'label' is computed by a function, which SQL does not know: sort by a column that commands fill",
        ),
        ("reviews", "'reviews' is no single value: sort by a number, or by one(…) of a column"),
        ("publisher", "'publisher' is no single value: sort by a number, or by one(…) of a column"),
        (
            "seal",
            "'seal' must be of one of the types str, int, date, datetime, UUID, bool, float, Decimal, time, timedelta, "
            "or an enum",
        ),
        (
            "code",
            "'code' is of the type CHAR, which the database orders by rules of its own: make it text of a "
            "deterministic collation (see code_point_text), a number, a date or a UUID",
        ),
    ],
)
def test_lists_are_in_the_order_of_single_values_alone(name: str, reason: str):
    nested = {
        "label": computed(plain, Book.title),
        "reviews": many(Book.reviews),
        "publisher": one(Book.publisher),
        "seal": one(Book.publisher, Publisher.seal),
        "code": one(Book.tags, Tag.code, order=Tag.id),
    }
    hints = {
        "label": str,
        "reviews": list[ReviewDocument],
        "publisher": PublisherDocument | None,
        "seal": bytes | None,
        "code": str | None,
    }
    order = by(field(name), name="found")
    assert problems_of(nested, hints, [order]) == [f"{order}: {reason}"]


class Renamed(Struct, rename={"stars": "*", "tag": "Tag"}):
    stars: int
    tag: TagDocument | None


ACCEPTED: list[tuple[str, Any, Any]] = [
    ("an Optional struct", one(Book.publisher), Optional[PublisherDocument]),  # noqa: UP045
    ("an annotated struct", one(Book.publisher), Annotated[PublisherDocument | None, Meta(title="p")]),
    ("a tuple", many(Book.reviews), tuple[ReviewDocument, ...]),
    ("a list or None", many(Book.reviews), list[ReviewDocument] | None),
    ("an annotated list", many(Book.reviews, Review.stars), Annotated[list[int], Meta(max_length=5)]),
    ("annotated items", many(Book.reviews, Review.stars), list[Annotated[int, Meta(ge=1)]]),
    ("a list of values or None", many(Book.reviews, Review.stars), Optional[list[int]]),  # noqa: UP045
    ("any list", many(Book.reviews, Review.stars), list),
    ("enums made of numbers", many(Book.reviews, Review.stars), list[Stars]),
    ("nulls in a list", many(Book.reviews, Review.text), tuple[str | None, ...]),
    ("nulls left out", many(Book.reviews, Review.written, where=Review.text.is_not(None)), list[datetime.date]),
    ("renamed fields", many(Book.reviews, nested={"tag": one(Review.tag)}), list[Renamed]),
    ("a UUID", one(Book.publisher, Publisher.id), uuid.UUID | None),
    ("the last date", maximum(Book.reviews, Review.written), datetime.date | None),
    ("an enum", one(Book.cover, Cover.colour), Colour | None),
    ("the first of several by the mapping", one(Book.copy, Copy.id, order=Copy.id), int | None),
    ("the first of many to many", one(Book.first_tag, Tag.name, order=Tag.name), str | None),
    ("a back reference", one(Book.sequels, Book.title, order=Book.id), str | None),
    ("one beyond another", one(Book.publisher, nested={"books": count(Publisher.books)}), defstruct("P", [("books", int)]) | None),
    ("a generic struct", many(Book.tags), list[Named[str]]),
    ("a tree", many(Book.sequels, depth=3), list[Tree]),
    ("a tree that ends with None or nothing", many(Book.sequels, depth=3), list[Bare]),
    ("many to many to itself", many(Book.similar, depth=2), list[Tree]),
    ("a chain of structs", one(Book.sequel_to, depth=1), Chain | None),
    ("a float of decimals", total(Book.reviews, Review.price), float),
    ("a sum within bounds", total(Book.reviews, Review.stars), Annotated[int, Meta(ge=5)]),
    ("whole numbers as Decimal", total(Book.reviews, Review.stars), Decimal),
    ("a class that is called", computed(str, Book.title), str),
    ("a function with a default", computed(lambda title, more="": title, Book.title), str),
    ("the order in both directions", many(Book.reviews, order=(Review.price.desc().nulls_last(), Review.number)), list[ReviewDocument]),
    ("an order as a list", many(Book.reviews, order=[Review.stars]), list[ReviewDocument]),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "hint"), [e[1:] for e in ACCEPTED], ids=[e[0] for e in ACCEPTED])
def test_an_unusual_declaration_is_none_of_that(declared: Any, hint: Any):
    model = compiled({"found": declared}, {"found": hint})
    assert [field.name for field in model.nested] + list(model.fields) == [
        *(["found"] if model.nested else []),
        "title",
        "found",
    ]


def test_the_order_of_the_mapping_is_no_matter_where_there_is_one_or_none_is_needed():
    fields: Any = {"a": many(Book.best, order=Review.stars), "b": count(Book.best)}
    assert len(compiled(fields, {"a": list[ReviewDocument], "b": int}).nested) == 2


def test_a_list_by_elements_and_a_field_of_one_name_is_refused():
    listed = [by(each(Book.tags, Tag.name), field("tags"), name="tagged")]
    with pytest.raises(WiringError, match="'tags' is a field that the list is ordered by, too"):
        compiled({"tags": count(Book.tags)}, {"tags": int}, listed)


def test_floats_that_are_loaded_as_decimals_are_not_added_up():
    """The databases would add up different numbers."""

    class Own(DeclarativeBase):
        pass

    class Shop(Own):
        __tablename__ = "shops"

        id: Mapped[int] = mapped_column(primary_key=True)
        sales: Mapped[list[Any]] = relationship("Sale")

    class Sale(Own):
        __tablename__ = "sales"

        id: Mapped[int] = mapped_column(primary_key=True)
        shop_id: Mapped[int] = mapped_column(sa.ForeignKey("shops.id"), index=True)
        price: Mapped[Decimal] = mapped_column(sa.Float(asdecimal=True))

    declared = {
        "key": Shop.id,
        "document": defstruct("ShopDocument", [("id", int), ("price", Decimal)]),
        "nested": {"price": total(Shop.sales, Sale.price)},
    }
    shops: Any = type("Shops", (ReadModel,), declared)
    classes: list[type] = [Shop, Sale]
    entities = {one: ENTITIES.of(one).describe(DIALECT) for one in classes}
    with pytest.raises(
        WiringError, match=r"adds up Sale\.price, which must have whole numbers or be Numeric"
    ):
        CompiledReadModel(shops, entities[Shop], entities)


@pytest.mark.parametrize("hint", [set[str], dict[str, frozenset[str]], list[set[int]] | None])
def test_a_set_anywhere_in_a_document_is_refused(hint: Any):
    """Its values are in another order in each process: the same document would have other bytes."""
    inner: Any = defstruct("Inner", [("values", hint)])
    for document in (hint, inner | None, list[inner]):
        with pytest.raises(WiringError, match="has a set, whose values are in another order in each process"):
            compiled({"found": computed(str, Book.title)}, {"found": document})


def test_a_list_by_elements_may_be_called_like_a_nested_field():
    listed = [by(each(Book.tags, Tag.name), Book.title, name="tagged")]
    model = compiled({"tags": many(Book.tags, Tag.name)}, {"tags": list[str]}, listed)
    assert [index.name for index in model.lists] == ["tagged"]


def test_the_reason_of_a_row_with_an_unreadable_value_in_a_nested_one_is_that_values_own():
    books = compiled({"found": many(Book.reviews)}, {"found": list[ReviewDocument]})
    row = {"id": 1, "title": "Dune", "found": [{"stars": 1}, {"stars": Unreadable("is no number")}]}
    assert misfit_of(books.body(row)) == Misfit("found", "is no number")
