"""Nested fields of generated declarations: documents and lists are what plain Python makes of the rows.

Rows are changed by commands, sessions, statements and other programs. ``DIPTYCH_DECLARATIONS`` chooses how many
declarations are tried, ``DIPTYCH_SEED`` which.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pytest

from diptych import Diptych, between, starts_with
from diptych.fence.contract import Target
from diptych.hinge.replay import LogReplay
from diptych.log import NOTHING, LogPart, Snapshot
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import ListIndex
from diptych.read.sql.rows import SqlRows
from diptych.read.store.writes import Write, Writes
from diptych.redis import RedisIdentity
from tests.catalogue import answered_by
from tests.configuration import configured
from tests.conformance.nested.declared import Declared
from tests.conformance.nested.oracle import Tables, document, related, values
from tests.conformance.nested.rows import Rows
from tests.conformance.nested.tables import RELS, Base, Book
from tests.conformance.pages import Shown, asked_of, selected_ids, walk

DECLARATIONS = int(os.environ.get("DIPTYCH_DECLARATIONS", "2"))
SEED = int(os.environ.get("DIPTYCH_SEED", "0"))
MODELS = 6
TURNS = 15
STORED_MODELS = 4
STORED_TURNS = 8
BATCH = 3
"""Number of rows that are read at once: few, so that there are several batches."""

TARGET = Target(RedisIdentity("", ""), "")


class Stored(NamedTuple):
    body: bytes
    entries: tuple[bytes, ...]


class Kept:
    """What passes would have written into Redis, and how much of it was there already."""

    def __init__(self, compiled: CompiledReadModel) -> None:
        self.writes = Writes(compiled)
        self.documents: dict[bytes, Stored] = {}
        self.written = 0
        self.unchanged = 0

    async def apply(self, target: Target, writes: Sequence[Write], **_: Any) -> str:
        for write in writes:
            there = None if write.body is None else Stored(write.body, write.entries)
            self.written += 1
            self.unchanged += there == self.documents.get(write.key)
            if there is None:
                self.documents.pop(write.key, None)
            else:
                self.documents[write.key] = there
        return "OK"


class Follower:
    """A read model kept by its log alone, as passes keep Redis, beside the rows that it is made from."""

    def __init__(self, app: Diptych, declared: Declared, model: Any) -> None:
        self.declared = declared
        self.compiled: CompiledReadModel = model._reader._compiled
        self.source: SqlRows = model._reader._fallback._source
        self.kept = Kept(self.compiled)
        self._fence = app.orm.side.fence
        kept: Any = self.kept
        self._replay = LogReplay(self.compiled, self.source, kept, self._fence, batch_size=BATCH)
        self._cursor: Snapshot = NOTHING

    async def follow(self) -> None:
        """Writes what the changes since the last time touch."""
        async with self._fence.view() as view:
            part: LogPart | None = None
            while part is None or part.more:
                part = await self._fence.changes(self.compiled.tables, self._cursor, 7, part, view)
                async for writes in self._replay.joined_writes(part, view):
                    await self.kept.apply(TARGET, writes)
            self._cursor = part.snapshot

    async def fresh(self) -> dict[bytes, Stored]:
        """What is made from the rows now."""
        writes = [
            write
            async for rows in self.source.scan(BATCH)
            for row in rows
            for write in self.kept.writes.writes_at_all(row, 0, 0)
        ]
        copied = {write.key: write for write in writes}
        return {key: Stored(write.body or b"", write.entries) for key, write in copied.items()}

    def wanted(self, tables: Tables) -> dict[int, bytes]:
        """The documents by the ids of their rows."""
        body = self.declared.body
        rows = tables[body.model.__tablename__]
        return {row["id"]: document(body, row, tables) for row in rows if self.declared.shows(row)}


@contextlib.asynccontextmanager
async def application(
    declared: Sequence[Declared], database_url: str, redis_url: str | None = None
) -> AsyncIterator[tuple[Diptych, list[Any]]]:
    """The application, and its read models."""
    made: list[Any] = []
    handlers = [_handler(each.model, made) for each in declared]
    # Redis may be slow on a busy machine: SQL would answer in its place.
    config = configured(database_url, redis_url, redis_query_timeout_ms=20_000)
    models = [each.model for each in declared]
    async with Diptych(config, models=Base, handlers=handlers, read_models=models) as app:
        yield app, made


def _handler(model: Any, made: list[Any]) -> type:
    def init(_handler: Any, asked: Any) -> None:
        made.append(asked)

    init.__annotations__ = {"asked": model}
    return type(f"Asks{model.__name__}", (), {"__init__": init})


async def _changes(database_url: str, seed: int, told: list[Kept]) -> AsyncIterator[list[dict[int, bytes]]]:
    """Yields, after each of the changes of this seed, the documents of each read model in SQL."""
    chance = random.Random(seed)
    declared = [Declared(chance, f"Seed{seed}ReadModel{n}") for n in range(MODELS)]
    async with application(declared, database_url) as (app, models):
        followers = [Follower(app, *each) for each in zip(declared, models, strict=True)]
        rows = Rows(chance, app)
        await rows.fill()
        for turn in range(TURNS):
            change = "filled" if turn == 0 else await rows.change()
            tables = await rows.read()
            shown = []
            for follower, model in zip(followers, models, strict=True):
                where = (seed, turn, change, follower.compiled.name)
                await follower.follow()
                fresh, wanted = await follower.fresh(), follower.wanted(tables)
                _check_same(follower.kept.documents, fresh, where)
                found = {number: (await model.get(number)).body for number in wanted}
                _check_same(found, wanted, where)
                assert len(fresh) == len(wanted) * len(follower.compiled.addresses), where
                shown.append(found)
            yield shown
        told += [follower.kept for follower in followers]


def _check_same(one: Mapping[Any, Any], other: Mapping[Any, Any], where: object) -> None:
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    told = "\n".join(f"{key}\n  {one.get(key)}\n  {other.get(key)}" for key in differing[:3])
    assert not differing, f"{where}\n{told}"


@pytest.mark.parametrize("seed", range(SEED, SEED + DECLARATIONS))
async def test_what_a_change_touches_is_all_that_it_alters(sqlite_url, postgres_url, seed):
    """The documents are also what Python makes of the rows, the same from both databases."""
    told: list[Kept] = []
    shown = [[each async for each in _changes(url, seed, told)] for url in (sqlite_url, postgres_url)]
    for turn, (of_sqlite, of_postgresql) in enumerate(zip(*shown, strict=True)):
        for one, other in zip(of_sqlite, of_postgresql, strict=True):
            _check_same(one, other, (seed, turn))
    written, unchanged = (sum(getattr(kept, name) for kept in told) for name in ("written", "unchanged"))
    print(f"seed {seed}: {written} documents written, {unchanged} of them as they were")  # noqa: T201


@pytest.mark.parametrize("seed", range(SEED, SEED + DECLARATIONS))
async def test_both_stores_give_what_python_makes_of_the_rows(database_url, valkey, seed):
    """The bytes of every document and of every page, forwards and backwards, while anybody changes the rows."""
    chance = random.Random(seed)
    declared = [Declared(chance, f"Seed{seed}Stored{n}") for n in range(STORED_MODELS)]
    async with (
        application(declared, database_url, valkey.url) as (app, from_redis),
        application(declared, database_url) as (_, from_sql),
    ):
        rows = Rows(chance, app)
        await rows.fill()
        for turn in range(STORED_TURNS):
            changes = [await _changed(rows) for _ in range(min(turn, 3))]
            tables = await rows.read()
            await app.catch_up()
            await answered_by(app, "redis")
            for each, *models in zip(declared, from_redis, from_sql, strict=True):
                told = (seed, turn, changes, each.model.__name__)
                stored = Stores(app, *models)
                await stored.check_documents(each, tables, told)
                await stored.check_list(each, tables, chance, told)


async def _changed(rows: Rows) -> str:
    await rows.read()
    return await rows.change()


class Stores:
    """A read model of an application with Redis, and the same one of another without."""

    def __init__(self, app: Diptych, redis: Any, sql: Any) -> None:
        self._app = app
        self._redis = redis
        self._sql = sql

    async def _in_redis(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Asks, and again if a lease has run out, as it may while the machine is busy with other things."""
        for _ in range(3):
            found = await ask()
            served = [each.served for each in found] if isinstance(found, list) else [found.served]
            if {each.store for each in served} <= {"redis"}:
                return found
            await answered_by(self._app, "redis")
        raise AssertionError(served)

    async def check_documents(self, declared: Declared, tables: Tables, told: object) -> None:
        body = declared.body
        table = tables[body.model.__tablename__]
        wanted = {row["id"]: document(body, row, tables) for row in table if declared.shows(row)}
        ids = [row["id"] for row in table]
        for model, store in ((self._redis, "redis"), (self._sql, "sql")):
            if store == "redis":
                found = await self._in_redis(partial(model.get_many, ids))
            else:
                found = await model.get_many(ids)
            shown = {number: each.body for number, each in zip(ids, found, strict=True) if each.body}
            _check_same(shown, wanted, (store, told))
            if declared.model.also:
                codes = [row["code"] for row in table]
                assert [each.body for each in await model.get_many(code=codes)] == [
                    each.body for each in found
                ], (store, told)

    async def check_list(
        self, declared: Declared, tables: Tables, chance: random.Random, told: object
    ) -> None:
        index = chance.choice(self._redis._reader._compiled.lists)
        listed = _listed(declared, index, tables)
        where = _filter_of(chance, index, listed)
        asked = asked_of(chance, where)
        told = (told, str(index.order), where, asked)

        async def page(**asked: Any) -> Shown:
            found = await self._in_redis(partial(self._redis.page, index.name, where=where, **asked))
            assert found.body == (await self._sql.page(index.name, where=where, **asked)).body, told
            return msgspec.json.decode(found.body, type=Shown)

        await walk(page, selected_ids(listed, index, where), asked, told)


