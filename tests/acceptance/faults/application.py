"""What the processes run: items that have owners, in documents of their own and joined with their owner's name.

The commands here change rows through ``ORMService`` alone; those of ``open_items`` use sessions and statements.
Beside them is a table that no read model is made from, in which commands write what they have found.
"""

from __future__ import annotations

from typing import Any

from diptych import (
    Command,
    ConfigService,
    Diptych,
    Document,
    ORMService,
    Page,
    Query,
    ReadModel,
    by,
    field,
    join,
)
from diptych.log import CommandContext
from tests.acceptance.faults.answers import Answer, TakenError
from tests.acceptance.faults.history import FRONT_OWNERS, ITEM, OWNER, Saw
from tests.acceptance.faults.models import (
    Audit,
    Base,
    Item,
    ItemDocument,
    OwnedItemDocument,
    Owner,
    OwnerDocument,
    nested_of,
)
from tests.acceptance.faults.open_items import (
    JoinedOpenQueries,
    OpenCommands,
    OpenItemReadModel,
    OpenOwnerQueries,
    OpenOwnerReadModel,
    OpenQueries,
    OwnedOpenItemReadModel,
)


class ItemReadModel(ReadModel[Item]):
    """Items by their keys; in lists that each change reorders, or moves an entry of to another part."""

    key = Item.key
    document = ItemDocument
    lists = (
        by(Item.key),
        by(Item.value, Item.key, name="value"),
        by(Item.odd.desc().nulls_last(), Item.key, name="odd"),
        by(Item.owner_id, Item.value.desc(), Item.key, name="owned"),
        by(Item.value, Item.key, name="front", where=Item.owner_id <= FRONT_OWNERS),
    )


class OwnedItemReadModel(ReadModel[Item]):
    """Items with the names of their owners, by the keys of the items."""

    key = Item.key
    document = OwnedItemDocument
    joined = {"owner_name": join(Owner.name, Item.owner_id, Owner.id)}  # noqa: RUF012 - as it is documented


class OwnerReadModel(ReadModel[Owner]):
    """Owners with their items, in the order of the sums of their values."""

    key = Owner.id
    document = OwnerDocument
    nested = nested_of(Owner, Item)
    lists = (by(field("value_total").desc(), Owner.id, name="total"),)


READ_MODELS: tuple[type[ReadModel[Any]], ...] = (
    ItemReadModel,
    OwnedItemReadModel,
    OpenItemReadModel,
    OwnedOpenItemReadModel,
    OwnerReadModel,
    OpenOwnerReadModel,
)


class AddItem(Command[bool], frozen=True):
    """Adds an item; a key that is taken is an error."""

    key: str
    value: int
    owner: int


class ChangeItem(Command[bool], frozen=True):
    """Gives an item, if it is there, a new value and perhaps a new owner."""

    key: str
    value: int
    owner: int | None = None


class DeleteItem(Command[bool], frozen=True):
    """Deletes an item, if it is there."""

    key: str


class RecreateItem(Command[bool], frozen=True):
    """Deletes an item, if it is there, and adds another with the same key."""

    key: str
    value: int
    owner: int


class RenameItem(Command[bool], frozen=True):
    """Gives an item, if it is there, another key, which must be free."""

    key: str
    to: str
    value: int


class ChangeItems(Command[bool], frozen=True):
    """Changes several items, those that are there, in one transaction."""

    keys: list[str]
    value: int


class ChangeNothing(Command[bool], frozen=True):
    """Changes an item and then fails."""

    key: str
    value: int


class RenameOwner(Command[bool], frozen=True):
    """Gives an owner another name."""

    id: int
    name: str


class LookAtItem(Command[Answer], frozen=True):
    """Tells what is under a key, and changes at most the audit."""

    key: str
    audit: bool


class LookAtOwner(Command[Answer], frozen=True):
    """Tells an owner's name, and changes at most the audit."""

    id: int
    audit: bool


class ClaimItem(Command[Answer], frozen=True):
    """Adds an item, or tells as an error who is under its key."""

    key: str
    value: int
    owner: int


class ChangeItemOnce(Command[Answer], frozen=True):
    """Gives an item, if it is there, a new value, unless write ``former`` did already: a careful retry of that."""

    key: str
    former: int
    value: int
    audit: bool


class ChangedMindError(Exception):
    """What ``ChangeNothing`` fails with."""


