"""What is left in every place when all processes have ended: the log, the rows, and what Redis answers."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import sqlalchemy as sa

from diptych import ConfigService, UnreadableRowError
from tests.acceptance.faults import application as app
from tests.acceptance.faults.asking import fault_of_numbers
from tests.acceptance.faults.beside.statements import ANY_OWNER
from tests.acceptance.faults.checker import Ending
from tests.acceptance.faults.history import AUDIT, ITEM, OPEN_ITEM, OWNER, OWNER_OF, Entry, LogRow
from tests.acceptance.faults.models import Item, OpenItem, OpenOwner, Owner
from tests.acceptance.faults.queries import LISTS_OF, OWNED, QUERIES

_LOG = sa.text(
    "SELECT position, entity, kind, old_key, key, image, correlation_id FROM diptych_log ORDER BY position"
)

_LOGGED = (ITEM, OWNER, AUDIT)
"""Of what anybody changes the ledger tells."""


def read_log(engine: sa.Engine) -> list[LogRow]:
    """The change log as it is now, in its order."""
    with engine.connect() as connection:
        # Rows whose personal data are forgotten tell nothing; the entries of triggers neither.
        rows = connection.execute(_LOG)
        return [_log_row(*row) for row in rows if row.image is not None and row.entity in _LOGGED]


async def look_everywhere(configuration: ConfigService, log: list[LogRow]) -> list[Ending]:
    """What a process that is started now finds of each entity. Fails if Redis does not get to answer it."""
    async with app.application(configuration) as application:
        await _answered_by_redis(application)
        return [await _ending(application, entity, _keys(log, entity)) for entity in OWNER_OF]


def _keys(log: list[LogRow], entity: str) -> list[str]:
    return sorted({key for row in log if row.entity == entity for key in (row.key, row.old_key) if key})


async def _answered_by_redis(application: Any, timeout_s: float = 20) -> None:
    """Waits until Redis answers; fails with the reasons why it does not."""
    deadline = time.monotonic() + timeout_s
    while True:
        health = await application.health()
        if all(read_model.served_by == "redis" for read_model in health.read_models.values()):
            return
        assert time.monotonic() < deadline, f"SQL answers: {health}"
        await asyncio.sleep(0.02)


def _log_row(
    position: int,
    entity: str,
    kind: str,
    old_key: str | None,
    key: str,
    image: str,
    correlation_id: str | None,
) -> LogRow:
    name = "key" if entity == ITEM else "id"
    before = None if old_key is None else str(json.loads(old_key)[name])
    row = json.loads(image)
    value = row[{ITEM: "value", AUDIT: "found"}.get(entity, "name")]
    write = int(correlation_id or 0)
    return LogRow(
        position, entity, kind, before, str(json.loads(key)[name]), value, row.get("owner_id"), write
    )


_ROWS = {ITEM: (Item, Owner), OPEN_ITEM: (OpenItem, OpenOwner)}


async def _ending(application: Any, entity: str, keys: list[str]) -> Ending:
    orm, queries = application.orm, QUERIES[entity]
    items, owners = _ROWS[entity]
    rows = {row.key: Entry(row.key, row.value, row.owner_id) async for row in orm.iterate(items)}
    names = {str(owner.id): owner.name async for owner in orm.iterate(owners)}
    documents: dict[str, Entry] = {}
    joined: dict[str, tuple[Entry, str | None]] = {}
    for key in keys:
        if (item := await _from_redis(application, queries.get(key))) is not None:
            documents[key] = Entry(item.key, item.value, item.owner_id)
        if (owned := await _from_redis(application, queries.joined(key))) is not None:
            joined[key] = Entry(owned.key, owned.value, owned.owner_id), owned.owner_name
    lists = {
        order: await _whole_list(application, entity, order) for order in LISTS_OF[entity] if order != OWNED
    }
    parts = [await _whole_list(application, entity, OWNED, int(owner)) for owner in sorted(names, key=int)]
    lists[OWNED] = [entry for part in parts for entry in part]
    nested: dict[str, tuple[str, list[Entry]]] = {}
    for number in ANY_OWNER:
        if (owner := await _from_redis(application, queries.owner(number))) is not None:
            assert not (fault := fault_of_numbers(owner)), fault
            entries = [Entry(item.key, item.value, owner.id) for item in owner.items]
            nested[str(owner.id)] = owner.name, entries
    by_total = [str(owner.id) for owner in (await _from_redis(application, queries.owners(100))).items]
    return Ending(rows, names, documents, joined, lists, entity, nested, by_total)


async def _from_redis(application: Any, query: Any) -> Any:
    """The decoded answer, from Redis however often that takes."""
    for _ in range(200):
        try:
            answer = await application.ask(query)
        except UnreadableRowError:
            return None
        if answer.served.store == "redis":
            return answer.decode()
        await asyncio.sleep(0.02)
    raise AssertionError(f"SQL answers at the end: {answer.served}")


async def _whole_list(application: Any, entity: str, order: str, owner: int | None = None) -> list[Entry]:
    entries: list[Entry] = []
    after: str | None = None
    while True:
        page = await _from_redis(application, QUERIES[entity].page(order, 50, after, owner))
        entries += [Entry(item.key, item.value, item.owner_id) for item in page.items]
        after = page.next
        if after is None:
            return entries