def _listed(declared: Declared, index: ListIndex, tables: Tables) -> list[dict[str, Any]]:
    """The rows of a list, with an entry for each of their tags in a list by tags."""
    body, has = declared.body, declared.has[index.name]
    rows = [row for row in tables[body.model.__tablename__] if declared.shows(row) and has(row)]
    found = [values(body, row, tables) for row in rows]
    if index.collection is None:
        return found
    tags = RELS[Book]["tags"]
    return [
        {**shown, "tags": tag["name"]}
        for row, shown in zip(rows, found, strict=True)
        for tag in related(tags, row, tables)
    ]


def _filter_of(
    chance: random.Random, index: ListIndex, listed: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    least = 0 if index.each_at is None else index.each_at + 1
    names = index.columns[: chance.randint(least, max(least, len(index.columns) - 1))]
    some = dict(chance.choice(listed)) if listed else {}
    where: dict[str, Any] = {name: some.get(name) for name in names}
    if "tags" in where and index.each_at is not None and not listed:
        where["tags"] = "none"
    if chance.random() < 0.5 and listed and len(names) < len(index.columns):
        following = index.columns[len(names)]
        ends = [chance.choice([None, chance.choice(listed)[following]]) for _ in range(2)]
        if isinstance(ends[0] or ends[1], str) and chance.random() < 0.5:
            where[following] = starts_with(str(ends[0] or ends[1])[:1])
        else:
            where[following] = between(*ends)
    return where or None
