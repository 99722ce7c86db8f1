"""Keys: what one route finds the other does, and columns whose equality is not that of bytes are refused at start."""

from __future__ import annotations

import datetime
import enum
import uuid
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from msgspec import Struct, defstruct
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    ConfigService,
    Diptych,
    Document,
    ORMService,
    Query,
    ReadModel,
    WiringError,
    by,
    code_point_text,
)
from diptych.read.sql.rows import SqlRows
from tests.catalogue import answered_by
from tests.configuration import configured
from tests.conformance.tables import page_of


class Base(DeclarativeBase):
    pass


class Kind(enum.StrEnum):
    ONE = "one"


class Thing(Base):
    """A key of each kind, each the key of a read model of its own."""

    __tablename__ = "things"

    number: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    small: Mapped[int] = mapped_column(sa.SmallInteger, unique=True)
    big: Mapped[int] = mapped_column(sa.BigInteger, unique=True)
    name: Mapped[str] = mapped_column(code_point_text(10), unique=True)
    code: Mapped[uuid.UUID] = mapped_column(unique=True)
    text_code: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False), unique=True)
    plain_code: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False, native_uuid=False), unique=True)
    day: Mapped[datetime.date] = mapped_column(unique=True)
    word: Mapped[str] = mapped_column(sa.Enum("yes", "no", name="word_of_thing"), unique=True)


class ThingDocument(Struct):
    number: int
    text_code: str


