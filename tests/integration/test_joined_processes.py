"""Documents made from several rows, over several processes: their commands and passes write them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import redis
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, Document, Page, Query, ReadModel, by, code_point_text, join
from tests.catalogue import Recorded, eventually, store_of
from tests.programs import with_driver


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(code_point_text(20), unique=True)
    owner_id: Mapped[int | None] = mapped_column(index=True)
    note: Mapped[str] = mapped_column(sa.String(50), default="")


class ItemCard(msgspec.Struct):
    code: str
    note: str
    owner: str | None


class ItemCards(ReadModel[Item]):
    key = Item.code
    document = ItemCard
    lists = (by(Item.code),)
    joined = {"owner": join(Owner.name, Item.owner_id, Owner.id)}  # noqa: RUF012


class GetCard(Query[Document[ItemCard]]):
    code: str


class ListCards(Query[Page[ItemCard]]):
    pass


class CardQueries:
    def __init__(self, cards: ItemCards) -> None:
        self.cards = cards

    async def get_card(self, query: GetCard) -> Document[ItemCard]:
        return await self.cards.get(query.code)

    async def list_cards(self, query: ListCards) -> Page[ItemCard]:
        return await self.cards.page(limit=500)


def cards(database_url: str, redis_url: str | None, **settings: Any) -> Diptych:
    values = {"lease_ms": 400, "redis_query_timeout_ms": 2000, "redis_probe_interval_ms": 20, **settings}
    return Diptych(
        ConfigService(environ={}, database_url=database_url, redis_url=redis_url, **values),
        models=Base,
        handlers=[CardQueries],
        read_models=[ItemCards],
    )


async def _shows(app: Diptych, code: str, owner: str | None, note: str = "") -> str:
    """Fails unless document and list show this; returns the store."""
    document = await app.ask(GetCard(code))
    assert document.decode() == ItemCard(code, note, owner)
    page = await app.ask(ListCards())
    assert [card for card in page.decode().items if card.code == code] == [ItemCard(code, note, owner)]
    return document.served.store


async def _shows_in_redis(app: Diptych, code: str, owner: str | None, note: str = "") -> None:
    async def does() -> bool:
        return await _shows(app, code, owner, note) == "redis"

    await eventually(does, f"Redis shows {code}")


async def test_a_renamed_owner_is_seen_in_all_documents_by_all_at_once(database_url, valkey):
    async with cards(database_url, valkey.url) as one, cards(database_url, valkey.url) as two:
        await one.orm.create(Owner, id=1, name="Ann")
        for number in range(12):
            await two.orm.create(Item, code=f"{number:02}", owner_id=1)
            await _shows(one, f"{number:02}", "Ann")
        for app in (one, two):
            await _shows_in_redis(app, "07", "Ann")
        for name, writer in (("Bea", one), ("Cid", two)):
            await writer.orm.update(Owner, 1, name=name)
            for app in (one, two):
                for number in (0, 5, 11):
                    await _shows(app, f"{number:02}", name)
        for app in (one, two):
            await _shows_in_redis(app, "03", "Cid")


async def test_an_owner_that_is_deleted_or_comes_is_seen(database_url, valkey):
    async with cards(database_url, valkey.url) as app, cards(database_url, None) as beside:
        await app.orm.create(Item, code="a", owner_id=1)
        await _shows_in_redis(app, "a", None)
        await beside.orm.create(Owner, id=1, name="Ann")
        await _shows(app, "a", "Ann")
        await beside.orm.delete(Owner, 1)
        await _shows(app, "a", None)
        await app.orm.update(Item, "a", "code", code="b", note="renamed")
        assert not await app.ask(GetCard("a"))
        await _shows(app, "b", None, "renamed")
        await app.orm.delete(Item, "b", "code")
        assert not await app.ask(GetCard("b"))
        assert (await app.ask(ListCards())).decode().items == []
        await app.orm.create(Item, code="b", owner_id=2)
        await app.orm.create(Owner, id=2, name="Bea")
        await _shows_in_redis(app, "b", "Bea")


async def test_concurrent_changes_of_both_sides_are_both_in_the_document(database_url, valkey):
    """Two commands could each write a document that lacks the other's change: none writes what it saw itself."""
    async with cards(database_url, valkey.url) as one, cards(database_url, valkey.url) as two:
        await one.orm.create(Owner, id=1, name="0")
        await one.orm.create(Item, code="a", owner_id=1, note="0")
        for app in (one, two):
            await _shows_in_redis(app, "a", "0", "0")
        for number in range(1, 7):
            await asyncio.gather(
                one.orm.update(Owner, 1, name=str(number)),
                two.orm.update(Item, "a", "code", note=str(number)),
            )
            for app in (one, two):
                await _shows(app, "a", str(number), str(number))
        for app in (one, two):
            await _shows_in_redis(app, "a", "6", "6")


async def test_a_late_joined_document_does_not_go_back_nor_bring_a_deleted_one_back(database_url, valkey):
    async with cards(database_url, valkey.url) as app:
        await app.orm.create(Owner, id=1, name="0")
        await app.orm.create(Item, code="a", owner_id=1)
        await _shows_in_redis(app, "a", "0")
        seen = Recorded(store_of(app), "apply")
        await app.orm.update(Owner, 1, name="1")
        late = [call for call in seen.calls if call[0][1]]
        assert late
        await app.orm.update(Owner, 1, name="2")
        for arguments, named in late:
            await seen.original(*arguments, **named)
        await _shows(app, "a", "2")
        await app.orm.delete(Item, "a", "code")

        async def purged() -> bool:
            with redis.Redis.from_url(valkey.url) as client:
                return not client.keys("*:d:a")

        await eventually(purged, "the tombstone is purged")
        for arguments, named in late:
            await seen.original(*arguments, **named)
        assert not await app.ask(GetCard("a"))
        assert (await app.ask(ListCards())).decode().items == []


async def test_a_pass_moves_documents_to_their_new_addresses_at_once(database_url, valkey):
    async with cards(database_url, valkey.url) as app:
        await app.orm.create(Owner, id=1, name="Ann")
        for number in range(60):
            await app.orm.create(Item, id=number, code=f"{number:02}", owner_id=1)
        await _shows_in_redis(app, "07", "Ann")
        store = store_of(app)
        scripts: list[set[bytes]] = []
        apply = store.apply

        async def applying(target: Any, writes: Any, **named: Any) -> str:
            scripts.append({write.key for write in writes})
            return await apply(target, writes, **named)

        store.apply = applying  # type: ignore[method-assign]
        engine = create_async_engine(with_driver(database_url))
        async with engine.begin() as another:
            await another.execute(sa.update(Item).where(Item.id == 7).values(note="stays"))
            await another.execute(sa.update(Item).where(Item.id != 7).values(code="x" + Item.code))
            await another.execute(sa.update(Item).where(Item.id > 30).values(code="y" + Item.code))
        await engine.dispose()

        async def have_moved() -> bool:
            return (await app.ask(GetCard("yx59"))).decode() is not None

        await eventually(have_moved, "a pass has written the moves")
        await _shows_in_redis(app, "yx59", "Ann")
    for number in {*range(60)} - {7}:
        old, new = f"{number:02}".encode(), f"{'y' * (number > 30)}x{number:02}".encode()
        # A pass that outlasts its lease, on a slow machine, is made again.
        written = [keys for keys in scripts if new in keys]
        assert written
        assert all(old in keys for keys in written)
