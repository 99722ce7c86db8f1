"""The rows and the documents: items that have owners.

``Item`` and ``Owner`` are changed through ``ORMService`` alone, ``OpenItem`` and ``OpenOwner`` by all, in any way.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from diptych import code_point_text


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


class OwnedItemDocument(msgspec.Struct, frozen=True):
    """An item with its owner's name."""

    key: str
    value: Fitting
    owner_id: int
    owner_name: str | None
