"""Migrations that are run while the application serves: noticed, nothing stale, and back on Redis by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, ReadModel, SchemaError, code_point_text
from tests.books import AddBook, Book, ListBooks
from tests.catalogue import agree, answered_by, author_of, catalogue, eventually, sees_in_redis, set_author
from tests.programs import Foreign, books_table

# SQLite drops no column that an index has.
DROP_INDEXES = [f"DROP INDEX ix_books_author{of}" for of in ("", "_search", "_newest")]
COLUMNS = "id, title, author, published_date, isbn, stock_quantity"


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Foreign]:
    program = Foreign(database_url)
    yield program
    await program.close()


async def filled(app: Diptych) -> None:
    for title in ("Dune", "Emma"):
        await app.execute(AddBook(title, "first"))
        await sees_in_redis(app, title, "first")


async def serves(app: Diptych, owner: Foreign) -> None:
    """Fails unless commands and changes by others reach Redis after a migration."""
    await agree(app)
    await set_author(app, "Dune", "by a command")
    assert (await author_of(app, "Dune"))[1] == "by a command"
    await owner.runs("UPDATE books SET author = 'by another' WHERE title = 'Dune'")
    await sees_soon(app, "Dune", "by another")
    await owner.runs("DELETE FROM books WHERE title = 'Emma'")
    await sees_soon(app, "Emma", None)
    await agree(app)


async def sees_soon(app: Diptych, title: str, author: str | None) -> None:
    """Waits until Redis answers with this author."""

    async def does() -> bool:
        return await author_of(app, title) == ("redis", author)

    await eventually(does, f"Redis answers with {title} by {author}")


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def batch(url: str, change: str = "") -> Sequence[str]:
    """The statements of Alembic's batch mode: a new table, the rows copied, the old table dropped.

    ``change`` is the value that the copy takes for the author.
    """
    made = books_table(url).replace("books", "_alembic_tmp_books")
    selected = COLUMNS.replace("author", change or "author")
    return [
        made,
        f"INSERT INTO _alembic_tmp_books ({COLUMNS}) SELECT {selected} FROM books",
        "DROP TABLE books",
        "ALTER TABLE _alembic_tmp_books RENAME TO books",
    ]


async def test_a_column_is_added(database_url, valkey, owner):
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs("ALTER TABLE books ADD COLUMN pages INTEGER DEFAULT 7")
        await serves(app, owner)


async def test_a_column_that_nobody_maps_is_renamed_and_dropped(database_url, valkey, owner):
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs("ALTER TABLE books ADD COLUMN pages INTEGER")
        await owner.runs("ALTER TABLE books RENAME COLUMN pages TO leaves")
        await owner.runs("ALTER TABLE books DROP COLUMN leaves")
        await serves(app, owner)


async def test_a_column_is_dropped_and_added_again(database_url, valkey, owner):
    """The rows have other values now, and no trigger has fired."""
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs(
            *DROP_INDEXES,
            "ALTER TABLE books DROP COLUMN author",
            "ALTER TABLE books ADD COLUMN author VARCHAR(200) NOT NULL DEFAULT 'unknown'",
        )
        await sees_soon(app, "Dune", "unknown")
        await serves(app, owner)


async def test_two_columns_change_their_names(postgres_url, valkey):
    owner = Foreign(postgres_url)
    async with catalogue(postgres_url, valkey.url) as app:
        await filled(app)
        await owner.runs("ALTER TABLE books ADD COLUMN writer VARCHAR(200) NOT NULL DEFAULT 'ghost'")
        await agree(app)
        await owner.runs(
            "ALTER TABLE books RENAME COLUMN author TO other",
            "ALTER TABLE books RENAME COLUMN writer TO author",
            "ALTER TABLE books RENAME COLUMN other TO writer",
        )
        await sees_soon(app, "Dune", "ghost")
        await owner.runs("ALTER TABLE books ALTER COLUMN writer DROP NOT NULL")
        await serves(app, owner)
    await owner.close()


async def test_a_column_of_another_type(postgres_url, valkey):
    """ALTER COLUMN … TYPE … USING writes every row anew, past the triggers."""
    owner = Foreign(postgres_url)
    async with catalogue(postgres_url, valkey.url) as app:
        await filled(app)
        await owner.runs("ALTER TABLE books ALTER COLUMN author TYPE TEXT USING upper(author)")
        await sees_soon(app, "Dune", "FIRST")
        await serves(app, owner)
    await owner.close()


@pytest.mark.parametrize("change", ["", "'copied by ' || author"])
async def test_batch_mode_of_alembic(database_url, valkey, owner, change):
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs(*batch(database_url, change))
        if not is_sqlite(database_url):
            await owner.runs("SELECT setval('_alembic_tmp_books_id_seq', 100)")
        await sees_soon(app, "Dune", "copied by first" if change else "first")
        await serves(app, owner)


async def test_a_table_is_swapped_for_another(database_url, valkey, owner):
    """What is written to either of them afterwards is seen, or does no harm."""
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs(
            books_table(database_url).replace("books", "books_new"),
            f"INSERT INTO books_new ({COLUMNS}) SELECT {COLUMNS.replace('author', chr(39) + 'swapped' + chr(39))} "
            "FROM books",
        )
        await owner.runs("ALTER TABLE books RENAME TO books_old", "ALTER TABLE books_new RENAME TO books")
        await sees_soon(app, "Dune", "swapped")
        await owner.runs("UPDATE books_old SET author = 'elsewhere'")
        await serves(app, owner)


async def test_a_table_that_gave_its_name_away_is_not_captured_any_more(postgres_url, valkey):
    """Its columns may be others than those of the table that has the name now."""
    owner = Foreign(postgres_url)
    async with catalogue(postgres_url, valkey.url) as app:
        await filled(app)
        await owner.runs(
            books_table(postgres_url).replace("books", "books_new"),
            f"INSERT INTO books_new ({COLUMNS}) SELECT {COLUMNS} FROM books",
            "ALTER TABLE books RENAME TO books_old",
            "ALTER TABLE books_new RENAME TO books",
            "ALTER TABLE books_old DROP COLUMN isbn",
        )
        await eventually(lambda: is_captured(owner, "books"), "the new table is captured")
        assert not await is_captured(owner, "books_old")
        await owner.runs("UPDATE books_old SET author = 'elsewhere'")
        await sees_soon(app, "Dune", "first")
        await agree(app)
    await owner.close()


async def is_captured(owner: Foreign, table: str) -> bool:
    found = await owner.rows(
        f"SELECT count(*) FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname = 'diptych_capture'"
    )
    return bool(found[0][0])


async def test_a_start_does_not_hold_up_writers_behind_an_open_transaction(postgres_url):
    """It waits for the transaction itself, since a trigger is made under a lock, but lets others have their turn."""
    owner, other = Foreign(postgres_url), Foreign(postgres_url)
    adding = "INSERT INTO books (title, author, stock_quantity) VALUES ('{}', 'a', 0)"
    await owner.runs(books_table(postgres_url), adding.format("A"))
    async with owner.open() as transaction:
        await transaction.execute(sa.text("UPDATE books SET author = 'b'"))
        app = catalogue(postgres_url, create_tables=False)
        starting = asyncio.create_task(app.start())
        for number in range(8):
            began = time.monotonic()
            await other.runs(adding.format(number))
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.1)
        assert not starting.done()
    await starting
    assert await is_captured(owner, "books")
    await app.stop()
    await owner.close()
    await other.close()


async def test_a_key_column_is_renamed_and_back(database_url, valkey, owner):
    """Nobody's write fails meanwhile, and the calls that need the column say what is wrong."""
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs("ALTER TABLE books RENAME COLUMN title TO name")
        await owner.runs("UPDATE books SET author = 'second' WHERE name = 'Dune'")

        async def is_told() -> bool:
            try:
                await app.orm.get(Book, 1)
            except SchemaError as error:
                return "the mapping of Book differ" in str(error)
            return False

        await eventually(is_told, "a clear error")
        with pytest.raises(SchemaError, match="title"):
            await app.execute(AddBook("Persuasion", "Austen"))
        await asyncio.sleep(1)  # the keeper has made the triggers anew by now, for the columns that are there
        await owner.runs("UPDATE books SET author = 'third' WHERE name = 'Dune'")
        await owner.runs("INSERT INTO books (name, author, stock_quantity) VALUES ('Sula', 'Morrison', 0)")
        await owner.runs("ALTER TABLE books RENAME COLUMN name TO title")
        await sees_soon(app, "Dune", "third")
        await sees_soon(app, "Sula", "Morrison")
        await serves(app, owner)


