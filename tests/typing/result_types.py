"""Checked by mypy and never run: the result type rides on the message, and wrong use is an error.

Each ``type: ignore`` names the error that mypy must find there; one that it does not find is an error in itself.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import AsyncIterator
from typing import assert_type

from msgspec import Struct
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Command,
    CommandOf,
    Diptych,
    Document,
    Event,
    ORMService,
    Page,
    Query,
    QueryOf,
    ReadModel,
    build,
    by,
)


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class BookDocument(Struct):
    title: str


class AddBook(Command[int]):
    title: str
    published: datetime.date | None = None


class Forget(Command[None]):
    pass


class GetBook(Query[Document[BookDocument]]):
    title: str


class ListBooks(Query[Page[BookDocument]]):
    pass


class AddModel(BaseModel, CommandOf[int]):
    title: str


@dataclasses.dataclass(frozen=True)
class GetDataclass(QueryOf[Document[BookDocument]]):
    title: str


class Added(Event):
    title: str


class BookReadModel(ReadModel[Book]):
    pass


async def results_have_the_type_that_the_message_promises(app: Diptych) -> None:
    assert_type(await app.execute(AddBook("T")), int)
    assert_type(await app.execute(Forget()), None)
    assert_type(await app.ask(GetBook("T")), Document[BookDocument])
    assert_type((await app.ask(GetBook("T"))).decode(), BookDocument | None)
    assert_type((await app.ask(ListBooks())).body, bytes)
    number: int = await app.execute(AddBook("T"))
    text: str = await app.execute(AddBook("T"))  # type: ignore[arg-type]
    text = number  # type: ignore[assignment]
    assert text


async def models_and_dataclasses_promise_their_results_too(app: Diptych) -> None:
    assert_type(await app.execute(AddModel(title="T")), int)
    assert_type(await app.ask(GetDataclass("T")), Document[BookDocument])
    await app.ask(AddModel(title="T"))  # type: ignore[arg-type]
    await app.execute(GetDataclass("T"))  # type: ignore[arg-type]
    GetDataclass("T").title = "U"  # type: ignore[misc]
    assert_type(build(AddModel, {"title": "T"}), AddModel)
    assert_type(build(GetDataclass, {"title": "T"}), GetDataclass)


async def commands_and_queries_are_not_mixed_up(app: Diptych) -> None:
    await app.execute(GetBook("T"))  # type: ignore[arg-type]
    await app.ask(AddBook("T"))  # type: ignore[arg-type]
    await app.execute(Added("T"))  # type: ignore[arg-type]
    await app.execute("AddBook")  # type: ignore[arg-type]


def messages_are_constructed_with_their_fields() -> None:
    AddBook(title="T", published=datetime.date(2024, 1, 1))
    AddBook()  # type: ignore[call-arg]
    AddBook(5)  # type: ignore[arg-type]
    AddBook("T", colour="red")  # type: ignore[call-arg]
    AddBook("T").title = "U"  # type: ignore[misc]
    assert_type(AddBook("T").published, datetime.date | None)


def build_returns_the_type_that_it_is_given() -> None:
    assert_type(build(AddBook, {"title": "T"}), AddBook)
    assert_type(build(BookDocument, {"title": "T"}), BookDocument)
    build(dict, {})  # type: ignore[type-var]


async def rows_have_the_type_of_their_model(orm: ORMService) -> None:
    assert_type(await orm.create(Book, title="T"), Book)
    assert_type(await orm.get(Book, lookup_value=1), Book | None)
    assert_type(await orm.get(Book, lookup_value="T", lookup_column="title"), Book | None)
    assert_type(await orm.update(Book, 1, title="U"), bool)
    assert_type(await orm.update(Book, 1, "id", title="U", return_instance=True), Book | None)
    assert_type(await orm.update(Book, lookup_value=1, title="U", return_instance=False), bool)
    assert_type(await orm.delete(Book, lookup_value=1), bool)
    assert_type(await orm.all(Book), list[Book])
    assert_type(orm.iterate(Book), AsyncIterator[Book])
    assert (await orm.get(Book, 1)).title  # type: ignore[union-attr]


async def read_models_give_their_documents(books: BookReadModel) -> None:
    found: Document[BookDocument] = await books.get("T")
    page: Page[BookDocument] = await books.page(by(Book.title))
    assert_type(found.decode(), BookDocument | None)
    assert_type(page.decode().items, list[BookDocument])
    basket: list[Document[BookDocument]] = await books.get_many(["T", "U"])
    assert_type([document.decode() for document in basket], list[BookDocument | None])
