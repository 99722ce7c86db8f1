"""Tables whose names are those that SQLAlchemy would give to aliases of other tables: ``book_1`` beside ``book``."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from msgspec import Struct, json
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import Diptych, ReadModel, by, code_point_text, count, each, field, join, many, one
from tests.catalogue import answered_by
from tests.configuration import configured


class Base(DeclarativeBase):
    pass


links = sa.Table(
    "book_2",
    Base.metadata,
    sa.Column("shelf_id", sa.ForeignKey("book_1.id"), primary_key=True),
    sa.Column("book_id", sa.ForeignKey("book.id"), primary_key=True, index=True),
)


class Shelf(Base):
    __tablename__ = "book_1"

    id: Mapped[int] = mapped_column(primary_key=True)
    best_id: Mapped[int | None] = mapped_column(sa.ForeignKey("book.id", use_alter=True), index=True)
    books: Mapped[list[Book]] = relationship(foreign_keys="Book.shelf_id")
    lent: Mapped[list[Book]] = relationship(secondary=links)


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(40))
    shelf_id: Mapped[int | None] = mapped_column(sa.ForeignKey("book_1.id"), index=True)


class ShelfDocument(Struct):
    id: int
    best: str | None
    number: int
    lent: list[str]
    first: str | None


class ShelfReadModel(ReadModel[Shelf]):
    key = Shelf.id
    document = ShelfDocument
    joined = {"best": join(Book.title, Shelf.best_id, Book.id)}  # noqa: RUF012
    nested = {  # noqa: RUF012
        "number": count(Shelf.books),
        "lent": many(Shelf.lent, Book.title, order=Book.title),
        "first": one(Shelf.lent, Book.title, order=Book.title),
    }
    lists = (
        by(field("number").desc(), name="number"),
        by(field("first").nulls_last(), name="first"),
        by(field("best").nulls_last(), name="best"),
        by(each(Shelf.lent, Book.title), name="lent"),
    )


class Handlers:
    made: list[ShelfReadModel] = []  # noqa: RUF012

    def __init__(self, shelves: ShelfReadModel) -> None:
        self.made.append(shelves)


async def test_tables_with_the_names_of_aliases_are_not_taken_for_them(database_url, valkey):
    def application(redis_url: str | None) -> Diptych:
        config = configured(database_url, redis_url, lease_ms=60_000, redis_query_timeout_ms=20_000)
        return Diptych(config, models=Base, handlers=[Handlers], read_models=[ShelfReadModel])

    async with application(valkey.url) as app, application(None):
        sql, redis = Handlers.made.pop(), Handlers.made.pop()
        await app.orm.create_all(Shelf, [{"id": number} for number in (1, 2, 3)])
        await app.orm.create_all(
            Book,
            [{"id": n, "title": t, "shelf_id": s} for n, t, s in ((1, "c", 2), (2, "b", 2), (3, "a", 3))],
        )
        for shelf, book in ((1, 1), (3, 2), (3, 3), (2, 3)):
            await app.orm.execute(sa.insert(links).values(shelf_id=shelf, book_id=book))
        for shelf, book in ((1, 3), (2, 1), (3, 2)):
            await app.orm.update(Shelf, shelf, "id", best_id=book)
        await app.catch_up()
        await answered_by(app, "redis")
        wanted: dict[str, tuple[Any, list[int]]] = {
            "number": (None, [2, 3, 1]),
            "first": (None, [2, 3, 1]),
            "best": (None, [1, 3, 2]),
            "lent": ({"lent": "a"}, [2, 3]),
        }
        for name, (where, ids) in wanted.items():
            for model, store in ((redis, "redis"), (sql, "sql")):
                page = await model.page(name, where=where)
                assert page.served.store == store
                assert [item["id"] for item in json.decode(page.body)["items"]] == ids, (name, store)
        await app.orm.update(Book, 3, "id", title="z")
        bodies = [(await model.get(3)).body for model in (redis, sql)]
        assert bodies == [b'{"id":3,"best":"b","number":1,"lent":["b","z"],"first":"b"}'] * 2
