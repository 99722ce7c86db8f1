"""A change and its row of the log in one statement of PostgreSQL: nothing is different from two, but the time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConstraintError, DatabaseBusyError, DuplicateError, ORMService
from diptych.sql.postgres.database import PostgresDatabase
from diptych.write import changes, logged
from diptych.write.unit_of_work import new_context
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book, Defaults, Kinds, Line, Shelf


class Own(DeclarativeBase):
    """Tables of these tests."""


class Note(Own):
    """Constants of Python, and values made by the server."""

    __tablename__ = "changed"  # as the statement calls a part of itself

    id: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[str]
    changed: Mapped[bool] = mapped_column(sa.Boolean, default=0)
    known: Mapped[str | None] = mapped_column(unique=True)
    logged: Mapped[int] = mapped_column(default=1)
    given: Mapped[int] = mapped_column(default=0, onupdate=sa.text("given + 1"))
    key: Mapped[str] = mapped_column(default="a constant")
    image: Mapped[str] = mapped_column("picture", server_default="made by the server")
    edited: Mapped[bool] = mapped_column(default=False, onupdate=True)
    day: Mapped[datetime.date | None]


LONG = "a" * 64


class Lengthy(Own):
    """A name that PostgreSQL would cut."""

    __tablename__ = "lengthy"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column("text")


setattr(Lengthy, LONG, mapped_column("short", sa.Text))


@pytest.fixture
async def orm(postgres_url: str) -> AsyncIterator[ORMService]:
    async with ORMService(config(postgres_url)) as service:
        await service.init(models=Base)
        yield service


async def log_of(orm: ORMService) -> list[dict[str, Any]]:
    async with orm.database.reader.connect() as connection:
        rows = await connection.execute(sa.text("SELECT * FROM diptych_log ORDER BY position"))
        return [dict(row) for row in rows.mappings()]


async def run(orm: ORMService, statement: str) -> None:
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.text(statement))


@contextlib.contextmanager
def statements_of(orm: ORMService) -> Any:
    """What the engine executes meanwhile."""
    seen: list[str] = []

    def note(*call: Any) -> None:
        seen.append(call[2])

    sa.event.listen(orm.database.writer.sync_engine, "after_cursor_execute", note)
    yield seen
    sa.event.remove(orm.database.writer.sync_engine, "after_cursor_execute", note)


async def test_which_tables_are_changed_like_this(orm: ORMService):
    models = (Book, Shelf, Line, Kinds, Defaults)
    assert {m for m in models if logged.is_possible(orm.side.entities.of(m))} == {Book, Shelf, Line, Defaults}


def _possible(orm: ORMService, model: type) -> bool:
    return changes._is_possible(True, orm.side.entities.of(model))


async def test_the_engine_executes_none_of_it(orm: ORMService):
    await orm.create(Book, title="warm", author="A")
    with statements_of(orm) as seen:
        await orm.create(Book, title="T", author="A")
        await orm.update(Book, "T", "title", author="B")
        await orm.delete(Book, "T", "title")
    assert seen == []
    assert [row["kind"] for row in await log_of(orm)] == ["created", "created", "updated", "deleted"]


text = some.text(some.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
whole = some.integers(-(2**31), 2**31 - 1)
days = some.none() | some.dates()
numbers = iter(range(1_000_000))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(author=text, later=text, day=days, stock=whole)
@example(author="a", later="b", day=datetime.date.max, stock=0)
@example(author="a", later="b", day=datetime.date.min, stock=0)
async def test_rows_and_images_are_those_of_two_statements(orm, author, later, day, stock):
    pairs = []
    for is_possible in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not is_possible:
                patch.setattr(changes, "_is_possible", lambda *_: False)
            title = f"{next(numbers)}"
            made = await orm.create(
                Book, title=title, author=author, published_date=day, stock_quantity=stock
            )
            changed = await orm.update(Book, title, "title", return_instance=True, author=later)
            await orm.delete(Book, title, "title")
        logged = (await log_of(orm))[-3:]
        pairs.append((title, [made, changed], logged))
    (one, instances, logged), (two, as_instances, as_logged) = pairs
    for instance, like in zip(instances, as_instances, strict=True):
        assert [type(v) for v in vars(instance).values()] == [type(v) for v in vars(like).values()]
        assert (instance.author, instance.published_date, instance.stock_quantity) == (
            *(like.author, like.published_date, like.stock_quantity),
        )
    for row, like in zip(logged, as_logged, strict=True):
        for name in ("image", "key", "old_key"):
            assert _told(row[name], one, instances[0].id) == _told(like[name], two, as_instances[0].id)
        same = ("entity", "table_name", "kind", "version", "correlation_id", "actor")
        assert [row[name] for name in same] == [like[name] for name in same]


def _told(json: str | None, title: str, key: int) -> str | None:
    """The text without what differs from book to book."""
    return json and json.replace(f'"title":"{title}"', "").replace(f'"id":{key},', "")


async def test_defaults_and_names_that_the_statement_uses_itself(orm: ORMService):
    await orm.init(models=Own)
    note = await orm.create(Note, position="p")
    assert (note.key, note.image, note.edited, note.given) == ("a constant", "made by the server", False, 0)
    assert (note.changed, note.known, note.logged) == (False, None, 1)
    changed = await orm.update(Note, note.id, return_instance=True, position="q")
    assert changed is not None
    assert (changed.position, changed.edited, changed.given) == ("q", True, 1)
    with statements_of(orm) as seen:
        assert await orm.delete(Note, note.id)
    assert seen == []
    images = [row["image"] for row in await log_of(orm)]
    assert '"image":"made by the server"' in images[0]
    assert '"edited":true' in images[1]


async def test_a_name_that_the_server_would_cut_is_logged_in_full(orm: ORMService):
    await orm.init(models=Own)
    await orm.create(Lengthy, **{LONG: "x"})
    assert f'"{LONG}":"x"' in (await log_of(orm))[0]["image"]


async def test_in_whichever_order_fields_are_named_there_is_one_statement(orm: ORMService):
    await orm.create(Book, title="T", author="A", isbn="1")
    made = logged.insertion.cache_info().misses
    await orm.create(Book, isbn="2", author="A", title="U")
    assert logged.insertion.cache_info().misses == made


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_trigger_that_keeps_a_row_in_is_an_error_and_nothing_is_logged(orm, monkeypatch, at_once):
    await orm.create(Book, title="T", author="A")
    await run(orm, "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    await run(orm, "CREATE TRIGGER keep BEFORE DELETE ON books FOR EACH ROW EXECUTE FUNCTION keep()")
    if not at_once:
        monkeypatch.setattr(changes, "_is_possible", lambda *_: False)
    with pytest.raises(NoResultFound):
        await orm.delete(Book, "T", "title")
    assert [row["kind"] for row in await log_of(orm)] == ["created"]


async def test_what_a_trigger_makes_of_the_row_is_what_is_returned_and_logged(orm: ORMService):
    await run(
        orm,
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.author := upper(NEW.author); RETURN NEW; END'",
    )
    await run(
        orm, "CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON books FOR EACH ROW EXECUTE FUNCTION shout()"
    )
    book = await orm.create(Book, title="T", author="quiet")
    assert book.author == "QUIET"
    assert '"author":"QUIET"' in (await log_of(orm))[0]["image"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_trigger_that_keeps_the_row_out_is_an_error_and_nothing_is_logged(orm, monkeypatch, at_once):
    await run(orm, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    await run(orm, "CREATE TRIGGER refuse BEFORE INSERT ON books FOR EACH ROW EXECUTE FUNCTION refuse()")
    if not at_once:
        monkeypatch.setattr(changes, "_is_possible", lambda *_: False)
    with pytest.raises(NoResultFound):
        await orm.create(Book, title="T", author="A")
    assert await log_of(orm) == []


async def test_a_table_with_a_rule_takes_two_statements_and_nobody_notices(orm: ORMService):
    await run(orm, "CREATE TABLE notes (title text)")
    await run(orm, "CREATE RULE note AS ON INSERT TO books DO ALSO INSERT INTO notes VALUES (NEW.title)")
    for title in ("T", "U"):
        assert (await orm.create(Book, title=title, author="A")).title == title
    assert not _possible(orm, Book)
    async with orm.database.reader.connect() as connection:
        noted = (await connection.execute(sa.text("SELECT title FROM notes"))).scalars().all()
    assert (noted, len(await log_of(orm))) == (["T", "U"], 2)


async def test_a_table_that_was_altered_meanwhile_is_changed_as_before(orm: ORMService):
    for number in range(3):
        await orm.create(Book, title=f"{number}", author="A")
    await run(orm, "ALTER TABLE books ALTER COLUMN author TYPE text")
    await run(orm, "ALTER TABLE books ALTER COLUMN stock_quantity TYPE bigint")
    book = await orm.create(Book, title="T", author="A", stock_quantity=1)
    assert await orm.update(Book, book.id, author="B")
    assert len(await log_of(orm)) == 5
    assert _possible(orm, Book)


async def test_a_list_of_a_table_that_was_altered_meanwhile_is_read_or_to_be_asked_for_again(orm: ORMService):
    await orm.create(Book, title="T", author="A")
    assert await orm.all(Book)
    await run(orm, "ALTER TABLE books ALTER COLUMN stock_quantity TYPE bigint")
    with contextlib.suppress(DatabaseBusyError):
        assert await orm.all(Book)
    assert await orm.all(Book)


async def test_a_change_that_fails_leaves_nothing_of_its_command(orm: ORMService):
    async def work(_unit: Any) -> None:
        await orm.create(Book, title="T", author="A")
        await orm.create(Book, title="T", author="B")

    with pytest.raises(DuplicateError) as refused:
        await orm.side.units.run(work, new_context())
    assert tuple(refused.value.columns) == ("title",)
    with pytest.raises(ConstraintError):
        await orm.create(Shelf, room="north", number=1, book_id=77)
    assert (await orm.all(Book), await log_of(orm)) == ([], [])


@pytest.mark.parametrize("steps", range(0, 40, 4))
async def test_cut_off_anywhere_no_transaction_stays_open(orm: ORMService, steps: int):
    await orm.create(Book, title="warm", author="A")
    command = asyncio.create_task(orm.create(Book, title="T", author="A"))
    for _ in range(steps):
        await asyncio.sleep(0)
    command.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await command
    await orm.side.units.settle()
    titles = [book.title for book in await orm.all(Book)]
    assert titles in (["warm"], ["warm", "T"])
    assert len(await log_of(orm)) == len(titles)
    async with orm.database.keeper.connect() as connection:
        open_ones = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%'"
        )
        assert (await connection.execute(open_ones)).scalar_one() == 0


async def test_while_nobody_has_a_lease_the_fence_is_looked_at_with_or_after_the_commit(orm: ORMService):
    await orm.create(Book, title="warm", author="A")
    reads = 0
    assert isinstance(orm.database, PostgresDatabase)
    fetch = orm.database.dedicated.fetch

    async def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await fetch(*arguments)

    orm.database.dedicated.fetch = counted  # type: ignore[method-assign, assignment]
    await orm.create(Book, title="T", author="A")
    assert reads == 1, "the change has committed by itself"

    async def twice(_unit: Any) -> None:
        await orm.update(Book, "T", "title", author="B")
        await orm.update(Book, "T", "title", author="A")

    await orm.side.units.run(twice, new_context())
    assert reads == 1
    await run(
        orm,
        "INSERT INTO diptych_fence (read_model, declaration, tables, run_id, replication_id, generation, ready, "
        "lease_until, building_until, cursor_stamp, passes_started, passes_completed, database) "
        "VALUES ('m', '1', '[\"books\"]', '', '', 'g', true, extract(epoch from clock_timestamp()) + 0.7, "
        "0, 0, 0, 0, '')",
    )
    begun = asyncio.get_running_loop().time()
    await orm.create(Book, title="U", author="A")
    assert reads > 0
    assert asyncio.get_running_loop().time() - begun > 0.3, "it has waited for the end of the lease"
