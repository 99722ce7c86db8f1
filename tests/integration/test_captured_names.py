"""Tables and columns of any name are captured, each by functions and triggers of its own."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, Query, ReadModel, code_point_text
from diptych.errors import SchemaError
from tests.captured import Program
from tests.catalogue import answered_by
from tests.configuration import configured

NAMES = (
    "foo",
    "foo_t",
    "foo_truncate",
    "l" * 46 + "x",
    "l" * 46 + "y",
    "L" * 62 + "x",
    "L" * 62 + "y",
    "order",
    "a*/b--c",
    "a/*",
    "a/",
    "a$diptych$b",
    "a\\b'c%s:x",
)


class Found(msgspec.Struct, frozen=True):
    amount: int


def _application(url: str, redis_url: str) -> tuple[Diptych, list[Any]]:
    """The application, and a list that has its read models once it is started."""

    class Base(DeclarativeBase):
        pass

    kinds: dict[str, Any] = {}
    for number, name in enumerate(NAMES):
        columns = {
            "key": mapped_column("select", code_point_text(200), primary_key=True),
            "amount": mapped_column("a$diptych$", sa.Integer, nullable=False),
        }
        model: Any = type(f"Model{number}", (Base,), {"__tablename__": name, **columns})
        kinds[f"p{number}"] = type(f"Reads{number}", (ReadModel,), {"key": model.key, "document": Found})
    made: list[Any] = []
    names = ", ".join(kinds)
    scope: dict[str, Any] = {"made": made}
    exec(f"def __init__(self, {names}): made.extend([{names}])", scope)  # noqa: S102 - a parameter for each
    scope["__init__"].__annotations__.update(kinds)
    # Of a module of its own: it handles no query of this one.
    holder = type("Holder", (), {"__init__": scope["__init__"], "__module__": "holder"})
    config = configured(url, redis_url)
    return Diptych(config, models=Base, handlers=[holder], read_models=list(kinds.values())), made


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def test_tables_whose_names_are_alike_or_odd(database_url, valkey):
    app, read_models = _application(database_url, valkey.url)
    program = Program(database_url)

    async def amounts(key: str) -> list[int | None]:
        found = [await reads.get(key) for reads in read_models]
        assert {document.served.store for document in found} == {"redis"}
        return [None if document.body is None else document.decode().amount for document in found]

    async with app:
        await answered_by(app, "redis")
        for number, name in enumerate(NAMES):
            await program.runs(f"INSERT INTO {_quoted(name)} VALUES ('a', {number})")
        await app.catch_up()
        assert await amounts("a") == list(range(len(NAMES)))
        for reads in read_models:
            await app.orm.update(type(reads).key.class_, "a", amount=7)
        assert await amounts("a") == [7] * len(NAMES)
        async with app.orm.database.reader.connect() as connection:
            log = sa.text("SELECT table_name, count(*), min(row_id), max(row_id) FROM diptych_log GROUP BY 1")
            found = {row[0]: tuple(row[1:]) for row in await connection.execute(log)}
        assert found == dict.fromkeys(NAMES, (2, "a", "a"))
        if program.is_sqlite:
            return
        await program.runs(f"TRUNCATE {_quoted(NAMES[0])}")
        async with app.orm.database.reader.connect() as connection:
            touched = sa.text(
                "SELECT table_name, row_id FROM diptych_log WHERE kind = 'touched' ORDER BY position"
            )
            assert [tuple(row) for row in await connection.execute(touched)] == [("foo", None), ("foo", "a")]


class TextBase(DeclarativeBase):
    pass


class Tagged(TextBase):
    __tablename__ = "tagged"

    tag: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False), primary_key=True)
    amount: Mapped[int]


class TaggedReads(ReadModel[Tagged]):
    key = Tagged.tag
    document = Found


class GetTagged(Query[Document[Found]], frozen=True):
    tag: str


class TaggedQueries:
    def __init__(self, tagged: TaggedReads) -> None:
        self.tagged = tagged

    async def get(self, query: GetTagged) -> Document[Found]:
        return await self.tagged.get(query.tag)


def _tagged(url: str, redis_url: str) -> Diptych:
    config = configured(url, redis_url)
    return Diptych(config, models=TextBase, handlers=[TaggedQueries], read_models=[TaggedReads])


async def test_uuids_as_text_which_sqlite_keeps_without_hyphens(database_url, valkey):
    """The triggers tell what the table holds, and a document is at the text that a query gives."""
    one, other = (uuid.UUID(int=number << 96) for number in (10, 11))
    program = Program(database_url)
    in_table = (lambda tag: tag.hex) if program.is_sqlite else str
    async with _tagged(database_url, valkey.url) as app:

        async def at(tag: uuid.UUID) -> int | None:
            found = await app.ask(GetTagged(str(tag)))
            assert found.served.store == "redis"
            tagged = found.decode()
            return None if tagged is None else tagged.amount

        await answered_by(app, "redis")
        await program.runs(f"INSERT INTO tagged VALUES ('{in_table(one)}', 1)")
        await app.catch_up()
        assert await at(one) == 1
        await program.runs(f"UPDATE tagged SET tag = '{in_table(other)}', amount = 2")
        await app.catch_up()
        assert [await at(one), await at(other)] == [None, 2]
        await app.orm.execute(sa.update(Tagged).values(amount=3))
        assert await at(other) == 3
        await program.runs("DELETE FROM tagged")
        await app.catch_up()
        assert await at(other) is None


async def test_a_table_that_is_captured_into_the_log_of_another_schema_is_refused(postgres_url, valkey):
    """Each of two applications would make the triggers anew, and end what the other has built, again and again."""
    program = Program(postgres_url)
    async with _tagged(postgres_url, valkey.url):
        pass
    tables = ("version", "log", "fence", "history", "capture")
    await program.runs(
        "CREATE SCHEMA second",
        f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET search_path = second, public",
        "CREATE SCHEMA first",
        *(f"ALTER TABLE diptych_{name} SET SCHEMA first" for name in tables),
        "ALTER FUNCTION diptych_capture_tagged SET SCHEMA first",
    )
    with pytest.raises(
        SchemaError, match=r"changes of tagged are captured by another application, into first\.diptych_log"
    ):
        await _tagged(postgres_url, valkey.url).start()


@pytest.mark.parametrize("schema", [None, "main"])
async def test_names_in_other_letters_than_sqlite_has_them(sqlite_url, valkey, schema):
    """SQLite compares names without regard to case, and calls the schema of its file main."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        __table_args__ = {"schema": schema}  # noqa: RUF012 - as SQLAlchemy has it
        code: Mapped[str] = mapped_column(code_point_text(200), primary_key=True)
        amount: Mapped[int]

    program = Program(sqlite_url)
    await program.runs(
        "CREATE TABLE THINGS (Code TEXT PRIMARY KEY NOT NULL, AMOUNT INTEGER NOT NULL)",
        "CREATE TRIGGER follow AFTER UPDATE ON THINGS WHEN NEW.code = 'a' BEGIN "
        "UPDATE THINGS SET amount = NEW.amount WHERE code = 'b'; END",
    )
    made: list[Any] = []
    reads: Any = type("Reads", (ReadModel,), {"key": Thing.code, "document": Found})
    scope: dict[str, Any] = {"made": made}
    exec("def __init__(self, reads): made.append(reads)", scope)  # noqa: S102
    scope["__init__"].__annotations__["reads"] = reads
    holder = type("Holder", (), {"__init__": scope["__init__"], "__module__": "holder"})
    config = configured(sqlite_url, valkey.url, create_tables=False)
    async with Diptych(config, models=Base, handlers=[holder], read_models=[reads]) as app:

        async def at(code: str) -> tuple[str, int | None]:
            found = await made[0].get(code)
            return found.served.store, None if found.body is None else found.decode().amount

        await answered_by(app, "redis")
        await program.runs("INSERT INTO things VALUES ('a', 1), ('b', 2)")
        await app.catch_up()
        assert [await at("a"), await at("b")] == [("redis", 1), ("redis", 2)]
        await app.orm.update(Thing, "a", amount=3)  # what its trigger does besides is known
        assert [await at("a"), await at("b")] == [("redis", 3), ("redis", 3)]
