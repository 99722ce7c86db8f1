"""Nested fields: documents of other rows, counts and sums, the same bytes from both stores and both databases."""

from __future__ import annotations

import decimal
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import (
    Diptych,
    Document,
    Page,
    Query,
    ReadModel,
    average,
    by,
    code_point_text,
    computed,
    count,
    field,
    many,
    maximum,
    minimum,
    one,
    total,
)
from tests.catalogue import answered_by
from tests.configuration import configured


class Base(DeclarativeBase):
    pass


class Publisher(Base):
    __tablename__ = "publishers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(50), unique=True)


book_tags = sa.Table(
    "book_tags",
    Base.metadata,
    sa.Column("book_id", sa.ForeignKey("books.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True),
)


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Review(Base):
    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey(User.id), index=True)
    stars: Mapped[int]
    text: Mapped[str] = mapped_column(sa.String(100), default="")
    user: Mapped[User | None] = relationship()


class Stock(Base):
    __tablename__ = "stock"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), index=True)
    quantity: Mapped[int]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    blocked: Mapped[bool] = mapped_column(default=False)


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    year: Mapped[int] = mapped_column(default=1965)
    publisher_id: Mapped[int | None] = mapped_column(sa.ForeignKey(Publisher.id), index=True)
    sequel_to_id: Mapped[int | None] = mapped_column(sa.ForeignKey("books.id"), index=True)
    publisher: Mapped[Publisher | None] = relationship()
    sequel_to: Mapped[Book | None] = relationship(remote_side=[id])
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    reviews: Mapped[list[Review]] = relationship()
    stock: Mapped[list[Stock]] = relationship()


class PublisherDocument(msgspec.Struct, rename="camel"):
    id: int
    name: str


class UserDocument(msgspec.Struct):
    name: str


class ReviewDocument(msgspec.Struct, rename={"text": "words"}):
    stars: int
    text: str
    user: UserDocument | None


class Before(msgspec.Struct):
    title: str
    sequel_to: Before | None


class BookDocument(msgspec.Struct, rename="camel"):
    title: str
    publisher: PublisherDocument | None
    publisher_name: str | None
    tags: list[str]
    reviews: list[ReviewDocument]
    best: ReviewDocument | None
    review_count: int
    rating: float | None
    exact_rating: Decimal | None
    in_stock: int
    worth: Decimal
    dearest: Decimal | None
    cheapest: Decimal | None
    label: str
    sequel_to: Before | None


def label_of(title: str, year: int) -> str:
    return f"{title} ({year})"


class BookReadModel(ReadModel[Book]):
    key = Book.title
    document = BookDocument
    lists = (
        by(Book.title),
        by(field("rating").desc().nulls_last(), name="best"),
        by(field("exact_rating"), name="exact"),
        by(field("review_count").desc(), Book.title.desc(), name="most"),
        by(field("in_stock"), name="stocked"),
        by(field("worth").desc(), name="worth"),
        by(field("dearest").nulls_first(), field("cheapest").desc(), name="prices"),
        by(field("publisher_name"), field("rating"), name="published"),
    )
    nested = {  # noqa: RUF012
        "publisher": one(Book.publisher),
        "publisher_name": one(Book.publisher, Publisher.name),
        "tags": many(Book.tags, Tag.name, order=Tag.name),
        "reviews": many(Book.reviews, order=Review.id.desc(), limit=2, nested={"user": one(Review.user)}),
        "best": one(Book.reviews, order=(Review.stars.desc(), Review.id), nested={"user": one(Review.user)}),
        "review_count": count(Book.reviews),
        "rating": average(Book.reviews, Review.stars, places=2),
        "exact_rating": average(Book.reviews, Review.stars, places=3, where=Review.stars > 1),
        "in_stock": total(Book.stock, Stock.quantity, where=Stock.blocked.is_(False)),
        "worth": total(Book.stock, Stock.price),
        "dearest": maximum(Book.stock, Stock.price),
        "cheapest": minimum(Book.stock, Stock.price),
        "label": computed(label_of, Book.title, Book.year),
        "sequel_to": one(Book.sequel_to, depth=2),
    }


class GetBook(Query[Document[BookDocument]]):
    title: str


class ListBooks(Query[Page[BookDocument]]):
    name: str
    limit: int = 100
    after: str | None = None
    where: Any = None


