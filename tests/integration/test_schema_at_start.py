"""What is missing in the database at the start is said in diptych's own words: the table, the role, and the mend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, DatabaseUnavailableError, Diptych, SchemaError
from diptych.fence.installation import Installation
from diptych.sql.open import open_database
from diptych.sql.registry import EntityRegistry
from tests.books import AddBook, Book
from tests.catalogue import author_of, catalogue, eventually, sees_in_redis
from tests.programs import Foreign, books_table
from tests.servers import PostgresServer


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Foreign]:
    program = Foreign(database_url)
    yield program
    await program.close()


async def refused(app: Diptych) -> str:
    """Returns the text of the error that the start of the application ends with."""
    with pytest.raises(SchemaError) as caught:
        await app.start()
    assert caught.value.problems
    return str(caught.value)


# Tables of the application


async def test_a_start_without_create_tables_makes_no_table_of_the_application(database_url, owner):
    text = await refused(catalogue(database_url, create_tables=False))
    assert "the table books (Book) is not there" in text
    assert "run the application's migrations first" in text
    await owner.runs(books_table(database_url))
    async with catalogue(database_url, create_tables=False) as app:
        await app.execute(AddBook("Dune", "Herbert"))
        assert (await author_of(app, "Dune"))[1] == "Herbert"


async def test_a_start_without_create_tables_leaves_the_application_s_tables_as_they_are(sqlite_url):
    owner = Foreign(sqlite_url)
    await owner.runs(books_table(sqlite_url))
    own = "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'books' AND type <> 'trigger'"
    before = await owner.rows(own)
    async with catalogue(sqlite_url, create_tables=False):
        pass
    assert await owner.rows(own) == before
    await owner.close()


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
async def test_documents_of_a_view_are_refused_by_name(database_url, owner, kind):
    """No trigger could log its changes."""
    if database_url.startswith("sqlite") and kind != "VIEW":
        pytest.skip("SQLite has nothing of the kind")
    await owner.runs(
        books_table(database_url),
        "ALTER TABLE books RENAME TO all_books",
        f"CREATE {kind} books AS SELECT * FROM all_books",
    )
    text = await refused(catalogue(database_url, create_tables=False))
    assert f"books (Book) is a {kind.lower()}, whose changes no trigger can log" in text


async def test_a_virtual_table_is_refused_by_name(sqlite_url):
    owner = Foreign(sqlite_url)
    columns = ", ".join(column.name for column in Book.__table__.columns)
    await owner.runs(f"CREATE VIRTUAL TABLE books USING fts5({columns})")
    text = await refused(catalogue(sqlite_url, create_tables=False))
    assert "books (Book) is a virtual table, whose changes no trigger can log" in text
    await owner.close()


async def test_a_table_of_another_file_is_refused_by_name(sqlite_url):
    class Attached(DeclarativeBase):
        pass

    class Thing(Attached):
        __tablename__ = "things"
        __table_args__ = {"schema": "other"}  # noqa: RUF012 - as SQLAlchemy has it
        id: Mapped[int] = mapped_column(primary_key=True)

    config = ConfigService(environ={}, database_url=sqlite_url)
    text = await refused(Diptych(config, models=Attached, handlers=[]))
    assert (
        "the table other.things is mapped to the schema other: SQLite has no schemas but attached files"
        in text
    )


async def test_a_missing_column_is_named_with_its_table(database_url, owner):
    await owner.runs(books_table(database_url), "ALTER TABLE books DROP COLUMN author")
    text = await refused(catalogue(database_url))
    assert "the table books has no column author, which Book maps" in text


async def test_a_table_in_another_schema_is_found_and_named(postgres_url, postgres_server):
    owner = Foreign(postgres_url)
    await owner.runs("CREATE SCHEMA stock", books_table(postgres_url).replace(" books ", " stock.books "))
    text = await refused(catalogue(postgres_url, create_tables=False))
    assert "the table books (Book) is not there for the role postgres" in text
    assert "there is one in the schema stock" in text
    await owner.close()


# A role that owns nothing


@pytest.fixture
async def limited(postgres_url: str, postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A URL of the database for a role without any right but to connect; ``books`` is there, of another owner."""
    name = f"app_{postgres_url.rpartition('_')[2][:16]}"
    owner = Foreign(postgres_url)
    await owner.runs(books_table(postgres_url), f"CREATE ROLE {name} LOGIN PASSWORD 'very-secret'")
    await owner.close()
    yield postgres_url.replace("postgres@", f"{name}:very-secret@")
    postgres_server.execute(f"DROP OWNED BY {name}", postgres_url.rpartition("/")[2])
    postgres_server.execute(f"DROP ROLE {name}")


