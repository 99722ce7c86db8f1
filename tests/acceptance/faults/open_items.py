"""Open items as the application knows them: commands that change them by sessions and statements, and documents.

Each way to change them is a function of the table ``WAYS``: what a session flushes, bulk statements, savepoints,
upserts, and changes that reach further rows by foreign keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from diptych import Command, Document, ORMService, Page, Query, ReadModel, by, each, field, join
from tests.acceptance.faults.answers import Answer, TakenError
from tests.acceptance.faults.beside.statements import SIGN, SWAP, UPSERT
from tests.acceptance.faults.history import FRONT_OWNERS, ITEM, MARKED, OPEN_ITEM, Saw
from tests.acceptance.faults.models import (
    Item,
    ItemDocument,
    OpenItem,
    OpenMark,
    OpenOwner,
    OwnedItemDocument,
    OwnerDocument,
    nested_of,
)


class OpenItemReadModel(ReadModel[OpenItem]):
    """Open items by their keys; in lists that each change reorders, or moves an entry of to another part."""

    key = OpenItem.key
    document = ItemDocument
    lists = (
        by(OpenItem.key),
        by(OpenItem.value, OpenItem.key, name="value"),
        by(OpenItem.odd.desc().nulls_last(), OpenItem.key, name="odd"),
        by(OpenItem.owner_id, OpenItem.value.desc(), OpenItem.key, name="owned"),
        by(OpenItem.value, OpenItem.key, name="front", where=OpenItem.owner_id <= FRONT_OWNERS),
    )


class OwnedOpenItemReadModel(ReadModel[OpenItem]):
    """Open items with the names of their owners, by the keys of the items, and in a list by their marks."""

    key = OpenItem.key
    document = OwnedItemDocument
    lists = (by(each(OpenItem.marks, OpenMark.number), OpenItem.value, OpenItem.key, name=MARKED),)
    joined = {"owner_name": join(OpenOwner.name, OpenItem.owner_id, OpenOwner.id)}  # noqa: RUF012 - as documented


class OpenOwnerReadModel(ReadModel[OpenOwner]):
    """Open owners with their items, in the order of the sums of their values."""

    key = OpenOwner.id
    document = OwnerDocument
    nested = nested_of(OpenOwner, OpenItem)
    lists = (by(field("value_total").desc(), OpenOwner.id, name="total"),)


class GetOpenItem(Query[Document[ItemDocument]], frozen=True):
    """The open item with this key."""

    key: str


class ListOpenItems(Query[Page[ItemDocument]], frozen=True):
    """A page of the list ``order``, of the open items of ``owner`` if one is given."""

    order: str
    limit: int
    after: str | None = None
    owner: int | None = None
    count: bool = False


class GetOwnedOpenItem(Query[Document[OwnedItemDocument]], frozen=True):
    """The open item with this key, with its owner's name."""

    key: str


class ListMarkedOpenItems(Query[Page[OwnedItemDocument]], frozen=True):
    """A page of the open items with the mark of this number."""

    mark: int
    limit: int
    after: str | None = None
    count: bool = False


class GetOpenOwner(Query[Document[OwnerDocument]], frozen=True):
    """The open owner with this number, with the items."""

    id: int


class ListOpenOwners(Query[Page[OwnerDocument]], frozen=True):
    """A page of the open owners, those with the greatest sum of values first."""

    limit: int
    after: str | None = None


class OpenQueries:
    """Answers from the plain read model."""

    def __init__(self, items: OpenItemReadModel) -> None:
        self.items = items

    async def get(self, query: GetOpenItem) -> Document[ItemDocument]:
        return await self.items.get(query.key)

    async def page(self, query: ListOpenItems) -> Page[ItemDocument]:
        where = None if query.owner is None else {"owner_id": query.owner}
        return await self.items.page(
            query.order, where=where, limit=query.limit, after=query.after, count=query.count
        )


class JoinedOpenQueries:
    """Answers from the joined read model."""

    def __init__(self, items: OwnedOpenItemReadModel) -> None:
        self.items = items

    async def get_joined(self, query: GetOwnedOpenItem) -> Document[OwnedItemDocument]:
        return await self.items.get(query.key)

    async def marked(self, query: ListMarkedOpenItems) -> Page[OwnedItemDocument]:
        where = {"marks": query.mark}
        return await self.items.page(
            MARKED, where=where, limit=query.limit, after=query.after, count=query.count
        )


