"""Rows that a condition leaves out are like rows that are not there, whoever changes them and whatever dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from diptych import ConfigService, Diptych, Document, Query, ReadModel, by, join
from diptych.redis.service import RedisService
from tests.addressed import Base, OwnedDocument, Owner, Seat, SeatDocument
from tests.captured import Program
from tests.catalogue import Recorded, answered_by, eventually, redis_side_of
from tests.integration.test_any_writer_addresses import (
    BADGES,
    CODES,
    NUMBERS,
    OF_ALL,
    ON_POSTGRESQL,
    ON_SQLITE,
    OPERATIONS,
    ROOMS,
    SEED,
    Writers,
    stored_only,
)
from tests.integration.test_killed_before import LONG_MS, _killed


class FreeSeats(ReadModel[Seat]):
    """Seats without a badge, and all but the first of a room."""

    key = (Seat.room, Seat.number)
    also = (Seat.code, Seat.badge)
    document = SeatDocument
    where = sa.or_(Seat.badge.is_(None), Seat.number > 1)
    lists = (by(Seat.guest, where=Seat.owner_id == 1, name="of-one"), by(Seat.number))


class OthersSeats(ReadModel[Seat]):
    """Seats of anybody but the second owner; those of nobody are of no owner known to be another."""

    key = Seat.id
    also = (Seat.code,)
    document = OwnedDocument
    where = ~(Seat.owner_id == 2)
    lists = (by(Seat.room, where=Seat.code.is_not(None)),)
    joined: ClassVar = {"owner": join(Owner.name, Seat.owner_id, Owner.id)}


class GetFree(Query[Document[SeatDocument]]):
    number: int


class FreeQueries:
    def __init__(self, free: FreeSeats, others: OthersSeats) -> None:
        self.free, self.others = free, others

    async def get(self, query: GetFree) -> Document[SeatDocument]:
        return await self.free.get(("A", query.number))


def seating(database_url: str, redis_url: str | None = None, **settings: Any) -> Diptych:
    values: dict[str, Any] = {
        "redis_query_timeout_ms": 2000,
        "redis_command_timeout_ms": 5000,
        "redis_probe_interval_ms": 20,
        "lease_ms": 2000,
    }
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    config = ConfigService(environ={}, **values)
    return Diptych(config, models=Base, handlers=[FreeQueries], read_models=[FreeSeats, OthersSeats])


def read_models(app: Diptych) -> tuple[Any, Any]:
    handler: Any = app._run.bus.handler_of(GetFree)
    return handler.__self__.free, handler.__self__.others


async def found(app: Diptych) -> dict[Any, Any]:
    """What queries answer for every address that a document may have, and in lists."""
    free, others = read_models(app)
    asked: dict[Any, Any] = {(room, number): free.get((room, number)) for room in ROOMS for number in NUMBERS}
    asked |= {("code", code): free.get(code=code) for code in CODES}
    asked |= {("badge", badge): free.get(badge=badge) for badge in BADGES}
    asked |= {("owned", number): others.get(number) for number in range(1, 7)}
    asked |= {("owned by code", code): others.get(code=code) for code in CODES}
    asked |= {("list", name): free.page(name, count=True) for name in ("of-one", "number")}
    asked |= {("list", "room"): others.page(count=True)}
    answers = await asyncio.gather(*asked.values())
    return {
        at: (answer.body, answer.served.store if isinstance(answer, Document) else "")
        for at, answer in zip(asked, answers, strict=True)
    }


def check(answers: dict[Any, Any], rows: Sequence[Seat]) -> None:
    """Fails unless the answers are of just the rows that are not left out."""
    free = [row for row in rows if row.badge is None or row.number > 1]
    others = [row for row in rows if row.owner_id not in (None, 2)]
    there: set[Any] = {(row.room, row.number) for row in free} | {("owned", row.id) for row in others}
    there |= {("code", row.code) for row in free} | {("badge", row.badge) for row in free}
    there |= {("owned by code", row.code) for row in others}
    for at, body in answers.items():
        if at[0] != "list":
            assert (body is not None) == (at in there and at[1] is not None), at
    lists = {
        "of-one": [row for row in free if row.owner_id == 1],
        "number": free,
        "room": [row for row in others if row.code is not None],
    }
    for name, listed in lists.items():
        page = msgspec.json.decode(answers["list", name])
        assert page["total"] == len(page["items"]) == len(listed), name


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
async def test_rows_that_are_left_out_are_not_there_after_each_of_many_changes_by_anybody(
    database_url, valkey, seed
):
    draw = random.Random(seed)
    scheme, _, rest = database_url.partition(":")
    engine = create_async_engine(f"{scheme}+{'aiosqlite' if scheme == 'sqlite' else 'asyncpg'}:{rest}")
    async with (
        seating(database_url, valkey.url) as first,
        seating(database_url, valkey.url) as second,
        seating(database_url) as sql,
        engine.connect() as connection,
    ):
        for name in ("Ann", "Bob"):
            await first.orm.create(Owner, name=name)
        await asyncio.gather(answered_by(first, "redis"), answered_by(second, "redis"))
        to = Writers(first, connection, draw)
        operations = [*OF_ALL, *(ON_SQLITE if to.is_sqlite else ON_POSTGRESQL)]
        done: list[str] = []
        seen: set[Any] = set()
        for _ in range(OPERATIONS):
            number = draw.randrange(len(operations))
            done.append(f"{number} {operations[number].__name__}")
            await operations[number](to)
            expected = stored_only(await found(sql))
            check(expected, await first.orm.all(Seat))
            for app in (first, second):
                answers = await found(app)
                assert stored_only(answers) == expected, done[-5:]
                seen |= {at for at, (body, store) in answers.items() if body and store == "redis"}
        assert {at[0] for at in seen} >= {*ROOMS, "code", "badge", "owned", "owned by code"}, (
            "Redis has answered"
        )
    await engine.dispose()


SEAT = {"id": 1, "room": "A", "number": 1, "code": "c1", "owner_id": 1}


async def test_a_row_that_leaves_while_its_process_dies_is_gone_with_the_next_command(database_url, valkey):
    async with (
        seating(database_url, valkey.url, lease_ms=LONG_MS) as one,
        seating(database_url, valkey.url, lease_ms=LONG_MS) as two,
    ):
        await asyncio.gather(answered_by(one, "redis"), answered_by(two, "redis"))
        await one.orm.create(Seat, **SEAT)
        await _killed(one, one.orm.update(Seat, 1, badge=1))
        await two.orm.create(Seat, **SEAT | {"id": 2, "number": 2, "code": "c2"})
        free, _ = read_models(two)
        assert [(await free.get(("A", number))).served.store for number in (1, 2)] == ["redis", "redis"]
        assert not await free.get(("A", 1))
        assert not await free.get(code="c1")
        assert await free.get(("A", 2))
        await _killed(one, one.orm.update(Seat, 1, badge=None))
        await two.orm.update(Seat, 2, guest="x")
        assert await free.get(("A", 1))
        assert await free.get(code="c1")


async def test_a_session_in_rows_that_are_left_out_waits_for_no_pass(database_url, valkey):
    """★ A row that is left out is still at its address: nothing is missing that a pass would have to bring."""
    async with seating(database_url, valkey.url, lease_ms=LONG_MS) as app:
        await answered_by(app, "redis")
        side = redis_side_of(app)
        [replica] = [keeper.replica for keeper in side.keepers.values() if keeper.replica.name == "FreeSeats"]
        results: list[bool] = []
        bring_in = replica.bring_in

        async def recorded(*given: Any, **named: Any) -> bool:
            results.append(await bring_in(*given, **named))
            return results[-1]

        replica.bring_in = recorded  # type: ignore[method-assign]
        await app.orm.create(Seat, **SEAT | {"badge": 1})
        assert results == []  # its own script has told that it is in
        async with app.orm.session() as session:
            seat = await session.get_one(Seat, 1)
            seat.guest = "x"
        assert results == [True]
        free, _ = read_models(app)
        assert not await free.get(("A", 1))


async def test_a_value_of_a_row_that_is_left_out_is_taken_by_another_row(database_url, valkey):
    """In both orders of arrival in Redis: what was sent is sent once more, backwards."""
    async with seating(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        free, _ = read_models(app)
        store = next(
            keeper.replica.store
            for keeper in redis_side_of(app).keepers.values()
            if keeper.replica.name == "FreeSeats"
        )
        seen = Recorded(store, "apply")
        await app.orm.create(Seat, **SEAT)
        await app.orm.update(Seat, 1, badge=1)
        await app.orm.update(Seat, 1, code="c9")
        await app.orm.create(Seat, **SEAT | {"id": 2, "number": 2, "guest": "new"})
        for arguments, named in reversed(seen.calls):
            if arguments[1]:
                await seen.original(*arguments, **named)
        assert not await free.get(("A", 1))
        assert not await free.get(code="c9")
        document = await free.get(code="c1")
        assert document.served.store == "redis"
        assert document.decode().guest == "new"
        assert [item.guest for item in (await free.page("number")).decode().items] == ["new"]


async def test_tombstones_of_rows_that_are_left_out_go_in_the_end(database_url, redis_server):
    """★ A command's tombstone does not tell when it may go, and that of a row that stays is told by no deletion."""
    async with seating(database_url, redis_server.url, lease_ms=500) as app:
        await answered_by(app, "redis")
        await app.orm.create(Seat, **SEAT)
        await app.orm.update(Seat, 1, badge=1)
        await app.orm.update(Seat, 1, guest="x")
        side: RedisService = redis_side_of(app).service

        async def purged() -> bool:
            async with side.commanding() as link:
                return not await link.call("KEYS", "*FreeSeats*:d:*")

        await eventually(purged, "the tombstones are purged")
        await app.orm.update(Seat, 1, badge=None)
        free, _ = read_models(app)
        assert (await free.get(("A", 1))).decode().guest == "x"


async def test_a_program_beside_moves_a_row_out_and_in(database_url, valkey):
    async with seating(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await app.orm.create(Seat, **SEAT)
        program = Program(database_url)
        free, others = read_models(app)
        for statement, is_free, is_other in (
            ("UPDATE seats SET badge = 1", False, True),
            ("UPDATE seats SET owner_id = 2", False, False),
            ("UPDATE seats SET number = 2", True, False),
            ("UPDATE seats SET owner_id = NULL, number = 1", False, False),
            ("UPDATE seats SET owner_id = 1, badge = NULL", True, True),
        ):
            await program.runs(statement)
            await app.catch_up()
            assert bool(await free.get(code="c1")) is is_free
            assert bool(await others.get(code="c1")) is is_other
            assert len((await free.page("of-one")).decode().items) == (is_free and is_other)