@pytest.fixture
async def as_owner(postgres_url: str) -> AsyncIterator[Callable[..., object]]:
    owner = Foreign(postgres_url)
    yield owner.runs
    await owner.close()


def role_of(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]


async def bring_up(url: str, role: str | None = None) -> None:
    """Does what ``diptych migrate --role`` does."""
    app = catalogue(url)
    database = open_database(url, app.config.settings)
    try:
        await Installation(database, [EntityRegistry("postgresql").of(Book)], hints=True).bring_up(role)
    finally:
        await database.close()


async def test_a_role_that_may_make_no_table_is_told_so(limited):
    text = await refused(catalogue(limited, create_tables=False))
    assert role_of(limited) in text
    assert "diptych_log" in text
    assert "`diptych migrate" in text
    assert "schema public" in text


async def test_a_role_without_any_schema_to_make_tables_in_is_told_so(limited, as_owner):
    await as_owner(f"ALTER ROLE {role_of(limited)} SET search_path = nowhere")
    text = await refused(catalogue(limited, create_tables=False))
    assert f"the role {role_of(limited)} may not make or alter tables" in text
    assert "none of its search_path" in text


async def test_a_schema_that_a_role_may_not_use_is_named(limited, as_owner, postgres_url):
    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        __table_args__ = {"schema": "stock"}  # noqa: RUF012
        id: Mapped[int] = mapped_column(primary_key=True)

    await bring_up(postgres_url, role_of(limited))
    await as_owner("CREATE SCHEMA stock", "CREATE TABLE stock.items (id INTEGER PRIMARY KEY)")
    config = ConfigService(environ={}, database_url=limited, create_tables=False)
    text = await refused(Diptych(config, models=Base, handlers=[]))
    assert f"the role {role_of(limited)} may not use the schema stock of the table stock.items (Item)" in text
    assert f'GRANT USAGE ON SCHEMA "stock" TO "{role_of(limited)}"' in text
    await as_owner(f"GRANT USAGE ON SCHEMA stock TO {role_of(limited)}", "DROP TABLE stock.items")
    assert "the table stock.items (Item) is not there" in await refused(
        Diptych(config, models=Base, handlers=[])
    )


async def test_the_application_s_tables_that_a_role_may_not_make_are_named(limited, as_owner, postgres_url):
    await bring_up(postgres_url, role_of(limited))
    await as_owner("DROP TABLE books")
    text = await refused(catalogue(limited))
    assert "CREATE TABLE books" in text
    assert f'GRANT CREATE ON SCHEMA "public" TO "{role_of(limited)}"' in text


async def test_a_role_that_may_not_read_a_table_is_told_so(limited, as_owner, postgres_url):
    await bring_up(postgres_url, role_of(limited))
    text = await refused(catalogue(limited, create_tables=False))
    columns = "id, title, author, published_date, isbn, stock_quantity, search_title"
    assert f"the role {role_of(limited)} may not read {columns} of the table books" in text
    assert f'GRANT SELECT ON books TO "{role_of(limited)}"' in text