class OpenOwnerQueries:
    """Answers from the read model with nested items."""

    def __init__(self, owners: OpenOwnerReadModel) -> None:
        self.owners = owners

    async def get_owner(self, query: GetOpenOwner) -> Document[OwnerDocument]:
        return await self.owners.get(query.id)

    async def page(self, query: ListOpenOwners) -> Page[OwnerDocument]:
        return await self.owners.page("total", limit=query.limit, after=query.after)


class ChangeOpen(Command[Answer], frozen=True):
    """Changes open items, or an owner of theirs, in one of ``WAYS``."""

    way: str
    keys: list[str]
    write: int
    owner: int


class OpenCommands:
    """Changes open items. Each command is one transaction."""

    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def change(self, command: ChangeOpen) -> Answer:
        return await WAYS[command.way](self.orm, command)


@contextlib.asynccontextmanager
async def _signed(orm: ORMService, command: ChangeOpen) -> AsyncIterator[AsyncSession]:
    async with orm.session() as session:
        await session.execute(sa.text(SIGN), {"write": command.write})
        yield session


async def _found(session: AsyncSession, key: str) -> tuple[OpenItem | None, Saw]:
    item = await session.scalar(sa.select(OpenItem).where(OpenItem.key == key).with_for_update())
    return item, Saw(OPEN_ITEM, key) if item is None else Saw(OPEN_ITEM, key, item.value, item.owner_id)


async def _rows(session: AsyncSession, statement: sa.Executable, values: Any = None) -> int:
    """Executes a statement that changes rows. Returns how many."""
    result: Any = await session.execute(statement, values)
    return int(result.rowcount)


def _new(command: ChangeOpen) -> OpenItem:
    return OpenItem(key=command.keys[0], value=command.write, owner_id=command.owner)


# By what a session flushes


async def _add(orm: ORMService, command: ChangeOpen) -> Answer:
    async with _signed(orm, command) as session:
        session.add(_new(command))
    return Answer(True, [])


async def _change(orm: ORMService, command: ChangeOpen) -> Answer:
    async with _signed(orm, command) as session:
        item, saw = await _found(session, command.keys[0])
        if item is not None:
            item.value = command.write
            item.owner_id = command.owner if command.write % 3 == 0 else item.owner_id
    return Answer(item is not None, [saw])


async def _delete(orm: ORMService, command: ChangeOpen) -> Answer:
    async with _signed(orm, command) as session:
        item, saw = await _found(session, command.keys[0])
        if item is not None:
            await session.delete(item)
    return Answer(item is not None, [saw])


async def _rename(orm: ORMService, command: ChangeOpen) -> Answer:
    async with _signed(orm, command) as session:
        item, saw = await _found(session, command.keys[0])
        if item is not None:
            item.key, item.value = command.keys[1], command.write
    return Answer(item is not None, [saw])


async def _claim(orm: ORMService, command: ChangeOpen) -> Answer:
    async with _signed(orm, command) as session:
        item, saw = await _found(session, command.keys[0])
        if item is not None:
            raise TakenError(saw)
        session.add(_new(command))
    return Answer(True, [saw])


async def _look(orm: ORMService, command: ChangeOpen) -> Answer:
    async with orm.session() as session:
        _, saw = await _found(session, command.keys[0])
    return Answer(False, [saw])


class _GivenUpError(Exception):
    """What a savepoint is rolled back for."""


async def _within_savepoints(orm: ORMService, command: ChangeOpen) -> Answer:
    """What the first savepoint has changed is never seen by anybody."""
    async with _signed(orm, command) as session:
        with contextlib.suppress(_GivenUpError):
            async with session.begin_nested():
                await session.execute(sa.delete(OpenItem).where(OpenItem.key == command.keys[1]))
                await session.execute(_valued(command, command.keys[0]))
                raise _GivenUpError
        async with session.begin_nested():
            changed = await _rows(session, _valued(command, command.keys[0]))
    return Answer(changed > 0, [])