class ByNumber(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.number
    document = ThingDocument


class BySmall(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.small
    document = ThingDocument


class ByBig(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.big
    document = ThingDocument


class ByName(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.name
    document = ThingDocument


class ByCode(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.code
    document = ThingDocument


class ByTextCode(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.text_code
    document = ThingDocument


class ByPlainCode(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.plain_code
    document = ThingDocument


class ByDay(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.day
    document = ThingDocument


class ByWord(ReadModel[Thing]):
    key: ClassVar[Any] = Thing.word
    document = ThingDocument


class GetThing(Query[Document[ThingDocument]]):
    by: str
    key: Any


class Handler:
    def __init__(
        self,
        number: ByNumber,
        small: BySmall,
        big: ByBig,
        name: ByName,
        code: ByCode,
        text_code: ByTextCode,
        plain_code: ByPlainCode,
        day: ByDay,
        word: ByWord,
    ) -> None:
        models: list[ReadModel[Any]] = [number, small, big, name, code, text_code, plain_code, day, word]
        self.read_models = {type(model).key.key: model for model in models}

    async def get(self, query: GetThing) -> Document[ThingDocument]:
        return await self.read_models[query.by].get(query.key)


READ_MODELS = [ByNumber, BySmall, ByBig, ByName, ByCode, ByTextCode, ByPlainCode, ByDay, ByWord]


CODE = uuid.UUID("aabbccdd-eeff-0011-2233-445566778899")
ROW: dict[str, Any] = {
    "number": 1,
    "small": 2,
    "big": 2**40,
    "name": "None",
    "code": CODE,
    "text_code": str(CODE).upper(),
    "plain_code": CODE.hex.upper(),
    "day": datetime.date(2024, 2, 29),
    "word": "yes",
}


class Text(str):
    """Text of a class of its own."""


FOUND: list[tuple[str, Any]] = [
    *ROW.items(),
    *(("number", "1"), ("number", 1.0), ("big", str(2**40)), ("name", Text("None")), ("day", "2024-02-29")),
    *(
        (name, text)
        for name in ("code", "text_code", "plain_code")
        for text in (str(CODE), str(CODE).upper())
    ),
    *(("text_code", CODE.hex), ("text_code", CODE), ("plain_code", CODE.hex), ("plain_code", CODE)),
]
ODD = [
    None,
    "",
    b"",
    1.5,
    float("nan"),
    True,
    object(),
    [],
    {},
    "\ud800",
    "a\x00b",
    10**5000,
    Thing.name,
    sa.text("1"),
]
NOT_THERE: list[tuple[str, Any]] = [
    *((name, value) for name in ROW for value in ODD),
    *(("number", 2**31), ("number", -(2**31) - 1), ("small", 2**15), ("big", 2**63), ("number", "9" * 5000)),
    *(("name", 5), ("name", "x" * 11), ("name", "é"), ("name", CODE), ("word", "perhaps"), ("word", "no")),
    *(("code", uuid.UUID(int=1)), ("code", "x"), ("text_code", "x"), ("text_code", str(CODE) + "0")),
    *(("day", "soon"), ("day", datetime.date.max), ("day", datetime.datetime(2024, 2, 29, 5))),
]


def application(database_url: str, redis_url: str | None = None) -> Diptych:
    config = configured(database_url, redis_url)
    return Diptych(config, models=Base, handlers=[Handler], read_models=READ_MODELS)


async def test_both_routes_find_a_row_by_every_form_of_its_key_and_nothing_by_what_is_none(
    database_url, valkey
):
    """What the column can't hold is not there: no error of a driver, and no row by accident (one named "None")."""
    async with application(database_url, valkey.url) as redis, application(database_url) as sql:
        await answered_by(redis, "redis")
        await redis.orm.create(Thing, **ROW)
        for store, app in (("redis", redis), ("sql", sql)):
            read_models = app._run.bus.handler_of(GetThing).__self__.read_models  # type: ignore[attr-defined]
            for name, key in FOUND:
                found = await read_models[name].get(key)
                assert (found.served.store, found.body) == (
                    store,
                    b'{"number":1,"text_code":"%s"}' % str(CODE).encode(),
                ), (name, key)
            for name, key in NOT_THERE:
                found = await read_models[name].get(key)
                assert found.body is None, (name, key)


async def test_a_uuid_that_is_text_is_one_row_however_it_is_written(database_url):
    async with application(database_url) as app:
        created = await app.orm.create(Thing, **ROW)
        assert created.text_code == created.plain_code == str(CODE)
        for form in (str(CODE), str(CODE).upper(), CODE.hex.upper()):
            for name in ("text_code", "plain_code"):
                assert await app.orm.get(Thing, form, name) is not None
        assert await app.orm.update(Thing, str(CODE).upper(), "text_code", small=3)


# What the database has may be another thing than what is mapped


def read_model_of(key_type: Any, **declared: Any) -> tuple[type, type[ReadModel[Any]]]:
    """A base with one table of one key of this type, and a read model by it."""
    base: Any = type("Base", (DeclarativeBase,), {})
    columns = {
        "id": mapped_column(sa.Integer, primary_key=True),
        "key": mapped_column(key_type, nullable=False, unique=True),
    }
    row: Any = type("Keyed", (base,), {"__tablename__": "keyed", **columns})
    document = defstruct("KeyedDocument", [("key", Any)])
    model = type(
        "ByKey", (ReadModel,), {"key": row.key, "document": document, "lists": (by(row.key),), **declared}
    )
    return base, model


async def starts(database_url: str, key_type: Any, *statements: str) -> None:
    """Starts an application over a database in which these statements were executed."""
    orm = ORMService(ConfigService(environ={}, database_url=database_url))
    await orm.init()
    async with orm.database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))
    await orm.close()
    base, model = read_model_of(key_type)
    config = ConfigService(environ={}, database_url=database_url)
    async with Diptych(config, models=base, handlers=[], read_models=[model]):
        pass


class Folded(sa.types.TypeDecorator[str]):
    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return value and value.lower()


class Own(sa.String):
    cache_ok = True


TABLE = "CREATE TABLE keyed (id integer PRIMARY KEY, key {} NOT NULL UNIQUE)"
NONDETERMINISTIC = (
    "CREATE COLLATION loose (provider = libc, locale = 'C')",
    TABLE.format('text COLLATE "loose"'),
    # Such collations need ICU, which not every server is built with: this one only says that it is one.
    "SET allow_system_table_mods = on",
    "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'loose'",
)
CITEXT_DATABASE = "CREATE EXTENSION citext"

REFUSED: dict[str, tuple[str, Any, tuple[str, ...], str]] = {
    "CITEXT": ("postgresql", CITEXT, (CITEXT_DATABASE,), "is of the type CITEXT"),
    "citext in the database": (
        "postgresql", sa.Text, (CITEXT_DATABASE, TABLE.format("citext")), "is of the type citext in the database",
    ),
    "a domain over citext": (
        "postgresql", sa.Text,
        (
            CITEXT_DATABASE, "CREATE DOMAIN slug AS citext", "CREATE DOMAIN short_slug AS slug",
            TABLE.format("short_slug"),
        ),
        "is of the type short_slug in the database",
    ),
    "a domain of a nondeterministic collation": (
        "postgresql", sa.Text,
        (
            NONDETERMINISTIC[0], 'CREATE DOMAIN slug AS text COLLATE "loose"', TABLE.format("slug"),
            *NONDETERMINISTIC[2:],
        ),
        "is of the nondeterministic collation loose in the database",
    ),
    "a nondeterministic collation": (
        "postgresql", sa.Text, NONDETERMINISTIC, "is of the nondeterministic collation loose in the database",
    ),
    "a nondeterministic collation that is mapped": (
        "postgresql", sa.Text(collation="loose"), NONDETERMINISTIC,
        "is of the nondeterministic collation loose in the database",
    ),
    "char(n)": ("postgresql", sa.CHAR(5), (), "is of the type CHAR"),
    "nchar(n)": ("postgresql", sa.NCHAR(5), (), "is of the type NCHAR"),
    "char(n) in the database": (
        "postgresql", sa.Text, (TABLE.format("char(5)"),), r"is of the type character\(5\) in the database",
    ),
    "numeric in the database": (
        "postgresql", sa.Integer, (TABLE.format("numeric"),), "is of the type numeric in the database",
    ),
    "NOCASE": ("sqlite", sa.String(collation="NOCASE"), (), "is of the collation NOCASE"),
    "NOCASE in the database": (
        "sqlite", sa.Text, (TABLE.format("text COLLATE NOCASE"),),
        "is of a collation that ignores case in the database",
    ),
    "RTRIM in the database": (
        "sqlite", sa.Text, (TABLE.format("text COLLATE RTRIM"),),
        "is of a collation that ignores trailing blanks in the database",
    ),
    "numbers in the database": (
        "sqlite", sa.Text, (TABLE.format("numeric"),), "is of the type numeric in the database",
    ),
    "text in the database": ("sqlite", sa.Integer, (TABLE.format("text"),), "is of the type TEXT in the database"),
    "a UUID among numbers": ("sqlite", sa.Uuid, (TABLE.format("uuid"),), "is of the type uuid in the database"),
    "a decorated type": ("sqlite", Folded, (), "is of the type Folded"),
    "a type of one's own": ("sqlite", Own, (), "is of the type Own"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_a_key_that_is_not_compared_byte_by_byte_is_refused_with_the_mend(request, case):
    """Redis would say 404 where SQL says 200."""
    database, key_type, statements, words = REFUSED[case]
    url = request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url")
    with pytest.raises(
        WiringError, match=f"ByKey: the key 'key' must be compared byte for byte, and {words}: make it"
    ):
        await starts(url, key_type, *statements)


ADMITTED: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "the database's collation": ("postgresql", sa.Text, ()),
    "a deterministic collation": ("postgresql", sa.Text(collation="ucs_basic"), ()),
    "another deterministic collation in the database": (
        "postgresql",
        sa.Text,
        (TABLE.format('text COLLATE "POSIX"'),),
    ),
    "a domain over text": ("postgresql", sa.Text, ("CREATE DOMAIN slug AS varchar(5)", TABLE.format("slug"))),
    "an enum": ("postgresql", sa.Enum("a", "b", name="letters"), ()),
    "a UUID": ("postgresql", sa.Uuid, ()),
    "a UUID as digits": ("postgresql", sa.Uuid(native_uuid=False), ()),
    "a whole number of another size": ("postgresql", sa.Integer, (TABLE.format("bigint"),)),
    "a day": ("postgresql", sa.Date, ()),
    "BINARY": ("sqlite", sa.String(collation="BINARY"), ()),
    "text of another name": ("sqlite", sa.String(5), (TABLE.format("nvarchar(5)"),)),
    "no type": ("sqlite", sa.Text, (TABLE.format(""),)),
    "char": ("sqlite", sa.CHAR(5), ()),
    "digits": ("sqlite", sa.Uuid, ()),
    "days": ("sqlite", sa.Date, ()),
}


@pytest.mark.parametrize("case", ADMITTED)
async def test_a_key_that_is_compared_byte_by_byte_is_admitted(request, case):
    database, key_type, statements = ADMITTED[case]
    await starts(
        request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"),
        key_type,
        *statements,
    )


async def test_a_list_is_in_code_points_whatever_collation_the_database_has(postgres_url):
    """Where the mapping says "C" and the database has another order, Redis would list otherwise than SQL."""
    await starts(postgres_url, code_point_text(), TABLE.format('text COLLATE "default"'))
    base, model = read_model_of(code_point_text())
    config = ConfigService(environ={}, database_url=postgres_url)
    async with Diptych(config, models=base, handlers=[], read_models=[model]) as app:
        rows = SqlRows(
            app.orm.database,
            app.orm.side.entities.of,
            app.orm.side.entities.of(model.key.class_),
            [("key",)],
            ["key"],
        )
        assert 'ORDER BY keyed.key COLLATE "C"' in str(
            rows._pages.page(page_of(app.orm, model.key.class_, ("key",))).select
        )
