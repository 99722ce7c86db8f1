"""A table of another schema than those of the search path, beside one of the same name there."""

from __future__ import annotations

import msgspec
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, Query, ReadModel, code_point_text
from tests.captured import Program
from tests.catalogue import answered_by
from tests.configuration import configured


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Thing(Base):
    """A thing in a schema whose name needs quotes."""

    __tablename__ = "things"
    __table_args__ = {"schema": "Other Schema"}  # noqa: RUF012 - as SQLAlchemy has it

    name: Mapped[str] = mapped_column(code_point_text(200), primary_key=True)
    amount: Mapped[int]


class ThingDocument(msgspec.Struct, frozen=True):
    name: str
    amount: int


class ThingReadModel(ReadModel[Thing]):
    key = Thing.name
    document = ThingDocument


class GetThing(Query[Document[ThingDocument]], frozen=True):
    name: str


class ThingQueries:
    def __init__(self, things: ThingReadModel) -> None:
        self.things = things

    async def get(self, query: GetThing) -> Document[ThingDocument]:
        return await self.things.get(query.name)


async def test_a_table_of_another_schema_is_captured_and_its_namesake_is_not(postgres_url, valkey):
    program = Program(postgres_url)
    await program.runs('CREATE SCHEMA "Other Schema"')
    app = Diptych(
        configured(postgres_url, valkey.url),
        models=Base,
        handlers=[ThingQueries],
        read_models=[ThingReadModel],
    )
    async with app:
        await answered_by(app, "redis")
        await program.runs("CREATE TABLE public.things (name text PRIMARY KEY, amount int)")
        add = "INSERT INTO {} (name, amount) VALUES ('a', {})"
        await program.runs(add.format('"Other Schema".things', 1), add.format("public.things", 99))
        for number in (1, 2, 3):
            await app.catch_up()
            document = await app.ask(GetThing("a"))
            assert (document.served.store, document.decode()) == ("redis", ThingDocument("a", number))
            await program.runs('SET search_path = "Other Schema"', "UPDATE things SET amount = amount + 1")
            await program.runs("UPDATE things SET amount = 77")
        await app.orm.update(Thing, "a", amount=5)
        document = await app.ask(GetThing("a"))
        assert (document.served.store, document.decode()) == ("redis", ThingDocument("a", 5))
