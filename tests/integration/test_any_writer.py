"""Random changes by commands, sessions, statements and a program beside the application: Redis equals SQL after each.

Changes by a command are seen at once; changes by the program once ``catch_up`` returns, or a lease later.
``DIPTYCH_OPERATIONS`` chooses how many changes are made, ``DIPTYCH_SEED`` which.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from diptych import ConflictError, ConstraintError, Diptych
from tests.captured import GetPart, Maker, Part, Program, application, prepare, same, served_by_redis
from tests.catalogue import Held, answered_by, redis_side_of

OPERATIONS = int(os.environ.get("DIPTYCH_OPERATIONS", "200"))
SEED = int(os.environ.get("DIPTYCH_SEED", "0"))
LEASE_S = 1.0

CODES = "abcdefghijkl"
LOST = (ConstraintError, ConflictError, DBAPIError, asyncpg.PostgresError, sqlite3.Error)
"""Errors of a change that others, or the rows that are there, do not allow."""

NESTED = {
    # A change of an amount changes the maker's name, which changes amounts; a new code changes the row again.
    "sqlite": (
        "CREATE TRIGGER a_name AFTER UPDATE OF amount ON parts WHEN NEW.amount % 7 = 0 "
        "BEGIN UPDATE makers SET name = name || '.' WHERE id = NEW.maker_id AND length(name) < 100; END",
        "CREATE TRIGGER a_amount AFTER UPDATE OF name ON makers "
        "BEGIN UPDATE parts SET amount = 1 WHERE maker_id = NEW.id AND amount <> 1; END",
        "CREATE TRIGGER z_code AFTER UPDATE OF code ON parts "
        "BEGIN UPDATE parts SET amount = amount + 100 WHERE id = NEW.id AND amount < 100; END",
    ),
    "postgresql": (
        "CREATE FUNCTION name_maker() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE makers "
        "SET name = name || '.' WHERE id = NEW.maker_id AND length(name) < 100; RETURN NULL; END $$",
        "CREATE TRIGGER a_name AFTER UPDATE OF amount ON parts FOR EACH ROW WHEN (NEW.amount % 7 = 0) "
        "EXECUTE FUNCTION name_maker()",
        "CREATE FUNCTION set_amount() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE parts "
        "SET amount = 1 WHERE maker_id = NEW.id AND amount <> 1; RETURN NULL; END $$",
        "CREATE TRIGGER z_amount AFTER UPDATE OF name ON makers FOR EACH ROW EXECUTE FUNCTION set_amount()",
        "CREATE FUNCTION note_code() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE parts "
        "SET amount = amount + 100 WHERE id = NEW.id AND amount < 100; RETURN NULL; END $$",
        "CREATE TRIGGER z_code AFTER UPDATE OF code ON parts FOR EACH ROW EXECUTE FUNCTION note_code()",
    ),
}

_ADD = (
    "INSERT INTO parts (id, code, amount, maker_id, whole_id) VALUES ({id}, '{code}', {n}, {maker}, {whole})"
)
_UPSERT = f"{_ADD} ON CONFLICT (code) DO"
ON_BOTH: Sequence[Sequence[str]] = (
    *[[_ADD]] * 4,
    ["INSERT INTO parts (id, code, amount) VALUES ({id}, '{code}', {n}), ({other_id}, '{other}', {n})"],
    [f"{_UPSERT} UPDATE SET amount = excluded.amount"],
    [f"{_UPSERT} UPDATE SET code = '{{other}}', maker_id = excluded.maker_id"],
    [f"{_UPSERT} NOTHING"],
    ["UPDATE parts SET amount = {n} WHERE code = '{code}'"],
    ["UPDATE parts SET amount = {n}"],
    ["UPDATE parts SET code = '{other}' WHERE code = '{code}'"],
    ["UPDATE parts SET id = {other_id} WHERE id = {id}"],
    ["UPDATE parts SET maker_id = {maker}, whole_id = {whole} WHERE code = '{code}'"],
    ["DELETE FROM parts WHERE code = '{code}'"],
    ["DELETE FROM parts WHERE amount % 3 = 0"],
    ["DELETE FROM parts"],
    # Two rows swap their keys; so do all of them, by way of others.
    [
        "UPDATE parts SET code = 'between' WHERE code = '{code}'",
        "UPDATE parts SET code = '{code}' WHERE code = '{other}'",
        "UPDATE parts SET code = '{other}' WHERE code = 'between'",
    ],
    ["UPDATE parts SET code = 'x' || code", "UPDATE parts SET code = substr(code, 2)"],
    ["DELETE FROM parts WHERE code = '{code}'", _ADD, "UPDATE parts SET amount = {n} WHERE code = '{code}'"],
    ["INSERT INTO makers (id, name) VALUES ({id}, '{name}')"],
    ["UPDATE makers SET name = '{name}' WHERE id = {id}"],
    ["UPDATE makers SET id = {other_id} WHERE id = {id}"],
    ["DELETE FROM makers WHERE id = {id}"],
)
OF_DATABASE: dict[str, Sequence[Sequence[str]]] = {
    "sqlite": (
        *[[_ADD.replace("INSERT", "INSERT OR REPLACE")]] * 2,
        [_ADD.replace("INSERT", "INSERT OR IGNORE")],
        ["UPDATE OR REPLACE parts SET code = '{other}' WHERE code = '{code}'"],
        ["UPDATE OR REPLACE parts SET id = {other_id} WHERE id = {id}"],
        ["UPDATE OR IGNORE parts SET code = '{other}'"],
    ),
    "postgresql": (
        [
            "MERGE INTO parts USING (VALUES ('{code}', {n}), ('{other}', 0)) AS given (code, amount) "
            "ON parts.code = given.code WHEN MATCHED AND given.amount = 0 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET amount = given.amount, whole_id = NULL "
            "WHEN NOT MATCHED THEN INSERT (id, code, amount) VALUES ({id}, given.code, given.amount)"
        ],
        [
            "WITH gone AS (DELETE FROM parts WHERE code = '{code}' RETURNING maker_id), "
            "more AS (UPDATE parts SET amount = {n} WHERE code = '{other}' RETURNING id) "
            "INSERT INTO parts (id, code, maker_id) SELECT {id} + 10, 'h', maker_id FROM gone"
        ],
    ),
}

TRUNCATE: Sequence[Sequence[str]] = (
    ["TRUNCATE parts"],
    ["TRUNCATE makers CASCADE"],
    ["TRUNCATE parts", _ADD],
)
"""Changes after which SQL answers for a lease: PostgreSQL makes another file for the table."""


Change: TypeAlias = Callable[[], Awaitable[None]]


class Writers:
    """An application and a program beside the application; both change parts and makers."""

    def __init__(self, app: Diptych, program: Program, seed: int, *, truncates: bool) -> None:
        self.app = app
        self.program = program
        self._draw = random.Random(seed)
        self._counter = 0
        self._changes = [*ON_BOTH, *OF_DATABASE["sqlite" if program.is_sqlite else "postgresql"]]
        if truncates and not program.is_sqlite:
            self._changes += TRUNCATE

    def choose(self, *among: Change) -> Change:
        """A random choice."""
        return self._draw.choice(among)

    def chance(self, share: float) -> bool:
        """True in this share of all calls."""
        return self._draw.random() < share

    def code(self) -> str:
        """A key."""
        return self._draw.choice(CODES)

    def number(self) -> int:
        """An amount; a multiple of seven lets triggers go on."""
        return self._draw.randrange(50)

    def name(self) -> str:
        """A fresh name for a maker."""
        self._counter += 1
        return f"m{self._counter}"

    def statements(self) -> list[str]:
        """The statements of a change."""
        code, other = self._draw.sample(CODES, 2)
        first, second = self._draw.sample(range(1, 9), 2)
        values = {
            "code": code,
            "other": other,
            "id": first,
            "other_id": second,
            "n": self.number(),
            "maker": self._draw.choice(["NULL", "1", "2", "3"]),
            "whole": self._draw.choice(["NULL", "NULL", "1", "2", "3"]),
            "name": self.name(),
        }
        return [text.format(**values) for text in self._draw.choice(self._changes)]

    # Changes by a program beside

    async def foreign(self) -> None:
        """A transaction of a single change."""
        await self.program.runs(*self.statements())

    async def foreign_of_several(self) -> None:
        """A transaction with a savepoint, released or rolled back."""
        end = "ROLLBACK TO s" if self.chance(0.5) else "RELEASE s"
        statements = [*self.statements(), "SAVEPOINT s", *self.statements(), end, *self.statements()]
        await self.program.runs(*statements)

    # Changes by commands

    async def statement(self) -> None:
        """A Core statement for itself."""
        await self.app.orm.execute(sa.text(self.statements()[0]))

    async def session(self) -> None:
        """Statements and a flush in a session; a savepoint there may fail, or is rolled back."""
        async with self.app.orm.session() as session:
            await self._flush(session)
            for statement in self.statements():
                await session.execute(sa.text(statement))
            with contextlib.suppress(DBAPIError, ZeroDivisionError):
                async with session.begin_nested():
                    session.add(Part(id=self.number() + 1, code=self.code(), amount=self.number()))
                    await session.execute(sa.text(self.statements()[0]))
                    if self.chance(0.3):
                        raise ZeroDivisionError

    async def _flush(self, session: AsyncSession) -> None:
        parts = list(await session.scalars(sa.select(Part).order_by(Part.id)))
        if parts:
            self._draw.choice(parts).amount = self.number()
        if len(parts) > 1:
            parts[0].code, parts[-1].maker_id = self.code(), None
        if len(parts) > 3:
            await session.delete(parts[2])
            await session.flush()

    async def create(self) -> None:
        """A row of ORMService."""
        await self.app.orm.create(Part, id=self.number() + 1, code=self.code(), amount=self.number())

    async def create_all(self) -> None:
        """Several rows of ORMService."""
        codes = self._draw.sample(CODES, 3)
        rows = [{"id": 60 + n, "code": code, "amount": self.number()} for n, code in enumerate(codes)]
        await self.app.orm.create_all(Part, rows)

    async def upsert(self) -> None:
        """A row of ORMService, added or changed."""
        values = {"id": self.number() + 1, "amount": self.number()}
        await self.app.orm.upsert(Part, conflict_on=Part.code, code=self.code(), **values)

    async def update(self) -> None:
        """A change of ORMService, of the key too."""
        values: dict[str, Any] = {"amount": self.number()}
        if self.chance(0.3):
            values["code"] = self.code()
        if self.chance(0.3):
            values["id"] = self.number() + 1
        await self.app.orm.update(Part, self.code(), "code", **values)

    async def delete(self) -> None:
        """A deletion by ORMService."""
        await self.app.orm.delete(Part, self.code(), "code")

    async def of_makers(self) -> None:
        """A change of joined rows by ORMService."""
        orm, maker = self.app.orm, self._draw.randrange(1, 4)
        if self.chance(0.3):
            await orm.delete(Maker, maker)
        elif self.chance(0.4):
            await orm.upsert(Maker, conflict_on=Maker.id, id=maker, name=self.name())
        else:
            await orm.update(Maker, maker, name=self.name())

    async def all_in_one(self) -> None:
        """ORMService, statements and a session in one command."""
        async with self.app.orm.session() as session:
            await self.app.orm.update(Part, self.code(), "code", amount=self.number())
            await self.app.orm.execute(sa.text(self.statements()[0]))
            part = await session.scalar(sa.select(Part).where(Part.code == self.code()))
            if part is not None:
                part.amount = self.number()
            await self.app.orm.delete(Part, self.code(), "code")

    @property
    def own(self) -> Sequence[Change]:
        """Changes by commands."""
        return (
            *(self.statement, self.statement, self.session, self.session, self.all_in_one),
            *(
                self.create,
                self.create_all,
                self.upsert,
                self.update,
                self.update,
                self.delete,
                self.of_makers,
            ),
        )

    @property
    def others(self) -> Sequence[Change]:
        """Changes by a program beside."""
        return (self.foreign, self.foreign, self.foreign_of_several)


async def _made(change: Change, done: Counter[str]) -> None:
    """Makes a change that may fail as changes do."""
    try:
        await change()
    except LOST as error:
        done[type(error).__name__] += 1
    else:
        done[change.__name__] += 1


def _have_changed(done: Counter[str], number: int) -> None:
    """Fails unless so many changes were tried, and most succeeded."""
    assert sum(done.values()) == number
    assert sum(count for name, count in done.items() if name.islower()) > 0.6 * number


@contextlib.asynccontextmanager
async def _writers(
    database_url: str, redis_url: str, seed: int, lease_ms: int, *, truncates: bool = False
) -> AsyncIterator[Writers]:
    database = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    program = await prepare(database_url, *NESTED[database])
    async with application(database_url, redis_url, lease_ms=lease_ms) as app:
        await served_by_redis(app)
        yield Writers(app, program, seed, truncates=truncates)
        await served_by_redis(app)


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
async def test_redis_equals_sql_after_each_of_many_changes_by_anybody(database_url, valkey, seed):
    done = Counter[str]()
    async with _writers(database_url, valkey.url, seed, 30_000) as to:
        for _ in range(OPERATIONS // 2):
            change = to.choose(*to.own, *to.others, *to.others)
            await _made(change, done)
            if change.__name__.startswith("foreign"):
                await to.app.catch_up()
            await same(to.app, *CODES, store="redis")
    _have_changed(done, OPERATIONS // 2)


@pytest.mark.parametrize("seed", range(SEED, SEED + 1))
async def test_redis_equals_sql_after_changes_by_many_at_once(database_url, valkey, seed):
    """Each own command of a round also marks a part of its own, which shows at once, whatever the others do."""
    done = Counter[str]()
    async with _writers(database_url, valkey.url, seed, int(LEASE_S * 1000), truncates=True) as to:

        async def marking(number: int, mark: int) -> None:
            await _made(to.choose(*to.own), done)
            code = f"own{number}"
            try:
                await to.app.orm.upsert(Part, conflict_on=Part.code, code=code, id=900 + number, amount=mark)
            except LOST:
                return
            part = (await to.app.ask(GetPart(code))).decode()
            # Others set amounts below 200, and marks are above: no earlier mark may be seen.
            assert part is None or part.amount == mark or part.amount < 200

        for mark in range(200, 200 + 1000 * (OPERATIONS // 24), 1000):
            await asyncio.gather(
                *(marking(number, mark) for number in range(4)),
                *(_made(to.choose(*to.others), done) for _ in range(2)),
            )
            await (asyncio.sleep(LEASE_S) if to.chance(0.05) else to.app.catch_up())
            await same(to.app, *CODES)
    _have_changed(done, OPERATIONS // 24 * 6)


async def test_of_a_row_that_a_command_changes_twice_only_the_last_state_is_shown(
    database_url: str, redis_url: str
) -> None:
    """★ By ORMService, and then by a session or a trigger: nobody has committed the first state alone."""
    await prepare(database_url)
    async with application(database_url, redis_url, lease_ms=60_000) as app:
        await answered_by(app, "redis")
        replicas = [keeper.replica for keeper in redis_side_of(app).keepers.values()]
        (replica,) = (each for each in replicas if not each.compiled.is_joined)
        brought = Held(replica, "bring_in")

        async def twice() -> None:
            async with app.orm.session() as session:
                await app.orm.update(Part, 1, amount=100)
                await session.execute(sa.update(Part).where(Part.id == 1).values(amount=200))

        changing = asyncio.create_task(twice())
        await brought.reached.wait()
        meanwhile = (await app.ask(GetPart("a"))).decode()
        assert meanwhile is not None
        assert meanwhile.amount in (1, 200)
        brought.go_on.set()
        await changing
        after = (await app.ask(GetPart("a"))).decode()
        assert after is not None
        assert after.amount == 200
