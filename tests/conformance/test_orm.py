"""ORMService on both databases: every call of the original text, what it returns, and what it refuses."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from diptych import (
    AmbiguousLookupError,
    ConfigService,
    ConfigurationError,
    ConstraintError,
    DatabaseUnavailableError,
    DuplicateError,
    NotStartedError,
    ORMService,
    UnknownColumnError,
    WiringError,
)
from tests.conformance.tables import Base, Book, Defaults, Line, Shelf

BOOK: dict[str, Any] = {
    "title": "A New Book",
    "author": "Author Name",
    "published_date": datetime.date(2024, 1, 1),
    "isbn": "1234567890",
    "stock_quantity": 10,
}


@contextlib.asynccontextmanager
async def _opened(database: str) -> AsyncIterator[ORMService]:
    orm = ORMService(ConfigService(environ={}))
    await orm.init(database)
    try:
        yield orm
    finally:
        await orm.close()


def values(instance: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(instance).items() if not name.startswith("_")}


# The calls


async def test_create_returns_the_row_with_its_key_and_its_values_converted(orm: ORMService):
    book = await orm.create(Book, **BOOK | {"published_date": "2024-01-01", "stock_quantity": "10"})
    assert isinstance(book, Book)
    assert values(book) == {"id": 1, **BOOK}


async def test_create_takes_a_key_that_is_given(orm: ORMService):
    assert (await orm.create(Book, id=7, title="T", author="A")).id == 7
    assert (await orm.create(Defaults, id=None)).id == 1


async def test_get_finds_by_primary_key_or_by_a_column(orm: ORMService):
    await orm.create(Book, **BOOK)
    for found in (
        await orm.get(Book, lookup_value=1),
        await orm.get(Book, 1),
        await orm.get(Book, lookup_value="1"),
        await orm.get(Book, lookup_value="A New Book", lookup_column="title"),
        await orm.get(Book, "2024-01-01", "published_date"),
    ):
        assert found is not None
        assert values(found) == {"id": 1, **BOOK}


async def test_get_of_a_missing_row_is_none(orm: ORMService):
    assert await orm.get(Book, lookup_value=1) is None
    assert await orm.get(Book, lookup_value="T", lookup_column="title") is None
    assert await orm.get(Book, lookup_value=None) is None


async def test_get_finds_rows_without_a_value(orm: ORMService):
    await orm.create(Book, title="T", author="A")
    found = await orm.get(Book, None, "isbn")
    assert found is not None
    assert found.title == "T"


async def test_update_changes_the_fields_that_are_given_and_says_that_it_did(orm: ORMService):
    await orm.create(Book, **BOOK)
    assert await orm.update(Book, lookup_value=1, title="Updated", published_date=None) is True
    found = await orm.get(Book, 1)
    assert values(found) == {"id": 1, **BOOK, "title": "Updated", "published_date": None}


async def test_update_returns_the_changed_instance_if_asked(orm: ORMService):
    await orm.create(Book, **BOOK)
    by_key = await orm.update(Book, lookup_value=1, lookup_column="id", title="U", return_instance=True)
    assert by_key is not None
    assert values(by_key) == {"id": 1, **BOOK, "title": "U"}
    by_title = await orm.update(Book, "U", "title", author="B", return_instance=True)
    assert by_title is not None
    assert values(by_title) == {"id": 1, **BOOK, "title": "U", "author": "B"}


async def test_update_without_fields_changes_nothing_and_says_whether_there_is_a_row(orm: ORMService):
    await orm.create(Book, **BOOK)
    assert await orm.update(Book, 1) is True
    assert await orm.update(Book, 2) is False
    same = await orm.update(Book, 1, return_instance=True)
    assert values(same) == {"id": 1, **BOOK}


async def test_update_may_change_the_key(orm: ORMService):
    await orm.create(Book, **BOOK)
    moved = await orm.update(Book, 1, id=5, return_instance=True)
    assert moved is not None
    assert moved.id == 5
    assert await orm.get(Book, 1) is None


async def test_delete_removes_the_row_and_says_that_it_did(orm: ORMService):
    await orm.create(Book, title="T", author="A")
    await orm.create(Book, title="U", author="A")
    assert await orm.delete(Book, lookup_value=1) is True
    assert await orm.delete(Book, lookup_value="U", lookup_column="title") is True
    assert await orm.all(Book) == []


async def test_update_and_delete_of_a_missing_row_do_nothing_and_say_so(orm: ORMService):
    await orm.create(Book, **BOOK)
    assert await orm.update(Book, 9, title="U") is False
    assert await orm.update(Book, 9, title="U", return_instance=True) is None
    assert await orm.update(Book, "Z", "title", title="U") is False
    assert await orm.delete(Book, 9) is False
    assert await orm.delete(Book, "Z", "title") is False
    assert [values(book) for book in await orm.all(Book)] == [{"id": 1, **BOOK}]


async def test_all_returns_every_row_in_the_order_of_the_key(orm: ORMService):
    for key in (3, 1, 2):
        await orm.create(Book, id=key, title=str(key), author="A")
    assert [book.id for book in await orm.all(Book)] == [1, 2, 3]


async def test_attributes_may_have_other_names_than_their_columns(orm: ORMService):
    shelf = await orm.create(Shelf, room="north", number=1, code="N1")
    assert values(shelf) == {"key": 1, "room": "north", "number": 1, "code": "N1", "book_id": None}
    assert await orm.update(Shelf, "N1", "code", number=2) is True
    found = await orm.get(Shelf, "north", "room")
    assert found is not None
    assert found.number == 2


async def test_defaults_of_python_and_of_the_server_are_in_the_returned_instance(orm: ORMService):
    made = await orm.create(Defaults)
    assert values(made) == {
        "id": 1,
        "name": None,
        "python": "made in Python",
        "server": "made by the server",
        "changes": 0,
        "length": None,
    }
    changed = await orm.update(Defaults, 1, name="four", return_instance=True)
    assert changed is not None
    assert (changed.changes, changed.length) == (1, 4)
    assert values(await orm.get(Defaults, 1)) == values(changed)


# Composite keys


async def test_a_composite_key_is_looked_up_by_a_tuple(orm: ORMService):
    await orm.create(Line, order_number="a", position=1, product="P")
    await orm.create(Line, order_number="a", position=2, product="Q")
    for key in (("a", 2), ["a", "2"]):
        found = await orm.get(Line, key)
        assert found is not None
        assert found.product == "Q"
    assert await orm.get(Line, ("b", 1)) is None
    assert await orm.update(Line, ("a", 1), product="R") is True
    assert await orm.delete(Line, ("a", 2)) is True
    assert [(line.position, line.product) for line in await orm.all(Line)] == [(1, "R")]


async def test_several_rows_that_match_are_refused_and_left_alone(orm: ORMService):
    await orm.create(Line, order_number="a", position=1, product="P")
    await orm.create(Line, order_number="a", position=2, product="P")
    text = (
        "several rows of Line have this order_number: look up by the primary key or a unique column; "
        "nothing was changed"
    )
    with pytest.raises(AmbiguousLookupError) as caught:
        await orm.get(Line, "a", "order_number")
    assert str(caught.value) == text
    with pytest.raises(AmbiguousLookupError):
        await orm.update(Line, "a", "order_number", product="Q")
    with pytest.raises(AmbiguousLookupError):
        await orm.delete(Line, "a", "order_number")
    assert [line.product for line in await orm.all(Line)] == ["P", "P"]


# What is refused


async def test_a_column_to_look_up_by_has_to_be_mapped(orm: ORMService):
    """The error lists the columns that are."""
    columns = ("id", "title", "author", "published_date", "isbn", "stock_quantity")
    name: Any
    for name in ("titel", "", "books.title", "TITLE", 'title"; DROP TABLE books; --', "__table__", 5):
        calls: list[Any] = [
            orm.get(Book, 1, name),
            orm.update(Book, 1, name, title="U"),
            orm.delete(Book, 1, name),
        ]
        for call in calls:
            with pytest.raises(UnknownColumnError) as caught:
                await call
            assert str(caught.value) == (
                f"Book has no mapped column {str(name)!r}; its columns are: {', '.join(columns)}"
            )
            assert caught.value.columns == columns


async def test_names_of_columns_and_of_relationships_are_no_attributes(orm: ORMService):
    for name in ("room_name", "book"):
        with pytest.raises(UnknownColumnError, match="its columns are: key, room, number, code, book_id"):
            await orm.get(Shelf, 1, name)


async def test_unknown_fields_are_refused_all_at_once(orm: ORMService):
    with pytest.raises(
        UnknownColumnError, match=r"^Book has no mapped column 'auther', 'colour'; "
    ) as caught:
        await orm.create(Book, title="T", auther="A", colour="red")
    assert caught.value.names == ("auther", "colour")
    with pytest.raises(UnknownColumnError):
        await orm.update(Book, 1, colour="red")


async def test_what_is_not_mapped_is_refused(orm: ORMService):
    for model in (int, Base, "books", None):
        with pytest.raises(
            WiringError, match="is not a mapped class: pass a class that derives from your Base"
        ):
            await orm.get(model, 1)  # type: ignore[arg-type]


HOSTILE = ["'; DROP TABLE books; --", '"', "\\", "%s :x ? $1 {}", "' OR '1'='1", "\n\r\t\x01", "\u202e", "📚"]


async def test_hostile_text_is_only_a_value(orm: ORMService):
    await orm.create(Book, title="other", author="A")
    for text in HOSTILE:
        await orm.create(Book, title=text, author=text)
        for column in ("title", "author"):
            found = await orm.get(Book, text, column)
            assert found is not None
            assert (found.title, found.author) == (text, text)
        assert await orm.update(Book, text, "title", author="B" + text) is True
        assert await orm.delete(Book, "B" + text, "author") is True
    assert [book.title for book in await orm.all(Book)] == ["other"]


# Constraints


async def test_a_duplicate_names_the_column(orm: ORMService):
    await orm.create(Book, **BOOK)
    with pytest.raises(DuplicateError) as caught:
        await orm.create(Book, **BOOK | {"isbn": None})
    assert str(caught.value) == "Book: another row already has this title"
    assert (caught.value.model, caught.value.columns) == ("Book", ("title",))
    await orm.create(Book, title="U", author="A")
    with pytest.raises(DuplicateError, match=r"^Book: another row already has this isbn$"):
        await orm.update(Book, "U", "title", isbn="1234567890")
    with pytest.raises(DuplicateError, match=r"^Book: another row already has this id$"):
        await orm.create(Book, id=1, title="V", author="A")


async def test_a_duplicate_names_the_attributes_of_all_columns_of_the_constraint(orm: ORMService):
    await orm.create(Shelf, room="north", number=1, code="N1")
    with pytest.raises(DuplicateError) as caught:
        await orm.create(Shelf, room="north", number=1)
    assert caught.value.columns == ("room", "number")
    with pytest.raises(DuplicateError) as caught:
        await orm.create(Shelf, room="north", number=2, code="N1")
    assert caught.value.columns == ("code",)
    await orm.create(Line, order_number="a", position=1, product="P")
    with pytest.raises(DuplicateError) as caught:
        await orm.create(Line, order_number="a", position=1, product="P")
    assert caught.value.columns == ("order_number", "position")


async def test_texts_that_differ_in_case_or_composition_are_different(orm: ORMService):
    for title in ("a", "A", "á", "a\u0301", "a "):
        await orm.create(Book, title=title, author="A")
    found = await orm.get(Book, "A", "title")
    assert found is not None
    assert found.title == "A"


async def test_references_to_missing_rows_are_refused(orm: ORMService):
    with pytest.raises(
        ConstraintError, match=r"^Shelf: the change breaks a constraint of the database$"
    ) as caught:
        await orm.create(Shelf, room="north", number=1, book_id=7)
    assert not isinstance(caught.value, DuplicateError)
    assert caught.value.__cause__ is not None
    await orm.create(Book, **BOOK)
    shelf = await orm.create(Shelf, room="north", number=1, book_id=1)
    for change in (orm.delete(Book, 1), orm.update(Book, 1, id=2), orm.update(Shelf, shelf.key, book_id=3)):
        with pytest.raises(ConstraintError):
            await change
    assert [book.id for book in await orm.all(Book)] == [1]


async def test_a_refused_change_leaves_nothing_behind(orm: ORMService):
    await orm.create(Book, **BOOK)
    with pytest.raises(DuplicateError):
        await orm.create(Book, **BOOK)
    assert len(await orm.all(Book)) == 1
    await orm.create(Book, title="U", author="A")  # and the service stays usable


# Instances


async def test_instances_are_detached_so_changing_them_changes_nothing(orm: ORMService):
    book = await orm.create(Book, **BOOK)
    state = sa.inspect(book)
    assert state.detached
    assert not state.modified
    book.title = "changed in memory"
    found = await orm.get(Book, 1)
    assert found is not None
    assert found is not book
    assert found.title == "A New Book"


async def test_a_relationship_that_is_not_loaded_says_so(orm: ORMService):
    await orm.create(Shelf, room="north", number=1)
    shelf = await orm.get(Shelf, 1)
    assert shelf is not None
    with pytest.raises(
        sa.orm.exc.DetachedInstanceError, match="lazy load operation of attribute 'book' cannot proceed"
    ):
        _ = shelf.book


# Large tables


async def _fill(orm: ORMService, count: int) -> None:
    rows = [{"id": i, "title": f"{i:05}", "author": "A", "stock_quantity": 0} for i in range(count)]
    async with orm.database.writer.begin() as connection:
        if rows:
            await connection.execute(sa.insert(Book), rows)


async def test_iterate_sees_every_row_in_order_while_the_table_changes(orm: ORMService):
    """2,500 rows in batches; rows are changed, deleted and added meanwhile, before and behind the reader."""
    await _fill(orm, 2500)
    seen: dict[int, int] = {}
    async for book in orm.iterate(Book, batch_size=500):
        assert book.id not in seen
        seen[book.id] = book.stock_quantity
        if book.id == 700:
            assert await orm.update(Book, 5, stock_quantity=1)  # behind
            assert await orm.update(Book, 2000, stock_quantity=2)  # before
            assert await orm.delete(Book, 10)
            assert await orm.delete(Book, 2400)
            await orm.create(Book, id=3000, title="added", author="A")
    assert list(seen) == sorted(seen)
    assert set(seen) == set(range(2500)) - {2400} | {3000}
    assert (seen[5], seen[2000]) == (0, 2)


async def test_iterate_holds_a_batch_in_memory_and_no_connection(orm: ORMService):
    await _fill(orm, 30)
    pool = orm.database.reader.pool
    fetched = []
    sa.event.listen(
        orm.database.reader.sync_engine, "after_cursor_execute", lambda *call: fetched.append(call[3])
    )
    async for _ in orm.iterate(Book, batch_size=10):
        assert pool.checkedout() == 0  # type: ignore[attr-defined]
    assert len(fetched) == 4
    async for _ in orm.iterate(Book, batch_size=10):
        break
    assert len(fetched) == 5


@pytest.mark.parametrize("count", [0, 3, 4, 5])
async def test_iterate_ends_at_the_end_whatever_the_size_of_the_last_batch(orm: ORMService, count: int):
    await _fill(orm, count)
    assert [book.id async for book in orm.iterate(Book, batch_size=4)] == list(range(count))


async def test_iterate_in_the_order_of_a_composite_key(orm: ORMService):
    keys = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]
    for order_number, position in reversed(keys):
        await orm.create(Line, order_number=order_number, position=position, product="P")
    found = [(line.order_number, line.position) async for line in orm.iterate(Line, batch_size=2)]
    assert found == keys


async def test_iterate_refuses_batches_without_rows(orm: ORMService):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        await anext(orm.iterate(Book, batch_size=0))


# Opening and closing


async def test_an_open_service_is_a_context_and_closes_at_its_end(database_url: str):
    async with ORMService(ConfigService(environ={}, database_url=database_url)) as orm:
        await orm.create(Book, **BOOK)
    for call in (orm.get(Book, 1), orm.create(Book, **BOOK), orm.all(Book), orm.delete(Book, 1)):
        with pytest.raises(NotStartedError, match="ORMService is not open"):
            await call
    await orm.close()
    await orm.init()
    found = await orm.get(Book, 1)
    assert found is not None
    await orm.close()


async def test_a_context_keeps_a_database_that_is_open_already(sqlite_url: str, tmp_path: Path):
    orm = ORMService(ConfigService(environ={}, database_url=sqlite_url))
    await orm.init(str(tmp_path / "other.db"))
    async with orm:
        await orm.create(Book, **BOOK)
    assert not (tmp_path / "test.db").exists()


async def test_use_before_init_is_refused():
    orm = ORMService(ConfigService(environ={}))
    with pytest.raises(NotStartedError, match=r"ORMService is not open: `await orm_service.init\(\)` first"):
        await orm.get(Book, 1)
    await orm.close()


async def test_init_again_opens_the_other_database(tmp_path: Path):
    orm = ORMService(ConfigService(environ={}))
    await orm.init(str(tmp_path / "one.db"))
    await orm.create(Book, **BOOK)
    await orm.init(str(tmp_path / "two.db"))
    assert await orm.all(Book) == []
    await orm.close()


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+aiosqlite:///"])
async def test_init_takes_a_path_or_a_url_of_sqlite(tmp_path: Path, prefix: str):
    path = tmp_path / "my database.db"
    async with _opened(f"{prefix}{path}") as orm:
        assert orm.database.name == "sqlite"
    assert path.exists()


@pytest.mark.parametrize("name", ["what?.db", "50%.db", "a%20b.db", "a#b.db"])
async def test_a_bare_path_is_taken_as_it_is(tmp_path: Path, name: str):
    async with _opened(str(tmp_path / name)):
        assert (tmp_path / name).exists()


async def test_init_takes_a_path_object(tmp_path: Path):
    orm = ORMService(ConfigService(environ={}))
    await orm.init(tmp_path / "books.db")
    await orm.close()
    assert (tmp_path / "books.db").exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
@pytest.mark.parametrize("query", ["", "?sslmode=prefer&application_name=shop"])
async def test_init_takes_the_usual_urls_of_postgresql(postgres_url: str, scheme: str, query: str):
    async with _opened(postgres_url.replace("postgresql", scheme, 1) + query) as orm:
        assert orm.database.name == "postgresql"
        for engine in (orm.database.reader, orm.database.writer):
            async with engine.connect() as connection:
                name = (await connection.execute(sa.text("SHOW application_name"))).scalar_one()
        assert name == ("shop" if query else "")


async def test_init_refuses_parameters_that_the_driver_does_not_know(postgres_url: str):
    with pytest.raises(
        ConfigurationError, match=r"must not have the option sslcrl; application_name, host, .* are the ones"
    ):
        await ORMService(ConfigService(environ={})).init(postgres_url + "?sslcrl=x")


async def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(
        ConfigurationError, match=f"the folder {tmp_path}/none does not exist: create it first"
    ):
        await ORMService(ConfigService(environ={})).init(f"{tmp_path}/none/books.db")


@pytest.mark.parametrize(
    "url", [":memory:", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
async def test_databases_in_memory_are_refused(url: str):
    """Reading and writing connections would each have one of its own."""
    with pytest.raises(ConfigurationError, match="name a file"):
        await ORMService(ConfigService(environ={})).init(url)


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "postgresql+psycopg://h/d", "oracle://u:secret@h", "://", "postgresql://h:port/d"]
)
async def test_other_databases_are_refused_without_showing_passwords(url: str):
    with pytest.raises(ConfigurationError) as caught:
        await ORMService(ConfigService(environ={})).init(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres//u:secret@h/db",
        "postgresql:u:secret@h/db",
        "file:secret.db",
        "sqlite:///secret.db?mode=ro",
        "postgresql://h/d?sslmode=secret",
        "postgresql://u:secret@/d?host=one&host=two&port=1,2,3",
    ],
)
async def test_init_refuses_what_the_setting_refuses_and_does_not_quote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL: ") as caught:
        await ORMService(ConfigService(environ={})).init(url)
    assert "secret" not in str(caught.value)
    assert not [name for name in ("file:secret.db", "secret.db") if (tmp_path / name).exists()]


async def test_a_database_or_a_user_that_is_not_there_is_told(postgres_url: str):
    wrong = [postgres_url + "x", postgres_url.replace("postgres@", "nobody@")]
    for url in wrong:
        with pytest.raises(
            DatabaseUnavailableError, match="check the user, the password and the name of the database"
        ):
            await ORMService(ConfigService(environ={})).init(url)


async def test_tables_of_other_bases_are_created_at_their_first_use(tmp_path: Path):
    async with _opened(str(tmp_path / "x.db")) as orm:
        assert await orm.all(Book) == []
        assert (await orm.create(Line, order_number="a", position=1, product="P")).product == "P"
