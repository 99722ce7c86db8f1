"""The application's own engine in place of ``DATABASE_URL``: its pool and its hooks, and what is refused."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool, StaticPool

from diptych import (
    Command,
    ConfigService,
    ConfigurationError,
    DatabaseBusyError,
    Diptych,
    DuplicateError,
    ORMService,
    SchemaError,
)
from diptych.cli.commands.migrate import migrated
from tests.books import AddBook, Base, Book, BookCommandHandler, BookQueryHandler, BookReadModel
from tests.catalogue import agree, answered_by, author_of, sees, sees_in_redis
from tests.configuration import configured
from tests.conftest import MISSING
from tests.servers import PgBouncer, PostgresServer, RedisServer, pgbouncer_binary


class Rename(Command[int]):
    """Renames authors, by a session."""

    before: str
    after: str


class RenameHandler:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def rename(self, command: Rename) -> int:
        async with self.orm.session() as session:
            books = (await session.scalars(sa.select(Book).where(Book.author == command.before))).all()
            for book in books:
                book.author = command.after
            return len(books)


def engine_of(url: str, **options: Any) -> AsyncEngine:
    return create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), **options)


def catalogue(engine: AsyncEngine, redis_url: str | None = None, **settings: Any) -> Diptych:
    values = {"lease_ms": 400, "redis_query_timeout_ms": 2000, "redis_probe_interval_ms": 20, **settings}
    return Diptych(
        ConfigService(environ={}, redis_url=redis_url, **values),
        models=Base,
        handlers=[BookCommandHandler, BookQueryHandler, RenameHandler],
        read_models=[BookReadModel],
        engine=engine,
    )


NOTED = ("before_execute", "before_cursor_execute", "after_cursor_execute", "begin", "commit", "rollback")


class Hooks:
    """Hooks of an application, which note what they are called for."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.calls: list[str] = []
        for name in NOTED:
            sa.event.listen(engine.sync_engine, name, self._noting(name))
        sa.event.listen(engine.sync_engine, "begin", self._set_tenant)

    def _noting(self, name: str) -> Callable[..., None]:
        def note(*arguments: Any) -> None:
            self.calls.append(name)

        def note_statement(c: Any, cursor: Any, statement: Any, p: Any, context: Any, many: Any) -> None:
            note()

        def note_execute(c: Any, element: Any, p: Any, q: Any, options: Any) -> None:
            note()

        def note_end(c: Any) -> None:
            note()

        return {"before_execute": note_execute}.get(name, note_statement if "cursor" in name else note_end)

    @staticmethod
    def _set_tenant(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT set_config('shop.tenant', 'north', true)")


PECULIAR = (
    *("plain", "hooked", "autocommit", "serializable", "no pool", "one connection", "no cache"),
    *("not durable", "disposed of"),
)


@pytest.fixture(params=PECULIAR)
async def engine(request: pytest.FixtureRequest, postgres_url: str) -> Any:
    """An engine of an application, with one peculiarity each."""
    peculiar: dict[str, dict[str, Any]] = {
        "autocommit": {"isolation_level": "AUTOCOMMIT"},
        "serializable": {"isolation_level": "SERIALIZABLE"},
        "no pool": {"poolclass": NullPool},
        "one connection": {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5},
        "no cache": {"connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0}},
        "not durable": {"connect_args": {"server_settings": {"synchronous_commit": "off"}}},
    }
    made = engine_of(postgres_url, **peculiar.get(request.param, {}))
    if request.param == "hooked":
        Hooks(made)
    if request.param == "disposed of":
        async with made.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
        await made.dispose()
    yield made
    await made.dispose()


async def test_commands_work_through_the_engine_and_others_of_it_are_noticed(
    engine: AsyncEngine, valkey: RedisServer
):
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with catalogue(engine, valkey.url) as app:
        await app.execute(AddBook("Dune", "F. Herbert"))
        with pytest.raises(DuplicateError):
            await app.execute(AddBook("Dune", "F. Herbert"))
        await answered_by(app, "redis")
        assert await app.execute(Rename("F. Herbert", "Frank Herbert")) == 1
        await sees(app, "Dune", "Frank Herbert")
        async with sessions.begin() as session:
            session.add(Book(title="Emma", author="Jane Austen", stock_quantity=0))
        await app.catch_up()
        await sees(app, "Emma", "Jane Austen")
        await agree(app)
    async with sessions() as session:  # the engine is the application's still
        assert await session.scalar(sa.select(sa.func.count()).select_from(Book)) == 2


async def test_a_unit_of_work_is_repeatable_and_durable_whatever_the_engine_says(engine: AsyncEngine):
    names = ("transaction_isolation", "synchronous_commit", "transaction_read_only")
    shown = sa.select(*(sa.func.current_setting(name) for name in names))
    async with engine.connect() as connection:
        before = (await connection.execute(shown)).one()
    async with catalogue(engine) as app:
        assert (await app.orm.execute(shown)).one() == ("repeatable read", "on", "off")
    async with engine.connect() as connection:
        assert (await connection.execute(shown)).one() == before


async def test_connections_are_those_of_the_engines_pool(postgres_url: str):
    engine = engine_of(postgres_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    async with catalogue(engine) as app:
        await app.orm.create(Book, title="Dune", author="A", stock_quantity=0)
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
            with pytest.raises(DatabaseBusyError, match="raise its pool_size"):
                await app.orm.update(Book, "Dune", "title", author="B")
        await app.orm.update(Book, "Dune", "title", author="B")
        assert await author_of(app, "Dune") == ("sql", "B")
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


async def test_hooks_of_the_engine_are_called_for_commands(postgres_url: str):
    engine = engine_of(postgres_url)
    hooks = Hooks(engine)
    async with catalogue(engine) as app:
        hooks.calls.clear()
        await app.orm.create(Book, title="Dune", author="A", stock_quantity=0)
        assert set(hooks.calls) == {*NOTED} - {"rollback"}
        assert hooks.calls.index("begin") < hooks.calls.index("after_cursor_execute")
        assert hooks.calls[-1] == "commit"
        hooks.calls.clear()
        with pytest.raises(DuplicateError):
            await app.orm.create(Book, title="Dune", author="A", stock_quantity=0)
        assert "rollback" in hooks.calls
        assert "commit" not in hooks.calls
        tenant = sa.select(sa.func.current_setting("shop.tenant"))
        assert (await app.orm.execute(tenant)).scalar() == "north"
    await engine.dispose()


async def test_a_hook_that_fails_fails_the_command(postgres_url: str):
    engine = engine_of(postgres_url)

    async with catalogue(engine) as app:
        await app.orm.create(Book, title="Dune", author="A", stock_quantity=0)

    def fail(_connection: sa.Connection) -> None:
        raise RuntimeError("no commits today")

    sa.event.listen(engine.sync_engine, "commit", fail)
    async with catalogue(engine) as app:
        with pytest.raises(RuntimeError, match="no commits today"):
            await app.orm.update(Book, "Dune", "title", author="B")
        assert await author_of(app, "Dune") == ("sql", "A")
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_comment_that_a_hook_puts_before_statements_costs_no_freshness(
    postgres_url: str, valkey: RedisServer
):
    engine = engine_of(postgres_url)

    @sa.event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
    def comment(c: Any, cursor: Any, statement: str, values: Any, context: Any, many: Any) -> Any:
        return f"/* shop */ {statement}", values

    async with catalogue(engine, valkey.url) as app:
        await app.execute(AddBook("Dune", "A"))
        await sees_in_redis(app, "Dune", "A")
        for n in range(5):
            await app.orm.update(Book, "Dune", "title", author=f"B {n}")
            await sees(app, "Dune", f"B {n}")
        await agree(app)
    await engine.dispose()


async def test_json_is_written_and_read_by_the_functions_of_the_engine(postgres_url: str):
    class Own(DeclarativeBase):
        pass

    class Note(Own):
        __tablename__ = "notes"

        id: Mapped[int] = mapped_column(primary_key=True)
        data: Mapped[Any] = mapped_column(JSONB)

    engine = engine_of(
        postgres_url,
        json_serializer=lambda value: json.dumps({"written": value}),
        json_deserializer=lambda text: [json.loads(text)],
    )
    async with ORMService(ConfigService(environ={})) as orm:
        await orm.init(models=Own, engine=engine)
        made = await orm.create(Note, data=1)
        assert made.data == [{"written": 1}]
        changed = await orm.update(Note, made.id, return_instance=True, data=2)
        assert changed is not None
        assert changed.data == [{"written": 2}]
    await engine.dispose()


async def test_nothing_is_left_on_the_engine_after_the_stop(postgres_url: str):
    engine = engine_of(postgres_url)
    dialect: Any = engine.dialect

    def listeners() -> list[int]:
        events = (engine.pool.dispatch.connect, dialect.dispatch.handle_error, dialect.dispatch.do_connect)
        own = engine.sync_engine.dispatch.before_cursor_execute
        return [len(list(found)) for found in (*events, own)]

    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))
    before = listeners()
    for _ in range(2):
        async with catalogue(engine) as app:
            await app.orm.all(Book)
            assert listeners() != before
        assert listeners() == before
    await engine.dispose()


async def test_connections_that_were_opened_before_the_start_are_replaced(postgres_url: str):
    """They may be of another event loop, or lead to a server that is not at the address any more."""
    engine = engine_of(postgres_url)

    async def pid() -> int:
        async with engine.connect() as connection:
            return int(await connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)

    before = await pid()
    async with catalogue(engine) as app:
        first = (await app.orm.execute(sa.text("SELECT pg_backend_pid()"))).scalar()
        assert first != before
        assert (await app.orm.execute(sa.text("SELECT pg_backend_pid()"))).scalar() == first == await pid()
    await engine.dispose()


def test_an_engine_of_a_loop_that_is_closed_is_of_use_in_the_next(postgres_url: str):
    """In a process of its own: Python warns of the connections that are left in the loops."""
    program = f"""
        import asyncio
        from tests.integration.test_engine import AddBook, Book, catalogue, engine_of

        engine = engine_of({postgres_url!r})

        async def add(title):
            async with catalogue(engine) as app:
                await app.execute(AddBook(title, "A"))
                return len(await app.orm.all(Book))

        print(asyncio.run(add("Dune")), asyncio.run(add("Emma")))
    """
    done = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(program)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "1 2\n", done.stderr


async def test_connections_that_the_server_has_closed_are_replaced(postgres_url: str):
    engine = engine_of(postgres_url)
    async with catalogue(engine) as app:
        await app.execute(AddBook("Dune", "A"))
        async with app.orm.database.keeper.connect() as other:
            await other.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                )
            )
        await asyncio.sleep(0.05)
        await app.execute(AddBook("Emma", "A"))
        await engine.dispose()  # by the application, while diptych is at work
        await app.execute(AddBook("Ulysses", "A"))
        assert len(await app.orm.all(Book)) == 3
    await engine.dispose()