async def test_a_role_that_may_not_use_diptych_s_tables_is_told_so(limited, as_owner, postgres_url):
    await bring_up(postgres_url)
    text = await refused(catalogue(limited, create_tables=False))
    for name in ("diptych_log", "diptych_fence", "diptych_history", "diptych_version"):
        assert f"may not use diptych's table {name}" in text


async def test_a_role_that_may_not_make_triggers_is_told_so(limited, as_owner, postgres_url):
    await bring_up(postgres_url, role_of(limited))
    role = role_of(limited)
    await as_owner(f"GRANT ALL ON books TO {role}", "DROP TRIGGER diptych_capture ON books")
    text = await refused(catalogue(limited, create_tables=False))
    assert "the triggers on books" in text
    assert "diptych migrate --sql" in text


async def test_a_role_with_rights_to_read_and_write_alone_starts_where_all_is_there(
    limited, as_owner, postgres_url, valkey, caplog
):
    await bring_up(postgres_url, role_of(limited))
    await as_owner(
        f"GRANT SELECT, INSERT, UPDATE ON books TO {role_of(limited)}",
        f"GRANT USAGE ON SEQUENCE books_id_seq TO {role_of(limited)}",
    )
    with caplog.at_level(logging.WARNING):
        async with catalogue(limited, valkey.url, create_tables=False) as app:
            await app.execute(AddBook("Dune", "Herbert"))
            await sees_in_redis(app, "Dune", "Herbert")
            await as_owner("UPDATE books SET author = 'Frank' WHERE title = 'Dune'")
            await app.catch_up()
            assert await author_of(app, "Dune") == ("redis", "Frank")
            with pytest.raises(SchemaError, match="permission denied for table books"):
                await app.orm.delete(Book, 1)
    assert "may not do DELETE on the table books" in caplog.text


async def test_triggers_that_an_owner_mends_end_what_was_made_meanwhile(
    limited, as_owner, postgres_url, valkey
):
    """The application may not make triggers: it answers from SQL until the owner has made them."""
    await bring_up(postgres_url, role_of(limited))
    await as_owner(
        f"GRANT ALL ON books TO {role_of(limited)}",
        f"GRANT ALL ON SEQUENCE books_id_seq TO {role_of(limited)}",
    )
    async with catalogue(limited, valkey.url, create_tables=False) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
        await as_owner(
            "DROP TRIGGER diptych_capture ON books", "UPDATE books SET author = 'second' WHERE title = 'Dune'"
        )

        async def is_noticed() -> bool:  # within a lease, for which queries may still trust Redis
            return await author_of(app, "Dune") == ("sql", "second")

        await eventually(is_noticed, "SQL answers")
        await bring_up(postgres_url)
        await sees_in_redis(app, "Dune", "second")


# A database that can't be reached


async def test_an_address_without_a_server_is_named_without_the_password():
    app = catalogue("postgresql://shop:very-secret@127.0.0.1:1/stock", database_timeout_ms=2000)
    with pytest.raises(DatabaseUnavailableError) as caught:
        await app.start()
    text = str(caught.value)
    assert "127.0.0.1:1/stock" in text
    assert "refused" in text or "Connect call failed" in text
    assert "very-secret" not in text


async def test_a_database_that_is_not_there_is_named_with_the_driver_s_words(postgres_server):
    app = catalogue(postgres_server.url_of("no_such_database").replace("postgres@", "postgres:very-secret@"))
    with pytest.raises(DatabaseUnavailableError) as caught:
        await app.start()
    text = str(caught.value)
    assert 'database "no_such_database" does not exist' in text
    assert f"{postgres_server.port}/no_such_database" in text
    assert "very-secret" not in text


async def test_a_file_that_is_no_database_is_named(tmp_path: Path):
    await asyncio.to_thread(
        (tmp_path / "notes.txt").write_text, "these are notes, and no database at all" * 100
    )
    with pytest.raises(DatabaseUnavailableError, match=r"notes\.txt\): file is not a database"):
        await catalogue(str(tmp_path / "notes.txt")).start()
