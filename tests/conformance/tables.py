"""The tables that the tests of the write panel use."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import ORMService, code_point_text
from diptych.read.declaration import ListOrder
from diptych.read.lists.index import ListIndex
from diptych.read.lists.page import PageRequest
from diptych.read.lists.selection import Selection
from diptych.sql.description import Sorting


class Base(DeclarativeBase):
    pass


class Book(Base):
    """As in the demo."""

    __tablename__ = "books"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    author: Mapped[str] = mapped_column(code_point_text(200), index=True)
    published_date: Mapped[datetime.date | None]
    isbn: Mapped[str | None] = mapped_column(sa.String(13), unique=True)
    stock_quantity: Mapped[int] = mapped_column(sa.Integer, default=0)


class Shelf(Base):
    """Attributes with other names than their columns, unique constraints of several columns, and references."""

    __tablename__ = "shelf_table"
    __table_args__ = (
        sa.UniqueConstraint("room_name", "shelf_number", name="one_shelf_a_place"),
        sa.Index("one_code", "shelf_code", unique=True),
    )

    key: Mapped[int] = mapped_column("shelf_id", primary_key=True)
    room: Mapped[str] = mapped_column("room_name", sa.String(20))
    number: Mapped[int] = mapped_column("shelf_number")
    code: Mapped[str | None] = mapped_column("shelf_code", sa.String(20))
    book_id: Mapped[int | None] = mapped_column("book_ref", sa.ForeignKey("books.id"))
    book: Mapped[Book | None] = relationship()


class Line(Base):
    """A composite primary key."""

    __tablename__ = "order_lines"

    order_number: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    product: Mapped[str]


class Defaults(Base):
    """Values that are made elsewhere: by Python, by the server, and at each update."""

    __tablename__ = "defaults"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    python: Mapped[str] = mapped_column(default=lambda: "made in Python")
    server: Mapped[str] = mapped_column(server_default="made by the server")
    changes: Mapped[int] = mapped_column(default=0, onupdate=sa.text("changes + 1"))
    length: Mapped[int | None] = mapped_column(sa.Computed("length(name)", persisted=True))


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Reversed(sa.types.TypeDecorator[str]):
    """A type of the application's own: text that is stored backwards."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return value[::-1] if value is not None else None

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return value[::-1] if value is not None else None


class Kinds(Base):
    """A column of each kind."""

    __tablename__ = "kinds"

    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[int | None] = mapped_column(sa.SmallInteger)
    whole: Mapped[int | None] = mapped_column(sa.Integer)
    big: Mapped[int | None] = mapped_column(sa.BigInteger)
    real: Mapped[float | None] = mapped_column(sa.Double)
    flag: Mapped[bool | None]
    short: Mapped[str | None] = mapped_column(sa.String(5))
    text: Mapped[str | None] = mapped_column(sa.Text)
    day: Mapped[datetime.date | None]
    moment: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=False))
    instant: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    time: Mapped[datetime.time | None]
    span: Mapped[datetime.timedelta | None]
    name: Mapped[uuid.UUID | None]
    data: Mapped[bytes | None]
    size: Mapped[Size | None]
    word: Mapped[str | None] = mapped_column(sa.Enum("yes", "no", name="word_kind"))
    document: Mapped[Any | None] = mapped_column(sa.JSON)
    backwards: Mapped[str | None] = mapped_column(Reversed)


class Price(Base):
    """Exact numbers; SQLAlchemy warns of them on SQLite, which has none."""

    __tablename__ = "prices"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(8, 2))


def page_of(
    orm: ORMService, model: type, order: Sequence[str], after: Sequence[Any] | None = None
) -> PageRequest:
    """A page of a list in ascending order of these columns, the last of them the key."""
    entity = orm.side.entities.of(model).describe(orm.database.reader.dialect)
    sorted_by = tuple(Sorting(name, model) for name in order)
    index = ListIndex(ListOrder(sorted_by, "list"), order[-1:], entity)
    return PageRequest(Selection(index), 10, values=None if after is None else tuple(after))
