"""Diptych: started, wired, stopped; and what it refuses at start."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import pytest
from sqlalchemy import CHAR, ForeignKey, String, func, literal_column, text
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from diptych import (
    Command,
    ConfigService,
    DatabaseUnavailableError,
    Diptych,
    NotStartedError,
    ORMService,
    Query,
    ReadModel,
    RedisService,
    WiringError,
    by,
    count,
)
from diptych.context import request_scope
from diptych.write.unit_of_work import new_context
from tests.books import AddBook, Book, GetBook
from tests.catalogue import author_of, catalogue, eventually
from tests.configuration import configured


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(50), unique=True)
    text: Mapped[str | None]
    folded: Mapped[str] = mapped_column(String(50, collation="NOCASE"), unique=True)


class Clock:
    pass


class NoteDocument(msgspec.Struct):
    slug: str
    text: str | None


def _app(url: str, *handlers: type, **options) -> Diptych:
    return Diptych(ConfigService(environ={}, database_url=url), models=Base, handlers=handlers, **options)


async def test_it_starts_and_stops_twice_over(sqlite_url):
    app = catalogue(sqlite_url)
    with pytest.raises(NotStartedError):
        await app.execute(AddBook("Dune", "x"))
    await app.stop()
    for _ in range(2):
        await app.start()
        await app.start()
        await app.ask(GetBook("Dune"))
        await app.stop()
        await app.stop()
    with pytest.raises(NotStartedError):
        await app.ask(GetBook("Dune"))


async def test_stopping_waits_for_the_handlers_that_run(database_url, valkey):
    app = catalogue(database_url, valkey.url)
    await app.start()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_unit: object) -> None:
        await app.orm.create(Book, title="Dune", author="x")
        begun.set()
        await go_on.wait()

    command = asyncio.create_task(app.orm.side.units.run(slow, new_context()))
    await begun.wait()
    stopping = asyncio.create_task(app.stop())
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    go_on.set()
    await command
    await stopping
    async with catalogue(database_url, valkey.url) as again:
        assert (await author_of(again, "Dune"))[1] == "x"


async def test_a_query_given_to_execute_is_told_where_to_go(sqlite_url):
    async with catalogue(sqlite_url) as app:
        with pytest.raises(TypeError, match="ask"):
            await app.execute(GetBook("Dune"))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="execute"):
            await app.ask(AddBook("Dune", "x"))  # type: ignore[arg-type]


async def test_every_wiring_fault_stops_the_start_and_nothing_stays_open(sqlite_url):
    class Unhandled(Command[int]):
        pass

    class Twice(Query[int]):
        pass

    class Handlers:
        def __init__(self, clock: Clock) -> None:
            pass

        async def one(self, query: Twice) -> int:
            return 1

        async def two(self, query: Twice) -> int:
            return 2

    app = _app(sqlite_url, Handlers)
    # The annotations name classes of this function, which can't be looked up by name.
    Handlers.one.__annotations__ = Handlers.two.__annotations__ = {"query": Twice, "return": int}
    Handlers.__init__.__annotations__ = {"clock": Clock}
    with pytest.raises(WiringError) as caught:
        await app.start()
    text = str(caught.value)
    assert "Unhandled has no handler" in text
    assert "Twice has 2 handlers, Handlers.one and Handlers.two" in text
    assert "clock: Clock, which nothing provides" in text
    with pytest.raises(NotStartedError):
        await app.orm.get(Note, 1)


READ_MODEL_FAULTS: dict[str, dict[str, object]] = {
    "must be NOT NULL": {"key": Note.text},
    "must be unique by itself": {"key": Note.text},
    "byte for byte": {"key": Note.folded},
    "2 lists are called 'text'": {"key": Note.slug, "lists": (by(Note.text), by(Note.text.desc()))},
    "the name must be of letters": {"key": Note.slug, "lists": (by(Note.slug, name="a b"),)},
    "'isbn' is not a mapped column of Note": {
        "key": Note.slug,
        "document": msgspec.defstruct("D", [("isbn", str)]),
    },
    "may be null, but the document's field may not": {
        "key": Note.slug,
        "document": msgspec.defstruct("D", [("text", str)]),
    },
    "must be a msgspec.Struct": {"key": Note.slug, "document": dict},
    "must be a mapped attribute": {"key": "slug"},
}


@pytest.mark.parametrize("fault", READ_MODEL_FAULTS)
async def test_a_faulty_read_model_stops_the_start(sqlite_url, fault):
    attributes: dict[str, object] = {"document": NoteDocument, **READ_MODEL_FAULTS[fault]}
    model = type("NoteReadModel", (ReadModel,), attributes)
    with pytest.raises(WiringError, match=fault):
        await _app(sqlite_url, read_models=[model]).start()


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    note_id: Mapped[int] = mapped_column(ForeignKey("notes.id"))
    note: Mapped[Note] = relationship()
    shown: Mapped[str] = column_property(func.upper(literal_column("tags.name")))

    @hybrid_property
    def label(self) -> str:
        return self.name


class TagDocument(msgspec.Struct):
    name: str


NO_COLUMNS = {
    "lower(tags.name)": func.lower(Tag.name),
    "tags.name COLLATE": Tag.name.collate("NOCASE"),
    "tags.name": Tag.__table__.c.name,
    "name": "name",
    "None": None,
    "text of its own": text("text of its own"),
}


@pytest.mark.parametrize("shown", NO_COLUMNS)
async def test_an_order_of_something_else_than_a_column_is_refused_in_words(sqlite_url, shown):
    """When the application starts, where the read model can be named, and never as a bare `TypeError`."""
    order = by(NO_COLUMNS[shown])
    model = type("TagReadModel", (ReadModel,), {"key": Tag.id, "document": TagDocument, "lists": (order,)})
    with pytest.raises(WiringError) as caught:
        await _app(sqlite_url, read_models=[model]).start()
    (problem,) = caught.value.problems
    assert problem.startswith(f"TagReadModel: by({shown}")
    assert "is no mapped attribute. Lists are in the order of columns, such as by(Tag.id.desc());" in problem
    assert "add a column that sorts so" in problem


@pytest.mark.parametrize("attribute", [Tag.note, Tag.label, Tag.shown], ids=str)
async def test_an_order_of_an_attribute_that_is_no_column_is_refused_in_words(sqlite_url, attribute):
    order = by(attribute)
    model = type("TagReadModel", (ReadModel,), {"key": Tag.id, "document": TagDocument, "lists": (order,)})
    with pytest.raises(WiringError, match=f"TagReadModel: '{attribute.key}' is not a mapped column of Tag"):
        await _app(sqlite_url, read_models=[model]).start()


@pytest.mark.parametrize("has_nested", [False, True])
async def test_a_relationship_to_an_unknown_class_is_refused_in_words(sqlite_url, has_nested):
    class Misspelt(DeclarativeBase):
        pass

    class Shelf(Misspelt):
        __tablename__ = "shelves"
        id: Mapped[int] = mapped_column(primary_key=True)
        books = relationship("Bock")

    fields = [("id", int), ("books", int)] if has_nested else [("id", int)]
    nested = {"books": count(Shelf.books)} if has_nested else {}
    declared = {"key": Shelf.id, "document": msgspec.defstruct("ShelfDocument", fields), "nested": nested}
    model = type("ShelfReadModel", (ReadModel,), declared)
    app = Diptych(configured(sqlite_url), models=Misspelt, handlers=[], read_models=[model])
    try:
        with pytest.raises(WiringError, match=r"mend the mapping: .*'Bock' failed to locate a name"):
            await app.start()
    finally:
        Misspelt.registry.dispose()  # the faulty mapping would be in the way of every other of this process


class CodedBase(DeclarativeBase):
    pass


class Coded(CodedBase):
    __tablename__ = "coded"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(CHAR(6), unique=True)


class CodedDocument(msgspec.Struct):
    code: str


class CodedReadModel(ReadModel[Coded]):
    key = Coded.code
    document = CodedDocument


async def test_a_key_whose_trailing_blanks_do_not_count_is_refused(postgres_url):
    """Redis would not find what SQL finds."""
    app = Diptych(
        ConfigService(environ={}, database_url=postgres_url),
        models=CodedBase,
        handlers=[],
        read_models=[CodedReadModel],
    )
    with pytest.raises(WiringError, match="byte for byte, and is of the type CHAR"):
        await app.start()


async def test_two_read_models_of_one_name_are_refused(sqlite_url):
    """They would share their keys in Redis."""
    attributes = {"key": Note.slug, "document": NoteDocument}
    models = [type("NoteReadModel", (ReadModel,), attributes) for _ in range(2)]
    with pytest.raises(WiringError, match="2 read models are named NoteReadModel: rename all but one"):
        await _app(sqlite_url, read_models=models).start()


async def test_two_services_of_one_type_are_refused(sqlite_url):
    with pytest.raises(WiringError, match="2 services are of the type Clock"):
        await _app(sqlite_url, services=[Clock(), Clock()]).start()


class SmallDocument(msgspec.Struct):
    slug: Annotated[str, msgspec.Meta(max_length=3)]


class NoteReadModel(ReadModel[Note]):
    key = Note.slug
    document = NoteDocument


class SmallReadModel(ReadModel[Note]):
    key = Note.slug
    document = SmallDocument


async def test_a_row_that_does_not_fit_one_document_is_set_aside_there_and_shown_in_another(
    sqlite_url, valkey, caplog
):
    config = configured(sqlite_url, valkey.url, redis_probe_interval_ms=10)
    async with Diptych(config, models=Base, handlers=[], read_models=[SmallReadModel, NoteReadModel]) as app:
        await app.orm.create(Note, slug="too long", folded="x")

        async def answered() -> bool:
            health = (await app.health()).read_models
            found = [(health[name].served_by, health[name].set_aside) for name in health]
            return found == [("redis", 1), ("redis", 0)]

        await eventually(answered, "both are served by Redis, one without the row")
        assert "a pass failed" not in caplog.text


async def test_a_file_that_is_no_database_is_a_clear_error_at_start(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database, but long enough to be looked at as one " * 50)
    with pytest.raises(DatabaseUnavailableError, match="DATABASE_URL"):
        await catalogue(str(notes)).start()
    assert notes.read_text().startswith("not a database")


class WantsRedis:
    def __init__(self, redis: RedisService) -> None:
        self.redis = redis


class MayHaveRedis:
    def __init__(self, orm: ORMService, redis: RedisService | None = None) -> None:
        assert redis is None


async def test_a_handler_that_needs_redis_is_told_to_set_it_up(sqlite_url):
    with pytest.raises(WiringError, match="set REDIS_URL"):
        await _app(sqlite_url, WantsRedis).start()
    async with _app(sqlite_url, MayHaveRedis):
        pass


async def test_the_log_carries_the_request_and_the_actor(sqlite_url):
    from sqlalchemy import text

    app = catalogue(sqlite_url)
    app._actor = lambda scope: None if scope is None else str(scope["user"])
    async with app:
        token = request_scope.set({"type": "http", "headers": [(b"x-request-id", b"abc-1")], "user": "ann"})
        await app.execute(AddBook("Dune", "x"))
        request_scope.reset(token)
        await app.execute(AddBook("Emma", "x"))
        async with app.orm.database.reader.connect() as connection:
            rows = (await connection.execute(text("SELECT correlation_id, actor FROM diptych_log"))).all()
    assert [tuple(row) for row in rows] == [("abc-1", "ann"), (None, None)]


async def test_health_tells_which_store_answers(sqlite_url):
    async with catalogue(sqlite_url) as app:
        health = await app.health()
        assert health.status == "ok"
        assert (health.sql.state, health.sql.engine) == ("up", "sqlite")
        assert health.redis.state == "off"
        assert health.read_models["BookReadModel"].detail == "no-redis"
