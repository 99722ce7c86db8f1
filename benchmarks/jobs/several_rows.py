"""Commands that add a row: of a plain, a joined and a nested document, and of a list by elements of a collection."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.jobs.orders import take_orders
from benchmarks.runner import Sample
from diptych import (
    ConfigService,
    Diptych,
    Document,
    Page,
    Query,
    ReadModel,
    average,
    by,
    code_point_text,
    count,
    each,
    join,
    many,
)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customers.id"), index=True)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey("customers.id"), index=True)


class Basket(Base):
    __tablename__ = "baskets"

    id: Mapped[int] = mapped_column(primary_key=True)
    parts: Mapped[list[Part]] = relationship()


class Part(Base):
    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    basket_id: Mapped[int] = mapped_column(sa.ForeignKey("baskets.id"), index=True)


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    reviews: Mapped[list[Review]] = relationship()


class Review(Base):
    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    stars: Mapped[int]
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), index=True)


class NoteDocument(msgspec.Struct):
    number: int
    customer_id: int


class OrderDocument(msgspec.Struct):
    number: int
    customer_id: int
    customer: str | None


class BasketDocument(msgspec.Struct):
    id: int


class ReviewDocument(msgspec.Struct):
    id: int
    stars: int


class BookDocument(msgspec.Struct):
    id: int
    review_count: int
    rating: float | None
    reviews: list[ReviewDocument]


class Notes(ReadModel[Note]):
    key = Note.id
    document = NoteDocument


class Orders(ReadModel[Order]):
    key = Order.id
    document = OrderDocument
    joined: ClassVar = {"customer": join(Customer.name, Order.customer_id, Customer.id)}


class Baskets(ReadModel[Basket]):
    key = Basket.id
    document = BasketDocument
    lists = (by(each(Basket.parts, Part.number), name="parts"),)


class Books(ReadModel[Book]):
    key = Book.id
    document = BookDocument
    nested: ClassVar = {
        "review_count": count(Book.reviews),
        "rating": average(Book.reviews, Review.stars, places=2),
        "reviews": many(Book.reviews, order=Review.id.desc(), limit=5),
    }


class GetNote(Query[Document[NoteDocument]]):
    id: int


class GetOrder(Query[Document[OrderDocument]]):
    id: int


class ListBaskets(Query[Page[BasketDocument]]):
    number: int


class GetBook(Query[Document[BookDocument]]):
    id: int


class Handlers:
    def __init__(self, notes: Notes, orders: Orders, baskets: Baskets, books: Books) -> None:
        self.notes, self.orders, self.baskets, self.books = notes, orders, baskets, books

    async def note(self, query: GetNote) -> Document[NoteDocument]:
        return await self.notes.get(query.id)

    async def order(self, query: GetOrder) -> Document[OrderDocument]:
        return await self.orders.get(query.id)

    async def book(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.id)

    async def baskets_with(self, query: ListBaskets) -> Page[BasketDocument]:
        return await self.baskets.page("parts", where={"parts": query.number})


class Additions:
    """Commands of this process. Each is checked: the next query has to show what it has added."""

    def __init__(self, app: Diptych) -> None:
        self._app = app
        self._ways: dict[str, tuple[Callable[[int], Awaitable[Any]], Callable[[int], Awaitable[Any]]]] = {
            "plain": (self._note, self._sees_note),
            "joined": (self._order, self._sees_order),
            "each": (self._part, self._sees_part),
            "nested": (self._review, self._sees_review),
        }

    async def fill(self, rows: int) -> Sample:
        """Adds customers and baskets; one customer, and one basket, has the rows that are measured."""
        await self._app.orm.create_all(Customer, [{"id": n + 1, "name": f"c{n}"} for n in range(rows)])
        await self._app.orm.create_all(Basket, [{"id": n + 1} for n in range(rows)])
        await self._app.orm.create_all(Book, [{"id": n + 1} for n in range(rows)])
        return {}

    async def served(self) -> Sample:
        """Returns when Redis answers for all of the read models."""
        while {model.served_by for model in (await self._app.health()).read_models.values()} != {"redis"}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return {}

    async def one_at_a_time(self, way: str, first: int, calls: int) -> Sample:
        """The latency of so many commands; 5 ms between two, so that the process is not always the busy one."""
        add, sees = self._ways[way]
        latencies, stores = [], []
        for number in range(first, first + calls):
            await asyncio.sleep(0.005)
            latencies.append(await _timed(add, number))
            stores.append(await sees(number))
        return _sample(latencies, stores)

    async def many_at_once(self, way: str, first: int, clients: int) -> Sample:
        """The latency of so many commands at the same time, all of rows of one parent."""
        add, sees = self._ways[way]

        async def one(number: int) -> tuple[float, str]:
            return await _timed(add, number), await sees(number)

        done = await asyncio.gather(*map(one, range(first, first + clients)))
        return _sample([latency for latency, _ in done], [store for _, store in done])

    async def _note(self, number: int) -> None:
        await self._app.orm.create(Note, id=number, number=number, customer_id=1)

    async def _order(self, number: int) -> None:
        await self._app.orm.create(Order, id=number, number=number, customer_id=1)

    async def _part(self, number: int) -> None:
        # A basket has a hundred parts at most: all of its entries are written anew.
        await self._app.orm.create(Part, id=number, number=number, basket_id=1 + number // 100 % 1000)

    async def _review(self, number: int) -> None:
        # As of baskets: a book has a hundred reviews at most.
        await self._app.orm.create(Review, id=number, stars=1 + number % 5, book_id=1 + number // 100 % 1000)

    # What is acknowledged has to be in the next answer, whichever store answers. They return that store.

    async def _sees_note(self, number: int) -> str:
        document = await self._app.ask(GetNote(number))
        assert document.decode() == NoteDocument(number, 1), document
        return document.served.store

    async def _sees_order(self, number: int) -> str:
        document = await self._app.ask(GetOrder(number))
        assert document.decode() == OrderDocument(number, 1, "c0"), document
        return document.served.store

    async def _sees_part(self, number: int) -> str:
        page = await self._app.ask(ListBaskets(number))
        assert [basket.id for basket in page.decode().items] == [1 + number // 100 % 1000], page
        return page.served.store

    async def _sees_review(self, number: int) -> str:
        """Looks whether the reviews are counted, and averaged, with this one among them.

        Processes take hundreds of numbers in turn, so a book has the reviews of one process from the first on.
        """
        document = await self._app.ask(GetBook(1 + number // 100 % 1000))
        book = document.decode()
        assert book is not None
        known = {review.id: review.stars for review in book.reviews}
        assert number in known or min(known, default=0) > number, document
        if book.review_count > len(known):
            assert book.rating is not None, document
        else:
            assert book.rating == round(sum(known.values()) / len(known) + 1e-9, 2), document
        return document.served.store


async def _timed(add: Callable[[int], Awaitable[Any]], number: int) -> float:
    begin = time.perf_counter()
    await add(number)
    return (time.perf_counter() - begin) * 1000


def _sample(latencies: list[float], stores: list[str]) -> Sample:
    ordered = sorted(latencies)
    return {
        "median, ms": statistics.median(ordered),
        "90 % within, ms": ordered[len(ordered) * 9 // 10],
        "next queries answered by SQL, in all": float(stores.count("sql")),
    }


async def main() -> None:
    """Where the data are is said by the environment."""
    models: list[type[ReadModel[Any]]] = [Notes, Orders, Baskets, Books]
    async with Diptych(ConfigService(), models=Base, handlers=[Handlers], read_models=models) as app:
        additions = Additions(app)
        await take_orders(
            {
                "fill": additions.fill,
                "served": additions.served,
                "one at a time": additions.one_at_a_time,
                "many at once": additions.many_at_once,
            }
        )


if __name__ == "__main__":
    asyncio.run(main())