async def test_a_column_of_the_documents_is_dropped(database_url, valkey, owner):
    """Redis does not go on with values that are no more; what does not need the column goes on."""
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs(*DROP_INDEXES, "ALTER TABLE books DROP COLUMN author")

        async def is_told() -> bool:
            try:
                await app.ask(ListBooks())
            except SchemaError as error:
                return "author" in str(error)
            return False

        await eventually(is_told, "a clear error")
        assert (await app.health()).read_models["BookReadModel"].served_by == "sql"
        assert (await app.orm.execute(sa.select(Book.title).order_by(Book.title))).scalars().all() == [
            "Dune",
            "Emma",
        ]
        await owner.runs("ALTER TABLE books ADD COLUMN author VARCHAR(200) NOT NULL DEFAULT 'back'")
        await sees_soon(app, "Dune", "back")
        await serves(app, owner)


async def test_commands_and_queries_go_on_during_migrations(database_url, valkey, owner):
    """No command fails for it, and each is visible when it is acknowledged."""
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        is_over = asyncio.Event()
        count = 0

        async def work() -> None:
            nonlocal count
            while not is_over.is_set():
                count += 1
                await set_author(app, "Dune", str(count))
                assert (await author_of(app, "Dune"))[1] == str(count)

        working = asyncio.create_task(work())
        for number in range(5):
            await owner.runs(f"ALTER TABLE books ADD COLUMN pages{number} INTEGER DEFAULT 0")
            await asyncio.sleep(0.1)
            await owner.runs(f"ALTER TABLE books DROP COLUMN pages{number}")
            await asyncio.sleep(0.1)
        is_over.set()
        await working
        assert count > 10
        await answered_by(app, "redis")
        await agree(app)


