"""The rows and the documents: items that have owners.

``Item`` and ``Owner`` are changed through ``ORMService`` alone, ``OpenItem`` and ``OpenOwner`` by all, in any way.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from diptych import average, code_point_text, count, many, maximum, one, total


class Base(DeclarativeBase):
    """The declarative base of the application."""


def _odd_value() -> sa.Computed:
    """The value, if it is odd: a column that is null for every second write."""
    return sa.Computed("CASE WHEN value > 0 AND value % 2 = 1 THEN value END", persisted=True)


class Owner(Base):
    """Who owns items. The name is the number of the write that gave it."""

    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    items: Mapped[list[Item]] = relationship(viewonly=True)


class Item(Base):
    """A thing with a value, which is the number of the write that gave it."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    key: Mapped[str] = mapped_column(code_point_text(40), unique=True)
    value: Mapped[int] = mapped_column(sa.BigInteger)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owners.id"), index=True)
    odd: Mapped[int | None] = mapped_column(sa.BigInteger, _odd_value())


class Audit(Base):
    """What a command has found, as it wrote it down."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    found: Mapped[str] = mapped_column(code_point_text(80))


class OpenOwner(Base):
    """An owner whom anybody renames, numbers anew and removes, and with the owner all that is owned."""

    __tablename__ = "open_owners"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    items: Mapped[list[OpenItem]] = relationship(viewonly=True)


class OpenMark(Base):
    """A mark of open items."""

    __tablename__ = "open_marks"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    number: Mapped[int] = mapped_column(sa.Integer)


open_item_marks = sa.Table(
    "open_item_marks",
    Base.metadata,
    # By no foreign keys: TRUNCATE of the items has to be possible.
    sa.Column("item_id", sa.Integer, nullable=False, index=True),
    sa.Column("mark_id", sa.Integer, nullable=False, index=True),
)
"""Which marks an open item has: triggers see to that, see ``history.marks_of``."""


class OpenItem(Base):
    """An item that sessions, statements, cascades, triggers and programs beside the application change."""

    __tablename__ = "open_items"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    key: Mapped[str] = mapped_column(code_point_text(40), unique=True)
    value: Mapped[int] = mapped_column(sa.BigInteger)
    owner_id: Mapped[int] = mapped_column(
        sa.ForeignKey("open_owners.id", ondelete="CASCADE", onupdate="CASCADE"), index=True
    )
    odd: Mapped[int | None] = mapped_column(sa.BigInteger, _odd_value())
    marks: Mapped[list[OpenMark]] = relationship(
        secondary=open_item_marks,
        primaryjoin=lambda: OpenItem.id == foreign(open_item_marks.c.item_id),
        secondaryjoin=lambda: OpenMark.id == foreign(open_item_marks.c.mark_id),
        viewonly=True,
    )


Fitting = Annotated[int, msgspec.Meta(ge=0)]
"""A value that goes out. An item may have one that is less: such a row does not fit its documents."""


class ItemDocument(msgspec.Struct, frozen=True):
    """An item as it goes out."""

    id: int
    key: str
    value: Fitting
    owner_id: int


class OwnedValue(msgspec.Struct, frozen=True):
    """An item within the document of its owner."""

    key: str
    value: Fitting


class OwnerDocument(msgspec.Struct, frozen=True):
    """An owner with the items whose values fit, the greatest value first, and what is counted and summed of them."""

    id: int
    name: str
    items: list[OwnedValue]
    item_count: int
    value_total: int
    value_mean: Decimal | None
    greatest: int | None
    first: OwnedValue | None


class OwnedItemDocument(msgspec.Struct, frozen=True):
    """An item with its owner's name."""

    key: str
    value: Fitting
    owner_id: int
    owner_name: str | None


def nested_of(owner: type[Owner] | type[OpenOwner], item: type[Item] | type[OpenItem]) -> dict[str, Any]:
    """The nested fields of an `OwnerDocument`."""
    order, fitting = (item.value.desc(), item.key), item.value >= 0
    return {
        "items": many(owner.items, order=order, where=fitting),
        "item_count": count(owner.items, where=fitting),
        "value_total": total(owner.items, item.value, where=fitting),
        "value_mean": average(owner.items, item.value, places=3, where=fitting),
        "greatest": maximum(owner.items, item.value, where=fitting),
        "first": one(owner.items, order=order, where=fitting),
    }
