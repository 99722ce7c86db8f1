"""Nested fields of generated declarations: documents and lists are what plain Python makes of the rows.

Rows are changed by commands, sessions, statements and other programs. ``DIPTYCH_DECLARATIONS`` chooses how many
declarations are tried, ``DIPTYCH_SEED`` which.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from diptych import Diptych
from diptych.fence.contract import Target
from diptych.hinge.replay import LogReplay
from diptych.log import NOTHING, LogPart, Snapshot
from diptych.read.compiled import CompiledReadModel
from diptych.read.sql.rows import SqlRows
from diptych.read.store.writes import Write, Writes
from diptych.redis import RedisIdentity
from tests.configuration import configured
from tests.conformance.nested.declared import Declared
from tests.conformance.nested.oracle import Tables, document
from tests.conformance.nested.rows import Rows
from tests.conformance.nested.tables import Base

DECLARATIONS = int(os.environ.get("DIPTYCH_DECLARATIONS", "2"))
SEED = int(os.environ.get("DIPTYCH_SEED", "0"))
MODELS = 6
TURNS = 15
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
                await self._replay.write_joined(TARGET, part, view)
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
    config = configured(database_url, redis_url, lease_ms=1000)
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
