"""What a process asks, and what it records of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from diptych import Document, UnavailableError, UnreadableRowError
from tests.acceptance.faults.beside import statements as beside
from tests.acceptance.faults.history import (
    ITEM,
    MARKED,
    NESTED,
    OWNER_OF,
    Entry,
    Failure,
    Get,
    Page,
    Record,
    now,
)
from tests.acceptance.faults.models import ItemDocument, OwnedItemDocument, OwnerDocument
from tests.acceptance.faults.queries import OWNED, QUERIES


class Asking:
    """Asks for documents and pages as process ``number``, and tells which store answers each kind of query."""

    def __init__(
        self,
        bus: Any,
        number: int,
        chance: random.Random,
        record: Callable[[Record], None],
        tell: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._number = number
        self._random = chance
        self._record = record
        self._tell = tell
        self._stores: dict[str, str] = {}

    async def get(self, key: str, entity: str = ITEM) -> None:
        """A document by its key."""
        queries = QUERIES[entity]
        async with self._recording_failure(queries.names[0], key) as begun:
            document = await self._bus.ask(queries.get(key))
            ended = now()
            item = self._decoded(document, ItemDocument, queries.names[0])
            served = document.served.store, document.served.reason or ""
            get = Get(key, self._number, begun, ended, *served, entity=entity)
            if item is not None:
                get = msgspec.structs.replace(get, value=item.value, owner=item.owner_id, found=item.key)
            self._record(get)

    async def get_joined(self, key: str, entity: str = ITEM) -> None:
        """A document with its owner's name."""
        queries = QUERIES[entity]
        async with self._recording_failure(queries.names[1], key) as begun:
            document = await self._bus.ask(queries.joined(key))
            ended = now()
            item = self._decoded(document, OwnedItemDocument, queries.names[1])
            served = document.served.store, document.served.reason or ""
            get = Get(key, self._number, begun, ended, *served, joined=True, entity=entity)
            if item is not None:
                replaced = {"owner_name": item.owner_name, "found": item.key}
                get = msgspec.structs.replace(get, value=item.value, owner=item.owner_id, **replaced)
            self._record(get)

    async def get_owner(self, number: int, entity: str = ITEM) -> None:
        """An owner with the items: told as the owner, and as a page of them."""
        queries = QUERIES[entity]
        async with self._recording_failure(queries.names[3], str(number)) as begun:
            document = await self._bus.ask(queries.owner(number))
            ended = now()
            found: OwnerDocument | None = self._decoded(document, OwnerDocument, queries.names[3])
            of = self._number, begun, ended, document.served.store, document.served.reason or ""
            get = Get(str(number), *of, entity=OWNER_OF[entity])
            if found is None:
                self._record(get)
                return
            self._record(msgspec.structs.replace(get, value=found.name, found=str(found.id)))
            entries = [Entry(item.key, item.value, number) for item in found.items]
            page = Page(NESTED, None, len(entries), *of, False, entries, 0, entity, number, found.item_count)
            self._record(page)
            if fault := fault_of_numbers(found):
                failure = Failure(queries.names[3], str(number), begun, ended, fault, expected=False)
                self._record(failure)

    def _decoded(self, document: Document[Any], kind: type[Any], what: str) -> Any:
        self._note_store(what, document.served.store)
        return None if document.body is None else msgspec.json.decode(document.body, type=kind)

    async def browse(self, order: str, entity: str = ITEM) -> None:
        """A page, and now and then the one after it."""
        cursor, last = None, None
        limit, count = self._random.choice([3, 10, 10, 60]), self._random.random() < 0.3
        owner = self._random.randint(1, beside.OWNERS) if order == OWNED else None
        queries = QUERIES[entity]
        for _ in range(self._random.choice([1, 1, 2, 4])):
            async with self._recording_failure(queries.names[2], order) as begun:
                page = await self._bus.ask(queries.page(order, limit, cursor, owner, count))
                ended = now()
                # Of a list by marks it is the read model of joined documents that has answered.
                self._note_store(queries.names[1 if order.startswith(MARKED) else 2], page.served.store)
                items = page.decode()
                cursor = items.next
                entries = [Entry(item.key, item.value, item.owner_id) for item in items.items]
                served = page.served.store, page.served.reason or ""
                times = self._number, begun, ended
                more, aside = cursor is not None, page.set_aside
                of: tuple[Any, ...] = entity, owner, items.total
                self._record(Page(order, last, limit, *times, *served, more, entries, aside, *of))
                last = entries[-1] if entries else None
            if cursor is None or aside:
                # Where the page ends is not known if its last row may be one that does not fit.
                return

    @contextlib.asynccontextmanager
    async def _recording_failure(self, kind: str, key: str) -> AsyncIterator[int]:
        begun = now()
        try:
            yield begun
        except UnreadableRowError:
            joined = kind == "joined"
            self._record(Get(key, self._number, begun, now(), "none", "", joined=joined, is_aside=True))
        except UnavailableError as error:
            self._record(Failure(kind, key, begun, now(), told(error), expected=True))
            self._note_store(kind, "none")
            await asyncio.sleep(0.02)
        except Exception as error:
            self._record(Failure(kind, key, begun, now(), told(error), expected=False))
            await asyncio.sleep(0.1)

    def _note_store(self, what: str, store: str) -> None:
        if self._stores.get(what) != store:
            self._stores[what] = store
            self._tell(f"store {what} {store}")


def fault_of_numbers(owner: OwnerDocument) -> str:
    """What the numbers of an owner's document contradict of the items in it: all are made in one snapshot."""
    values = [item.value for item in owner.items]
    mean = None
    if values:
        mean = (Decimal(sum(values)) / len(values)).quantize(Decimal("0.001"), ROUND_HALF_UP)
    first = owner.items[0] if owner.items else None
    wanted = len(values), sum(values), mean, max(values, default=None), first
    found = owner.item_count, owner.value_total, owner.value_mean, owner.greatest, owner.first
    return "" if found == wanted else f"the items of {owner.id} give {wanted}, and not {found}"


def told(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"[:300]
