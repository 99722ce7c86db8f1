"""Tables whose changes anybody makes: an application over them, a program beside it, and Redis compared with SQL."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    ConfigService,
    Diptych,
    Document,
    Page,
    Query,
    ReadModel,
    by,
    code_point_text,
    join,
)
from tests.catalogue import eventually
from tests.configuration import PATIENT_REDIS


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Maker(Base):
    """Who makes parts."""

    __tablename__ = "makers"

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(200), unique=True)


class Part(Base):
    """A part, perhaps of another part."""

    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    code: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    amount: Mapped[int] = mapped_column(sa.Integer, server_default="0")
    maker_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("makers.id", ondelete="SET NULL", onupdate="CASCADE"), index=True
    )
    whole_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("parts.id", ondelete="CASCADE", onupdate="CASCADE"), index=True
    )


class PartDocument(msgspec.Struct, frozen=True):
    id: int
    code: str
    amount: int


class MadePartDocument(msgspec.Struct, frozen=True):
    code: str
    maker_id: int | None
    whole_id: int | None
    maker: str | None


class PartReadModel(ReadModel[Part]):
    key = Part.code
    document = PartDocument
    lists = (by(Part.code),)


class MadePartReadModel(ReadModel[Part]):
    key = Part.code
    document = MadePartDocument
    joined = {"maker": join(Maker.name, Part.maker_id, Maker.id)}  # noqa: RUF012 - as it is documented


class GetPart(Query[Document[PartDocument]], frozen=True):
    code: str


class GetMadePart(Query[Document[MadePartDocument]], frozen=True):
    code: str


class ListParts(Query[Page[PartDocument]], frozen=True):
    after: str | None = None


class PartQueries:
    def __init__(self, parts: PartReadModel, made: MadePartReadModel) -> None:
        self.parts = parts
        self.made = made

    async def get(self, query: GetPart) -> Document[PartDocument]:
        return await self.parts.get(query.code)

    async def get_made(self, query: GetMadePart) -> Document[MadePartDocument]:
        return await self.made.get(query.code)

    async def page(self, query: ListParts) -> Page[PartDocument]:
        return await self.parts.page(limit=500, after=query.after)


FIRST = (
    "INSERT INTO makers (id, name) VALUES (1, 'Ash'), (2, 'Birch')",
    "INSERT INTO parts (id, code, amount, maker_id, whole_id) VALUES (1, 'a', 1, 1, NULL), (2, 'b', 2, 1, 1),"
    " (3, 'c', 3, 2, 2), (4, 'd', 4, NULL, NULL)",
)
"""The rows of every test: a tree of parts."""


def application(database_url: str, redis_url: str | None, **settings: Any) -> Diptych:
    """The application over parts and makers."""
    values: dict[str, Any] = {
        **PATIENT_REDIS,
        "redis_probe_interval_ms": 20,
        "lease_ms": 1000,
    }
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    return Diptych(
        ConfigService(environ={}, **values),
        models=Base,
        handlers=[PartQueries],
        read_models=[PartReadModel, MadePartReadModel],
    )


class Program:
    """A program beside the application, with the plain driver of its database. It knows nothing of diptych."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_sqlite = url.startswith("sqlite")

    async def runs(self, *statements: str) -> None:
        """Executes the statements in one transaction."""
        if not self.is_sqlite:
            connection = await asyncpg.connect(self._url)
            try:
                async with connection.transaction():
                    for statement in statements:
                        await connection.execute(statement)
            finally:
                await connection.close()
            return
        await asyncio.to_thread(self._run_sqlite, statements)

    def _run_sqlite(self, statements: Sequence[str]) -> None:
        connection = sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=20, isolation_level=None)
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
        finally:
            connection.close()

    async def runs_each_alone(self, *statements: str) -> None:
        """Executes each statement in a transaction of its own."""
        for statement in statements:
            await self.runs(statement)


async def prepare(database_url: str, *statements: str) -> Program:
    """Makes the tables with their first rows, executes these statements, and returns the program beside."""
    async with application(database_url, None):
        pass
    program = Program(database_url)
    await program.runs(*FIRST, *statements)
    return program


_NUMBERS = itertools.count()


async def stored(app: Diptych) -> tuple[dict[str, Any], dict[str, Any]]:
    """What SQL holds: the documents of both read models, by their keys."""
    # Another text each time: the driver may not know that a table was altered.
    select = sa.text(
        "SELECT p.id, p.code, p.amount, p.maker_id, p.whole_id, m.name FROM parts AS p "
        f"LEFT JOIN makers AS m ON m.id = p.maker_id -- {next(_NUMBERS)}"
    )
    async with app.orm.database.reader.connect() as connection:
        rows = (await connection.execute(select)).all()
    plain = {row.code: PartDocument(row.id, row.code, row.amount) for row in rows}
    joined = {row.code: MadePartDocument(row.code, row.maker_id, row.whole_id, row.name) for row in rows}
    return plain, joined


async def shown(
    app: Diptych, codes: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], set[str]]:
    """What queries answer: by list, by key, with the maker; and which stores have answered."""
    stores = set[str]()

    async def ask(query: Any) -> Any:
        answer = await app.ask(query)
        stores.add(answer.served.store)
        return answer.decode()

    listed = {part.code: part for part in (await ask(ListParts())).items}
    found = {code: part for code in codes if (part := await ask(GetPart(code))) is not None}
    joined = {code: part for code in codes if (part := await ask(GetMadePart(code))) is not None}
    return listed, found, joined, stores


async def same(app: Diptych, *codes: str, store: str | None = None) -> None:
    """Fails unless every query, asked now, gives the state in SQL, from this store."""
    plain, joined = await stored(app)
    asked = sorted({*plain, *"abcd", *codes})
    by_list, by_key, with_maker, stores = await shown(app, asked)
    for answered, expected in ((by_list, plain), (by_key, plain), (with_maker, joined)):
        wrong = {code for code in {*answered, *expected} if answered.get(code) != expected.get(code)}
        assert not wrong, [(stores, answered.get(code), expected.get(code)) for code in sorted(wrong)]
    if store is not None:
        assert stores == {store}


async def served_by_redis(app: Diptych, *codes: str) -> None:
    """Waits until Redis answers everything; whatever is answered until then is what SQL holds."""

    async def is_so() -> bool:
        await same(app, *codes)
        plain, _ = await stored(app)
        return (await shown(app, sorted(plain)))[3] == {"redis"}

    await eventually(is_so, "Redis answers everything")
