"""Whoever writes, each document is found at all of its addresses, and at no other: random changes by anybody.

After a command its changes are seen at once; after a foreign change, once ``catch_up`` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from diptych import Diptych, Document, DuplicateError, by
from tests.addressed import Owner, Seat, read_models, seating
from tests.catalogue import answered_by

ROOMS, NUMBERS = ["A", "B"], [1, 2, 3]
CODES, BADGES = ["c1", "c2", "c3", None], [1, 2, None]
OPERATIONS = int(os.environ.get("DIPTYCH_OPERATIONS", "150"))
SEED = int(os.environ.get("DIPTYCH_SEED", "0"))
LEASE_MS = 2_000
"""TRUNCATE gives the table another file: its read models are built anew, after a lease."""

Operation = Callable[["Writers"], Awaitable[None]]


class Writers:
    """Who writes: an application, and a program beside it."""

    def __init__(self, app: Diptych, foreign: AsyncConnection, draw: random.Random) -> None:
        self.app = app
        self.foreign = foreign
        self.draw = draw
        self.counter = 0

    @property
    def is_sqlite(self) -> bool:
        return self.foreign.dialect.name == "sqlite"

    def values(self) -> dict[str, Any]:
        """Values for a seat, of which others may have some."""
        self.counter += 1
        chosen: dict[str, list[Any]] = {
            "room": ROOMS,
            "number": NUMBERS,
            "code": CODES,
            "badge": BADGES,
            "owner_id": [1, 2, None],
        }
        return {
            **{name: self.draw.choice(values) for name, values in chosen.items()},
            "guest": f"g{self.counter}",
        }

    def some_values(self) -> dict[str, Any]:
        values = self.values()
        return {name: values[name] for name in self.draw.sample(list(values), k=self.draw.randint(1, 3))}

    def id(self) -> int:
        return self.draw.randint(1, 6)


async def command_creates(to: Writers) -> None:
    with contextlib.suppress(DuplicateError):
        await to.app.orm.create(Seat, id=to.id(), **to.values())


async def command_creates_many(to: Writers) -> None:
    with contextlib.suppress(DuplicateError):
        await to.app.orm.create_all(Seat, [{"id": to.id(), **to.values()} for _ in range(2)])


async def command_updates(to: Writers) -> None:
    with contextlib.suppress(DuplicateError):
        await to.app.orm.update(Seat, to.id(), **to.some_values())


async def command_deletes(to: Writers) -> None:
    await to.app.orm.delete(Seat, to.id())


async def command_names_an_owner(to: Writers) -> None:
    to.counter += 1
    await to.app.orm.update(Owner, to.draw.choice([1, 2]), name=f"o{to.counter}")


async def session_swaps_codes(to: Writers) -> None:
    async with to.app.orm.session() as session:
        seats = list(await session.scalars(sa.select(Seat).order_by(Seat.id).limit(3)))
        codes = [seat.code for seat in seats]
        for seat in seats:
            seat.code = None
        await session.flush()
        for seat, code in zip(seats, [*codes[1:], *codes[:1]], strict=True):
            seat.code = code


async def session_moves(to: Writers) -> None:
    with contextlib.suppress(IntegrityError, DuplicateError):
        async with to.app.orm.session() as session:
            seat = await session.get(Seat, to.id())
            if seat is not None:
                for name, value in to.some_values().items():
                    setattr(seat, name, value)


async def statement_updates(to: Writers) -> None:
    await to.app.orm.execute(sa.update(Seat).where(Seat.number > to.draw.choice(NUMBERS)).values(code=None))
    await to.app.orm.execute(sa.update(Seat).values(guest=to.values()["guest"]))


async def command_mixes(to: Writers) -> None:
    with contextlib.suppress(IntegrityError, DuplicateError):
        async with to.app.orm.session() as session:
            await session.execute(sa.text("UPDATE seats SET badge = NULL WHERE id = :id"), {"id": to.id()})
            seat = await session.get(Seat, to.id())
            if seat is not None:
                seat.badge = to.draw.choice(BADGES)


def foreign(*statements: str) -> Operation:
    """A transaction of a program beside the application. Its statements have the same values."""

    async def run(to: Writers) -> None:
        values = to.values() | {"id": to.id(), "other_id": to.id(), "other_code": to.draw.choice(CODES)}
        with contextlib.suppress(IntegrityError):
            async with to.foreign.begin():
                for statement in statements:
                    given = sa.text(statement)
                    await to.foreign.execute(given, {name: values[name] for name in given._bindparams})
        await to.app.catch_up()

    return run


_ADD = (
    "INSERT INTO seats (id, room, number, code, badge, owner_id, guest) "
    "VALUES (:id, :room, :number, :code, :badge, :owner_id, :guest)"
)
OF_ALL: Sequence[Operation] = (
    *(command_creates, command_creates, command_creates_many, command_updates, command_updates),
    *(command_deletes, command_names_an_owner, session_swaps_codes, session_moves, session_moves),
    *(statement_updates, command_mixes),
    foreign(_ADD),
    foreign(f"{_ADD} ON CONFLICT (room, number) DO UPDATE SET code = excluded.code, guest = excluded.guest"),
    foreign("UPDATE seats SET code = :code WHERE id = :id"),
    foreign("UPDATE seats SET room = :room, number = :number WHERE id = :id"),
    foreign("UPDATE seats SET badge = NULL WHERE badge = :badge", "UPDATE seats SET badge = :badge WHERE id = :id"),
    foreign("UPDATE seats SET number = number + 10", "UPDATE seats SET number = number - 10"),
    foreign("UPDATE seats SET code = 'x' || code", "UPDATE seats SET code = substr(code, 2)"),
    foreign(
        "UPDATE seats SET code = NULL WHERE id = :id",
        "UPDATE seats SET code = :code WHERE id = :other_id",
        "UPDATE seats SET code = :other_code WHERE id = :id",
    ),
    foreign("DELETE FROM seats WHERE id = :id", _ADD),
    foreign("DELETE FROM seats WHERE code = :code"),
    foreign("UPDATE owners SET name = :guest WHERE id = 1", "UPDATE seats SET code = NULL WHERE id = :id"),
)  # fmt: skip
ON_SQLITE = (
    foreign(_ADD.replace("INSERT", "INSERT OR REPLACE")),
    foreign("UPDATE OR REPLACE seats SET code = :code, badge = :badge WHERE id = :id"),
)
ON_POSTGRESQL = (foreign("TRUNCATE seats"),)


async def found(app: Diptych) -> dict[Any, Any]:
    """What queries answer for every address that a document may have, and in lists."""
    seats, owned = read_models(app)
    asked: dict[Any, Any] = {
        (room, number): seats.get((room, number)) for room in ROOMS for number in NUMBERS
    }
    asked |= {("code", code): seats.get(code=code) for code in CODES}
    asked |= {("badge", badge): seats.get(badge=badge) for badge in BADGES}
    asked |= {("owned", number): owned.get(number) for number in range(1, 7)}
    asked |= {("owned by code", code): owned.get(code=code) for code in CODES}
    asked |= {("list", "guest"): seats.page(by(Seat.guest)), ("list", "room"): owned.page(by(Seat.room))}
    answers = await asyncio.gather(*asked.values())
    return {
        at: (answer.body, answer.served.store if isinstance(answer, Document) else "")
        for at, answer in zip(asked, answers, strict=True)
    }


def stored_only(answers: dict[Any, Any]) -> dict[Any, Any]:
    return {at: body for at, (body, _) in answers.items()}


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
async def test_each_document_is_at_its_addresses_alone_after_each_of_many_changes_by_anybody(
    database_url, valkey, seed
):
    draw = random.Random(seed)
    scheme, _, rest = database_url.partition(":")
    engine = create_async_engine(f"{scheme}+{'aiosqlite' if scheme == 'sqlite' else 'asyncpg'}:{rest}")
    async with (
        seating(database_url, valkey.url, lease_ms=LEASE_MS) as first,
        seating(database_url, valkey.url, lease_ms=LEASE_MS) as second,
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
            for app in (first, second):
                answers = await found(app)
                assert stored_only(answers) == expected, done[-5:]
                seen |= {at for at, (body, store) in answers.items() if body and store == "redis"}
        assert {at[0] for at in seen} >= {*ROOMS, "code", "badge", "owned", "owned by code"}, (
            "Redis has answered"
        )
    await engine.dispose()