class Commands:
    """Changes rows. Each method is one transaction and returns whether it has changed anything."""

    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add(self, command: AddItem) -> bool:
        await self.orm.create(Item, key=command.key, value=command.value, owner_id=command.owner)
        return True

    async def change(self, command: ChangeItem) -> bool:
        fields: dict[str, Any] = {"value": command.value}
        if command.owner is not None:
            fields["owner_id"] = command.owner
        return await self.orm.update(Item, command.key, "key", **fields)

    async def delete(self, command: DeleteItem) -> bool:
        return await self.orm.delete(Item, command.key, "key")

    async def recreate(self, command: RecreateItem) -> bool:
        await self.orm.delete(Item, command.key, "key")
        return await self.add(AddItem(command.key, command.value, command.owner))

    async def rename(self, command: RenameItem) -> bool:
        return await self.orm.update(Item, command.key, "key", key=command.to, value=command.value)

    async def change_several(self, command: ChangeItems) -> bool:
        return any([await self.orm.update(Item, key, "key", value=command.value) for key in command.keys])

    async def change_nothing(self, command: ChangeNothing) -> bool:
        await self.orm.update(Item, command.key, "key", value=command.value)
        raise ChangedMindError

    async def rename_owner(self, command: RenameOwner) -> bool:
        return await self.orm.update(Owner, command.id, name=command.name)

    async def look_at_item(self, command: LookAtItem) -> Answer:
        return await self._told(await self._find(command.key), command.audit)

    async def look_at_owner(self, command: LookAtOwner) -> Answer:
        owner = await self.orm.get(Owner, command.id)
        return await self._told(
            Saw(OWNER, str(command.id), None if owner is None else owner.name), command.audit
        )

    async def claim(self, command: ClaimItem) -> Answer:
        saw = await self._find(command.key)
        if saw.value is not None:
            raise TakenError(saw)
        return Answer(await self.add(AddItem(command.key, command.value, command.owner)), [saw])

    async def change_once(self, command: ChangeItemOnce) -> Answer:
        saw = await self._find(command.key)
        answer = await self._told(saw, command.audit)
        if saw.value is None or saw.value == command.former:
            return answer
        await self.orm.update(Item, command.key, "key", value=command.value)
        return answer._replace(changed=True)

    async def _find(self, key: str) -> Saw:
        item = await self.orm.get(Item, key, "key")
        return Saw(ITEM, key) if item is None else Saw(ITEM, key, item.value, item.owner_id)

    async def _told(self, saw: Saw, audit: bool) -> Answer:
        if audit:
            await self.orm.create(Audit, found=f"{saw.entity} {saw.key}: {saw.value}")
        return Answer(audit, [saw])


class GetItem(Query[Document[ItemDocument]], frozen=True):
    """The item with this key."""

    key: str


class ListItems(Query[Page[ItemDocument]], frozen=True):
    """A page of the list ``order``, of the items of ``owner`` if one is given."""

    order: str
    limit: int
    after: str | None = None
    owner: int | None = None
    count: bool = False


class GetOwnedItem(Query[Document[OwnedItemDocument]], frozen=True):
    """The item with this key, with its owner's name."""

    key: str


class GetOwner(Query[Document[OwnerDocument]], frozen=True):
    """The owner with this number, with the items."""

    id: int


class ListOwners(Query[Page[OwnerDocument]], frozen=True):
    """A page of the owners, those with the greatest sum of values first."""

    limit: int
    after: str | None = None


class Queries:
    """Answers from the plain read model."""

    def __init__(self, items: ItemReadModel) -> None:
        self.items = items

    async def get(self, query: GetItem) -> Document[ItemDocument]:
        return await self.items.get(query.key)

    async def page(self, query: ListItems) -> Page[ItemDocument]:
        where = None if query.owner is None else {"owner_id": query.owner}
        return await self.items.page(
            query.order, where=where, limit=query.limit, after=query.after, count=query.count
        )


class JoinedQueries:
    """Answers from the joined read model."""

    def __init__(self, items: OwnedItemReadModel) -> None:
        self.items = items

    async def get_joined(self, query: GetOwnedItem) -> Document[OwnedItemDocument]:
        return await self.items.get(query.key)


class OwnerQueries:
    """Answers from the read model with nested items."""

    def __init__(self, owners: OwnerReadModel) -> None:
        self.owners = owners

    async def get_owner(self, query: GetOwner) -> Document[OwnerDocument]:
        return await self.owners.get(query.id)

    async def page(self, query: ListOwners) -> Page[OwnerDocument]:
        return await self.owners.page("total", limit=query.limit, after=query.after)


def config(database: str, redis: str | None, lease_ms: int, **settings: Any) -> ConfigService:
    """The settings of a process, quick to notice what is away."""
    values: dict[str, Any] = {
        "redis_query_timeout_ms": 250,
        "redis_command_timeout_ms": 500,
        "redis_probe_interval_ms": 50,
        "database_statement_timeout_ms": 3000,
        "database_timeout_ms": 3000,
        "database_pool_size": 6,
        "sqlite_synchronous": "NORMAL",  # no fault here is one of the machine; PostgreSQL has fsync=off
    }
    values |= {"database_url": database, "redis_url": redis, "lease_ms": lease_ms, **settings}
    return ConfigService(environ={}, **values)


COMMANDS = (Commands, OpenCommands)
QUERIES = (Queries, JoinedQueries, OwnerQueries, OpenQueries, JoinedOpenQueries, OpenOwnerQueries)


def application(configuration: ConfigService, revision: int = 1, *, renamed: bool = False) -> Diptych:
    """The application with this revision of its read models' declarations, or with other names for them."""
    for model in READ_MODELS:
        model.revision = revision
        if renamed:
            model.__name__ = f"Renamed{model.__name__}"
    return Diptych(
        configuration,
        models=Base,
        handlers=[*COMMANDS, *QUERIES],
        read_models=READ_MODELS,
    )


def context_of(write: int) -> CommandContext:
    """The context under which a write that goes through ``ORMService`` alone is logged."""
    return CommandContext(command_id=f"write {write}", correlation_id=str(write))
