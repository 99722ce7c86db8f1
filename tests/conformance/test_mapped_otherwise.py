"""The fingerprint of a read model has the columns that its attributes are mapped to."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import ReadModel, by, join, many
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.sql.registry import EntityRegistry


class PartDocument(msgspec.Struct):
    title: str


class ItemDocument(msgspec.Struct):
    id: int
    title: str


class WithParts(ItemDocument):
    parts: list[PartDocument]


class WithOwner(ItemDocument):
    owner: str | None


def _fingerprints(*, item: str = "title", part: str = "title", owner: str = "title") -> list[str]:
    """Those of a plain, a nested and a joined read model, of attributes with these columns."""

    class Base(DeclarativeBase):
        pass

    class Owner(Base):
        __tablename__ = "owners"

        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(owner, sa.Text)

    class Part(Base):
        __tablename__ = "parts"

        id: Mapped[int] = mapped_column(primary_key=True)
        item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id"), index=True)
        title: Mapped[str] = mapped_column(part, sa.Text)

    class Item(Base):
        __tablename__ = "items"

        id: Mapped[int] = mapped_column(primary_key=True)
        owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey("owners.id"), index=True)
        title: Mapped[str] = mapped_column(item, sa.Text)
        parts: Mapped[list[Any]] = relationship(Part, viewonly=True)

    registry = EntityRegistry("postgresql")
    dialect = sa.create_engine("postgresql+asyncpg://").dialect
    declared: list[dict[str, Any]] = [
        {"document": ItemDocument},
        {"document": WithParts, "nested": {"parts": many(Item.parts, order=Part.id)}},
        {"document": WithOwner, "joined": {"owner": join(Owner.title, Item.owner_id, Owner.id)}},
    ]
    found = []
    for one in declared:
        model: Any = type("Items", (ReadModel,), {"key": Item.id, "lists": (by(Item.id),), **one})
        entities = {kind: registry.of(kind).describe(dialect) for kind in joined_models(model)}
        compiled = CompiledReadModel(model, registry.of(Item).describe(dialect), entities)
        found.append(compiled.fingerprint)
    return found


def test_an_attribute_of_another_column_makes_another_read_model():
    """★ Its documents would stay those of the former column, since no row has changed."""
    usual = _fingerprints()
    assert usual == _fingerprints()
    plain, nested, joined = zip(
        *(usual, _fingerprints(item="name"), _fingerprints(item="display_name")), strict=True
    )
    assert [len(set(each)) for each in (plain, nested, joined)] == [3, 3, 3]
    assert [one == other for one, other in zip(usual, _fingerprints(part="name"), strict=True)] == [
        True,
        False,
        True,
    ]
    assert [one == other for one, other in zip(usual, _fingerprints(owner="name"), strict=True)] == [
        True,
        True,
        False,
    ]
