"""Two mappings of one table that can't both have its triggers: the second is refused, and takes nothing away."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, ReadModel, code_point_text
from diptych.cli.commands.migrate import migrated
from diptych.errors import SchemaError
from tests.captured import Program
from tests.catalogue import answered_by, eventually
from tests.configuration import configured

LEASE_MS = 3000
_TABLE = (
    "CREATE TABLE things (id int PRIMARY KEY, code varchar(20) {0} NOT NULL UNIQUE, "
    "code2 varchar(20) {0} NOT NULL UNIQUE)",
    "INSERT INTO things VALUES (1, 'a', 'a2')",
)


class Found(msgspec.Struct, frozen=True):
    code: str


class Version:
    """A version of the application: its table has this schema, and the attribute ``code`` is this column."""

    def __init__(
        self, url: str, redis_url: str, name: str, *, schema: str | None = None, column: str = "code"
    ):
        self.name = name

        class Base(DeclarativeBase):
            pass

        class Thing(Base):
            __tablename__ = "things"
            __table_args__ = {"schema": schema} if schema else {}
            id: Mapped[int] = mapped_column(primary_key=True)
            code: Mapped[str] = mapped_column(column, code_point_text(20), unique=True)

        self.reads: Any = type("Reads", (ReadModel,), {"key": Thing.id, "document": Found})
        made: list[Any] = []
        scope: dict[str, Any] = {"made": made}
        exec("def __init__(self, reads): made.append(reads)", scope)  # noqa: S102
        scope["__init__"].__annotations__["reads"] = self.reads
        holder = type("Holder", (), {"__init__": scope["__init__"], "__module__": "holder"})
        config = configured(url, redis_url, create_tables=False, lease_ms=LEASE_MS, redis_namespace=name)
        self.app = Diptych(config, models=Base, handlers=[holder], read_models=[self.reads])
        self._made = made

    async def code(self) -> tuple[str, str]:
        """Which store answers, and with which code."""
        found = await self._made[0].get(1)
        return found.served.store, found.decode().code


async def _generation(version: Version) -> str:
    rows = await version.app.orm.side.fence.rows()
    (generation,) = (row.generation for row in rows if row.id.read_model == f"{version.name}:Reads")
    return str(generation)


OTHERS = [
    ("sqlite", {"column": "code2"}, "Thing.code is the column code2 here, and code for .* has both"),
    ("postgresql", {"column": "code2"}, "Thing.code is the column code2 here, and code for .* has both"),
    ("sqlite", {"schema": "main"}, "main.things is captured as things already"),
    ("postgresql", {"schema": "public"}, "public.things is captured as things already"),
]


@pytest.mark.parametrize(("database", "other", "sentence"), OTHERS)
async def test_the_second_is_refused_until_the_owner_says_so(request, valkey, database, other, sentence):
    url = str(request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"))
    await Program(url).runs(*(each.format("" if database == "sqlite" else 'COLLATE "C"') for each in _TABLE))
    first = Version(url, valkey.url, "first")
    async with first.app:
        await answered_by(first.app, "redis")
        before = await _generation(first)
        with pytest.raises(SchemaError, match=sentence):
            await Version(url, valkey.url, "second", **other).app.start()
        await first.app.catch_up()
        await eventually(lambda: _is(first, ("redis", "a")), "the first is on Redis")
        assert await _generation(first) == before, "what the first has built is as it was"
        # It was to be stopped before this: it answers from SQL, and takes nothing back.
        second = Version(url, valkey.url, "second", **other)
        await asyncio.to_thread(migrated, second.app, sql=False, role=None)
        second = Version(url, valkey.url, "second", **other)
        async with second.app:
            await answered_by(second.app, "redis")
            await answered_by(first.app, "sql")
            built = await _generation(second)
            await Program(url).runs("UPDATE things SET code = 'b', code2 = 'b2'")
            await second.app.catch_up()
            expected = "b2" if "column" in other else "b"
            await eventually(lambda: _is(second, ("redis", expected)), "the second shows the change")
            # The change is a program's, and the first's lease from before the migration may still be good.
            await asyncio.sleep(LEASE_MS / 1000)
            assert await first.code() == ("sql", "b")
            assert await _generation(second) == built


async def _is(version: Version, expected: tuple[str, str]) -> bool:
    return await version.code() == expected


async def test_a_column_takes_the_place_of_another_one_that_is_gone(database_url, valkey):
    """The triggers name the column that is there, whichever version comes."""
    program = Program(database_url)
    await program.runs(*(each.format("" if program.is_sqlite else 'COLLATE "C"') for each in _TABLE))
    async with Version(database_url, valkey.url, "first").app as app:
        await answered_by(app, "redis")
    rename = "ALTER TABLE things RENAME COLUMN code {}"
    await program.runs(rename.format("TO gone"))
    second = Version(database_url, valkey.url, "second", column="code2")
    async with second.app:
        await answered_by(second.app, "redis")
        await program.runs("UPDATE things SET code2 = 'b2'")
        await second.app.catch_up()
        assert await second.code() == ("redis", "b2")
        async with second.app.orm.database.reader.connect() as connection:
            key = sa.text("SELECT key FROM diptych_log ORDER BY position DESC LIMIT 1")
            assert msgspec.json.decode((await connection.execute(key)).scalar_one())["code"] == "b2"