class BookQueries:
    def __init__(self, books: BookReadModel) -> None:
        self.books = books

    async def page(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(
            query.name, where=query.where, limit=query.limit, after=query.after, count=True
        )

    async def get(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)


def catalogue(database_url: str, redis_url: str | None) -> Diptych:
    config = configured(database_url, redis_url)
    return Diptych(config, models=Base, handlers=[BookQueries], read_models=[BookReadModel])


@pytest.fixture
async def apps(database_url: str, valkey: Any) -> AsyncIterator[tuple[Diptych, Diptych]]:
    """The same catalogue twice: answered from Redis, and from SQL."""
    async with catalogue(database_url, valkey.url) as redis, catalogue(database_url, None) as sql:
        yield redis, sql


async def shown(apps: tuple[Diptych, Diptych], title: str) -> Any:
    """Returns the document, equal from both stores."""
    redis, sql = apps
    await answered_by(redis, "redis")
    found, from_sql = [await app.ask(GetBook(title)) for app in (redis, sql)]
    assert (found.served.store, from_sql.served.store) == ("redis", "sql")
    assert found.body == from_sql.body
    return None if found.body is None else msgspec.json.decode(found.body)


async def test_a_document_has_all_that_is_declared(apps):
    redis, _ = apps
    async with redis.orm.session() as session:
        ann = User(id=1, name="Ann")
        first = Book(id=1, title="Dune", publisher=Publisher(id=7, name="Ace"))
        second = Book(id=2, title="Dune Messiah", sequel_to=first)
        third = Book(id=3, title="Children of Dune", sequel_to=second)
        fourth = Book(id=4, title="God Emperor", sequel_to=third)
        first.tags = [Tag(id=1, name="sf"), Tag(id=2, name="Desert")]
        first.reviews = [
            Review(id=1, stars=5, text="a", user=ann),
            Review(id=2, stars=4, text="b"),
            Review(id=3, stars=1, text="c", user=ann),
        ]
        first.stock = [
            Stock(quantity=3, price=Decimal("9.90")),
            Stock(quantity=4, price=Decimal("0.10")),
            Stock(quantity=9, price=None, blocked=True),
        ]
        session.add_all([first, second, third, fourth])
    assert await shown(apps, "Dune") == {
        "title": "Dune",
        "publisher": {"id": 7, "name": "Ace"},
        "publisherName": "Ace",
        "tags": ["Desert", "sf"],
        "reviews": [
            {"stars": 1, "words": "c", "user": {"name": "Ann"}},
            {"stars": 4, "words": "b", "user": None},
        ],
        "best": {"stars": 5, "words": "a", "user": {"name": "Ann"}},
        "reviewCount": 3,
        "rating": 3.33,
        "exactRating": "4.500",
        "inStock": 7,
        "worth": "10.00",
        "dearest": "9.90",
        "cheapest": "0.10",
        "label": "Dune (1965)",
        "sequelTo": None,
    }
    fourth = await shown(apps, "God Emperor")
    assert fourth["sequelTo"] == {
        "title": "Children of Dune",
        "sequel_to": {"title": "Dune Messiah", "sequel_to": None},
    }
    assert fourth["tags"] == fourth["reviews"] == []
    assert (fourth["reviewCount"], fourth["rating"], fourth["inStock"], fourth["worth"]) == (
        0,
        None,
        0,
        "0.00",
    )
    assert (fourth["publisher"], fourth["best"], fourth["dearest"]) == (None, None, None)
    assert decimal.getcontext().prec == 28


def _random_books(seed: int) -> list[Book]:
    drawn = random.Random(seed)
    publishers = [Publisher(id=n, name=name) for n, name in enumerate(["Ace", "ace", "Égale", "Tor"], 1)]
    books = []
    for n in range(1, 41):
        reviews = [Review(stars=drawn.randint(-5, 5)) for _ in range(drawn.choice([0, 1, 2, 3, 7]))]
        stock = [
            Stock(
                quantity=drawn.randint(-3, 3),
                price=drawn.choice([None, Decimal(drawn.randint(-2000, 2000)) / 100]),
                blocked=drawn.random() < 0.3,
            )
            for _ in range(drawn.choice([0, 1, 2, 5]))
        ]
        publisher = drawn.choice([None, *publishers])
        books.append(Book(id=n, title=f"t{n:02}", publisher=publisher, reviews=reviews, stock=stock))
    return books


VALUES = {
    "best": ("rating",),
    "exact": ("exactRating",),
    "most": ("reviewCount",),
    "stocked": ("inStock",),
    "worth": ("worth",),
    "prices": ("dearest", "cheapest"),
    "published": ("publisherName", "rating"),
}


@pytest.mark.parametrize("seed", range(3))
async def test_lists_are_in_the_order_of_nested_fields(apps, seed: int):
    """The same pages from both stores, forwards, page by page."""
    redis, sql = apps
    async with redis.orm.session() as session:
        session.add_all(_random_books(seed))
    await answered_by(redis, "redis")
    for name, fields in VALUES.items():
        whole = [await _walk(app, store, name) for app, store in ((redis, "redis"), (sql, "sql"))]
        assert whole[0] == whole[1], name
        assert len(whole[0]) == 40, name
        for value in {book[fields[0]] for book in whole[0]}:
            is_number = value is not None and name not in ("most", "stocked", "published")
            await _selects(apps, name, _snake(fields[0]), Decimal(str(value)) if is_number else value)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


async def _walk(app: Diptych, store: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = await app.ask(ListBooks(name, limit=7, after=after))
        assert page.served.store == store
        body = msgspec.json.decode(page.body)
        assert body["total"] == 40
        found += body["items"]
        after = body["next"]
        if after is None:
            return found


async def _selects(apps: tuple[Diptych, Diptych], name: str, field_name: str, value: Any) -> None:
    pages = [await app.ask(ListBooks(name, where={field_name: value})) for app in apps]
    assert pages[0].body == pages[1].body, (name, value)
    assert msgspec.json.decode(pages[0].body)["total"] > 0, (name, value)
