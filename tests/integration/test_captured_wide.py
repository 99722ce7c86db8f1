"""A table with more columns that entries name than a function of the database has arguments is captured."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, Query, ReadModel, code_point_text
from tests.captured import Program
from tests.catalogue import answered_by
from tests.configuration import configured

MANY = 130
ODD = ' {}"a, '


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Day(Base):
    """What facts refer to."""

    __tablename__ = "days"

    id: Mapped[int] = mapped_column(primary_key=True)


class Fact(Base):
    """A row with a great many foreign keys."""

    __tablename__ = "facts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(200), unique=True)


for _number in range(MANY):
    setattr(Fact, f"day{_number}", mapped_column(sa.ForeignKey("days.id"), nullable=True))


class FactDocument(msgspec.Struct, frozen=True):
    id: int
    name: str


class Facts(ReadModel[Fact]):
    key = Fact.name
    document = FactDocument


class GetFact(Query[Document[FactDocument]], frozen=True):
    name: str


class Queries:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def get(self, query: GetFact) -> Document[FactDocument]:
        return await self._facts.get(query.name)


async def test_a_row_with_a_great_many_foreign_keys(database_url, valkey):
    program = Program(database_url)
    config = configured(database_url, valkey.url)
    async with Diptych(config, models=Base, handlers=[Queries], read_models=[Facts]) as app:
        await answered_by(app, "redis")
        await program.runs(
            "INSERT INTO days (id) VALUES (7)",
            f"INSERT INTO facts (id, name, day0, day{MANY - 1}) VALUES (1, '{ODD}', 7, 7)",
        )
        await app.catch_up()
        found = await app.ask(GetFact(ODD))
        assert (found.served.store, found.decode()) == ("redis", FactDocument(1, ODD))
        await program.runs("UPDATE facts SET name = 'b'")
        await app.catch_up()
        assert (await app.ask(GetFact(ODD))).decode() is None
        assert (await app.ask(GetFact("b"))).decode() == FactDocument(1, "b")
        async with app.orm.database.reader.connect() as connection:
            select = sa.text("SELECT key FROM diptych_log WHERE entity = 'Fact' ORDER BY position LIMIT 1")
            key = msgspec.json.decode((await connection.execute(select)).scalar_one())
        days = {f"day{number}": 7 if number in (0, MANY - 1) else None for number in range(MANY)}
        assert key == {"id": 1, "name": ODD, **days}