async def test_orm_service_alone_takes_an_engine(postgres_url: str):
    engine = engine_of(postgres_url)
    async with ORMService(ConfigService(environ={})) as orm:
        await orm.init(models=Base, engine=engine)
        await orm.create(Book, title="Dune", author="A", stock_quantity=0)
        assert [book.title for book in await orm.all(Book)] == ["Dune"]
        with pytest.raises(ConfigurationError, match="give one of them"):
            await orm.init(postgres_url, engine=engine)
    await engine.dispose()


async def test_two_applications_share_an_engine(postgres_url: str):
    """Neither takes the connections that the other has seen opened for older ones, and replaces them for ever."""
    engine = engine_of(postgres_url)

    async def pid_of(orm: ORMService) -> Any:
        async with asyncio.timeout(10):
            return (await orm.execute(sa.text("SELECT pg_backend_pid()"))).scalar()

    async with catalogue(engine) as first, catalogue(engine) as second:
        assert await pid_of(first.orm) == await pid_of(second.orm) == await pid_of(first.orm)
    async with catalogue(engine) as third:
        assert await pid_of(third.orm) == await pid_of(third.orm)
    await engine.dispose()


async def test_what_the_engine_connects_with_is_used_for_diptychs_own_connections(
    postgres_server: PostgresServer, postgres_url: str
):
    database = postgres_url.rpartition("/")[2]
    postgres_server.execute("CREATE SCHEMA shop", database)
    settings = {"search_path": "shop", "statement_timeout": "1234", "application_name": "shop"}
    engine = engine_of(
        "postgresql://nobody@nowhere.invalid/" + database,
        connect_args={
            "host": "127.0.0.1",
            "port": postgres_server.port,
            "user": "postgres",
            "server_settings": settings,
        },
    )
    async with catalogue(engine) as app:
        await app.execute(AddBook("Dune", "A"))
        assert await author_of(app, "Dune") == ("sql", "A")
        for own in (app.orm.database.reader, app.orm.database.keeper):
            async with own.connect() as connection:
                shown = [
                    await connection.scalar(sa.select(sa.func.current_setting(name))) for name in settings
                ]
            assert shown == ["shop", "0", "shop"]
    found = postgres_server.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'shop' AND tablename IN ('books', 'diptych_log')",
        database,
    )
    assert found == "2"
    await engine.dispose()