async def test_two_versions_that_map_different_columns_serve_side_by_side(database_url, valkey, owner):
    """Neither makes the triggers anew that the other has made: they name the columns of both."""
    async with catalogue(database_url, valkey.url) as app:
        await filled(app)
        await owner.runs("ALTER TABLE books ADD COLUMN ean VARCHAR(20)")
        await owner.runs("CREATE UNIQUE INDEX books_ean ON books (ean)")
        await agree(app)
        async with newer(database_url, valkey.url) as other:
            await eventually(lambda: both_built(owner), "both are built")
            await answered_by(other, "redis")
            await answered_by(app, "redis")
            before = await owner.rows(GENERATIONS)
            await owner.runs("UPDATE books SET ean = '4006381333931', author = 'second' WHERE title = 'Dune'")
            await sees_soon(app, "Dune", "second")
            await asyncio.sleep(2)
            assert await owner.rows(GENERATIONS) == before
            await answered_by(other, "redis")


GENERATIONS = "SELECT declaration, generation FROM diptych_fence ORDER BY declaration"


async def both_built(owner: Foreign) -> bool:
    rows = await owner.rows(GENERATIONS)
    return len(rows) == 2 and all(row.generation for row in rows)


def newer(database_url: str, redis_url: str) -> Diptych:
    """The next version of the catalogue, with one column more."""

    class Base(DeclarativeBase):
        pass

    class Book(Base):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
        ean: Mapped[str | None] = mapped_column(unique=True)

    class BookDocument(msgspec.Struct):
        title: str
        ean: str | None

    class BookReadModel(ReadModel[Book]):
        key = Book.title
        document = BookDocument

    settings: dict[str, Any] = {"lease_ms": 400, "redis_query_timeout_ms": 2000, "create_tables": False}
    config = ConfigService(environ={}, database_url=database_url, redis_url=redis_url, **settings)
    return Diptych(config, models=Base, handlers=[], read_models=[BookReadModel])