async def _with_orm_service(orm: ORMService, command: ChangeOpen) -> Answer:
    """An open item by the session, and an item that is not open by ``ORMService``."""
    has_changed = await orm.update(Item, command.keys[1], "key", value=command.write)
    answer = await _change(orm, command)
    saw = [] if has_changed else [Saw(ITEM, command.keys[1])]
    return Answer(answer.changed or has_changed, [*answer.saw, *saw])


# By statements


def _valued(command: ChangeOpen, *keys: str) -> sa.Update:
    return sa.update(OpenItem).where(OpenItem.key.in_(keys)).values(value=command.write)


async def _change_several(orm: ORMService, command: ChangeOpen) -> Answer:
    async with _signed(orm, command) as session:
        changed = await _rows(session, _valued(command, *command.keys))
    return Answer(changed > 0, [])


async def _change_by_statement(orm: ORMService, command: ChangeOpen) -> Answer:
    changed = await orm.execute(_valued(command, command.keys[0]))
    return Answer(bool(changed.rowcount), [])


async def _upsert(orm: ORMService, command: ChangeOpen) -> Answer:
    values = {"key": command.keys[0], "value": command.write, "owner": command.owner}
    await orm.execute(sa.text(UPSERT), values)
    return Answer(True, [])


async def _save(orm: ORMService, command: ChangeOpen) -> Answer:
    """As an upsert, through ``ORMService``."""
    key, value, owner = command.keys[0], command.write, command.owner
    await orm.upsert(OpenItem, conflict_on=OpenItem.key, key=key, value=value, owner_id=owner)
    return Answer(True, [])


async def _swap(orm: ORMService, command: ChangeOpen) -> Answer:
    values = {"key": command.keys[0], "other": command.keys[1], "between": f"between {command.write}"}
    async with _signed(orm, command) as session:
        changed = [await _rows(session, sa.text(text), values) for text in SWAP]
    return Answer(any(changed), [])


# Of owners: what they own goes with them


async def _name_owner(orm: ORMService, command: ChangeOpen) -> Answer:
    update = sa.update(OpenOwner).where(OpenOwner.id == int(command.keys[0]))
    changed = await orm.execute(update.values(name=str(command.write)))
    return Answer(bool(changed.rowcount), [])


async def _number_owner(orm: ORMService, command: ChangeOpen) -> Answer:
    former, number = map(int, command.keys)
    async with _signed(orm, command) as session:
        update = sa.update(OpenOwner).where(OpenOwner.id == former).values(id=number)
        changed = await _rows(session, update.execution_options(synchronize_session=False))
    return Answer(changed > 0, [])


async def _recreate_owner(orm: ORMService, command: ChangeOpen) -> Answer:
    number = int(command.keys[0])
    async with _signed(orm, command) as session:
        owner = await session.get(OpenOwner, number, with_for_update=True)
        if owner is not None:
            await session.delete(owner)
            await session.flush()
        session.add(OpenOwner(id=number, name=str(command.write)))
    return Answer(True, [])


WITH_ORM_SERVICE = "open: change with ORMService"
"""The way in which the second key is that of an item that is not open."""

Way = Callable[[ORMService, ChangeOpen], Awaitable[Answer]]

WAYS: Mapping[str, Way] = {
    "open: add": _add,
    "open: change": _change,
    "open: delete": _delete,
    "open: rename": _rename,
    "open: claim": _claim,
    "open: look": _look,
    "open: change within savepoints": _within_savepoints,
    WITH_ORM_SERVICE: _with_orm_service,
    "open: change several": _change_several,
    "open: change by a statement": _change_by_statement,
    "open: upsert": _upsert,
    "open: save": _save,
    "open: swap": _swap,
    "open: name owner": _name_owner,
    "open: number owner": _number_owner,
    "open: re-create owner": _recreate_owner,
}

OF_TWO = frozenset(
    {
        "open: rename",
        "open: change within savepoints",
        WITH_ORM_SERVICE,
        "open: change several",
        "open: swap",
        "open: number owner",
    }
)
"""The ways for which there are two keys."""


def keys_of_owners(way: str) -> bool:
    """Whether the keys of a command in this way are those of owners."""
    return way.endswith("owner")