async def test_a_hook_that_sets_another_search_path_is_refused(postgres_url: str):
    engine = engine_of(postgres_url)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def set_path(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET search_path = pg_catalog")
        connection.commit()
        cursor.close()

    with pytest.raises(ConfigurationError, match="search_path"):
        await catalogue(engine).start()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


def test_migrate_goes_to_the_database_of_the_engine(postgres_url: str):
    with pytest.raises(SchemaError, match=postgres_url.rpartition("/")[2]):  # which has no tables yet
        migrated(catalogue(engine_of(postgres_url)), sql=False, role=None)


# Refused


def hooked(engine: AsyncEngine) -> AsyncEngine:
    sa.event.listen(engine.sync_engine, "do_connect", lambda *_: None)
    return engine


URL = "postgresql+asyncpg://shop:secret@db.invalid/shop"
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: create_async_engine("sqlite+aiosqlite:///shop.db"), "is of SQLite.*DATABASE_URL"),
    (lambda: create_async_engine("postgresql+psycopg://db.invalid/shop"), r"psycopg.*postgresql\+asyncpg://"),
    (lambda: sa.create_engine("postgresql+psycopg://db.invalid/shop"), "is not asynchronous"),
    (lambda: URL, "must be SQLAlchemy's AsyncEngine.*not of the type str"),
    (lambda: create_async_engine(URL, poolclass=StaticPool), "StaticPool"),
    (lambda: create_async_engine(URL).execution_options(schema_translate_map={}), "schema_translate_map"),
    (lambda: hooked(create_async_engine(URL)), "do_connect"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_an_engine_that_can_not_be_used_is_refused_at_construction(
    make: Callable[[], AsyncEngine], words: str
):
    with pytest.raises(ConfigurationError, match=words) as caught:
        catalogue(make())
    assert caught.value.key == "engine"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("layer", ["argument", "environment"])
def test_an_engine_together_with_database_url_is_refused(layer: str):
    given = {"DIPTYCH_DATABASE_URL": "shop.db"} if layer == "environment" else {}
    config = ConfigService(environ=given, **({} if given else {"database_url": "shop.db"}))
    with pytest.raises(ConfigurationError, match=rf"DATABASE_URL: is set \({layer}\)"):
        Diptych(config, models=Base, handlers=[], engine=create_async_engine(URL))


def own_creators(url: str) -> list[dict[str, Any]]:
    def connect() -> Awaitable[Any]:
        return asyncpg.connect(url)

    return [{"async_creator": connect}, {"connect_args": {"async_creator_fn": connect}}]


@pytest.mark.parametrize("n", [0, 1])
async def test_an_engine_with_a_creator_is_refused_at_start(postgres_url: str, n: int):
    engine = engine_of(postgres_url, **own_creators(postgres_url)[n])
    with pytest.raises(ConfigurationError, match="async_creator="):
        await catalogue(engine).start()
    await engine.dispose()


# PgBouncer

IGNORED = (
    "synchronous_commit, default_transaction_isolation, default_transaction_read_only, plan_cache_mode, jit"
)


@pytest.fixture(
    params=[
        {},
        {"pool_mode": "session"},
        {"ignore_startup_parameters": IGNORED},
        {"pool_mode": "session", "ignore_startup_parameters": IGNORED},
    ]
)
def pgbouncer(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, postgres_url: str
) -> Iterator[PgBouncer]:
    """A PgBouncer before the test's database, in each mode, with settings of connections refused and passed over."""
    binary = pgbouncer_binary()
    if binary is None:
        pytest.skip(f"{MISSING} pgbouncer")
    with PgBouncer(binary, postgres_server, postgres_url.rpartition("/")[2], request.param) as server:
        yield server


async def test_pgbouncer_is_refused_at_start_with_the_setting_to_change(pgbouncer: PgBouncer):
    config = ConfigService(environ={}, database_url=pgbouncer.url)
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL.*PgBouncer.*address of PostgreSQL itself"):
        await Diptych(config, models=Base, handlers=[]).start()
    engine = engine_of(pgbouncer.url)
    with pytest.raises(ConfigurationError, match="PgBouncer"):
        await catalogue(engine).start()
    await engine.dispose()


async def test_what_goes_through_pgbouncer_is_noticed(
    pgbouncer: PgBouncer, postgres_url: str, valkey: RedisServer
):
    """The mend of the refusal: diptych at PostgreSQL itself, and the application as it was."""
    engine = engine_of(
        pgbouncer.url,
        poolclass=NullPool,
        connect_args={
            "statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"shop_{uuid4()}",
            "server_settings": {"jit": "off"} if "ignore_startup_parameters" in pgbouncer.config else {},
        },
    )
    config = configured(postgres_url, valkey.url, lease_ms=400)
    handlers = [BookCommandHandler, BookQueryHandler]
    async with Diptych(config, models=Base, handlers=handlers, read_models=[BookReadModel]) as app:
        await answered_by(app, "redis")
        async with async_sessionmaker(engine).begin() as session:
            session.add(Book(title="Emma", author="Jane Austen", stock_quantity=0))
        await app.catch_up()
        await sees(app, "Emma", "Jane Austen")
    await engine.dispose()
