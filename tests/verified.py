"""An application with read models of each kind, for ``diptych verify``: made from the environment by ``app``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import Command, ConfigService, Diptych, ORMService, ReadModel, by, code_point_text, each, join
from tests.configuration import PATIENT_REDIS


class Base(DeclarativeBase):
    pass


tagged = sa.Table(
    "tagged",
    Base.metadata,
    sa.Column("item_id", sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))


class Owner(Base):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(code_point_text(40), unique=True)
    badge: Mapped[int | None] = mapped_column(unique=True)
    title: Mapped[str] = mapped_column(code_point_text(), default="")
    stock: Mapped[int] = mapped_column(default=0)
    hidden: Mapped[bool] = mapped_column(default=False)
    owner_id: Mapped[int | None] = mapped_column(index=True)
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)


class ItemDocument(msgspec.Struct):
    code: str
    title: Annotated[str, msgspec.Meta(max_length=40)]
    stock: int


class Items(ReadModel[Item]):
    """Plain: with a second address, a condition, and a list that leaves rows out."""

    key = Item.code
    also = (Item.badge,)
    document = ItemDocument
    where = Item.hidden.is_(False)
    lists = (by(Item.title, name="titles"), by(Item.stock.desc(), where=Item.stock > 0, name="in-stock"))


class OwnedDocument(msgspec.Struct):
    id: int
    title: str
    owner: str | None


class Owned(ReadModel[Item]):
    """Joined, with a key of several columns."""

    key = (Item.id, Item.code)
    document = OwnedDocument
    joined: ClassVar = {"owner": join(Owner.name, Item.owner_id, Owner.id)}
    lists = (by(Item.title),)


class TaggedItems(ReadModel[Item]):
    """With a list by the elements of a collection."""

    key = Item.id
    document = OwnedDocument
    joined: ClassVar = {"owner": join(Owner.name, Item.owner_id, Owner.id)}
    lists = (by(each(Item.tags, Tag.name), Item.title, name="by-tag"),)


class Bare(ReadModel[Item]):
    """Without a list: nothing but documents."""

    key = Item.code
    document = ItemDocument


class SetStock(Command[None]):
    code: str
    stock: int


class AddItem(Command[None]):
    code: str
    badge: int | None = None


class DeleteItem(Command[None]):
    code: str


class ItemCommands:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def set_stock(self, command: SetStock) -> None:
        title = f"title {command.stock % 7}"
        await self.orm.update(Item, command.code, "code", stock=command.stock % 5, title=title)

    async def add(self, command: AddItem) -> None:
        await self.orm.create(Item, id=500_000, code=command.code, badge=command.badge, title=command.code)

    async def delete(self, command: DeleteItem) -> None:
        await self.orm.delete(Item, command.code, "code")


READ_MODELS: tuple[type[ReadModel[Any]], ...] = (Items, Owned, TaggedItems, Bare)


def application(database_url: str, redis_url: str | None, **settings: Any) -> Diptych:
    """The application in this process. A busy machine must not fail a test."""
    values: dict[str, Any] = {**PATIENT_REDIS, "redis_probe_interval_ms": 20, "lease_ms": 2000}
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    config = ConfigService(environ={}, **values)
    return Diptych(config, models=Base, handlers=[ItemCommands], read_models=READ_MODELS)


def app() -> Diptych:
    """The application as the environment sets it up."""
    return Diptych(ConfigService(), models=Base, handlers=[ItemCommands], read_models=READ_MODELS)


def rows(count: int) -> list[str]:
    """Statements that make so many items, of which every tenth is hidden, with owners and tags."""
    numbers = range(count)
    items = ", ".join(
        f"({n}, 'i{n:05}', {n + 100_000 if n % 3 else 'NULL'}, 'title {n % 50}', {n % 4}, "
        f"{'true' if n % 10 == 9 else 'false'}, {n % 5 if n % 4 else 'NULL'})"
        for n in numbers
    )
    links = ", ".join(f"({n}, {tag})" for n in numbers for tag in range(n % 3))
    return [
        "INSERT INTO owners (id, name) VALUES (0, 'Ash'), (1, 'Birch'), (2, 'Cedar'), (3, 'Elm'), (4, 'Fir')",
        "INSERT INTO tags (id, name) VALUES (0, 'red'), (1, 'blue')",
        f"INSERT INTO items (id, code, badge, title, stock, hidden, owner_id) VALUES {items}",
        f"INSERT INTO tagged (item_id, tag_id) VALUES {links}",
    ]
