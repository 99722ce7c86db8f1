"""SQLAlchemy's session and statements of the application's own, in a command's transaction."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from diptych import ConflictError, DifferentLoopError, DuplicateError, ORMService, UnitOfWorkError
from diptych.write.unit_of_work import new_context
from tests.conformance.tables import Book, Shelf

BOOK = {"title": "T", "author": "A"}


async def run(orm: ORMService, work: Any) -> Any:
    return await orm.side.units.run(work, new_context())


async def authors(orm: ORMService) -> list[str]:
    return [book.author for book in await orm.all(Book)]


async def test_what_a_session_holds_at_the_end_of_a_command_is_flushed(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
        async with orm.session() as again:
            assert again is session
            again.add(Book(title="U", author="B"))
        again.add(Book(title="V", author="C"))  # after the block, and flushed all the same

    await run(orm, work)
    assert await authors(orm) == ["A", "B", "C"]


async def test_a_block_outside_of_a_command_is_a_unit_of_work(orm: ORMService):
    async with orm.session() as session:
        session.add(Book(**BOOK))

    async def failing() -> None:
        async with orm.session() as session:
            session.add(Book(title="U", author="B"))
            await session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await failing()
    assert await authors(orm) == ["A"]


@pytest.mark.parametrize("ending", ["commit", "rollback", "begin"])
async def test_ends_of_the_transaction_are_refused_and_nothing_is_half_done(orm: ORMService, ending: str):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            await session.flush()
            if ending == "begin":
                async with session.begin():
                    pass
            await getattr(session, ending)()

    with pytest.raises(UnitOfWorkError, match=rf"{ending}\(\) was refused"):
        await run(orm, work)
    assert await authors(orm) == []
    await orm.create(Book, **BOOK)
    assert await authors(orm) == ["A"]


async def test_a_rollback_that_is_swallowed_commits_nothing(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            await session.flush()
            with contextlib.suppress(UnitOfWorkError):
                await session.rollback()

    with pytest.raises(UnitOfWorkError):
        await run(orm, work)
    assert await authors(orm) == []


async def test_services_that_commit_themselves_are_used_unchanged(orm: ORMService):
    async def service(session: AsyncSession, title: str) -> None:
        async with session.begin():
            session.add(Book(title=title, author="A"))
        await session.commit()

    async def work(_unit: Any) -> None:
        async with orm.session(commit="flush") as session:
            await service(session, "T")
            assert await session.scalar(sa.select(sa.func.count()).select_from(Book)) == 1
            await service(session, "U")

    await run(orm, work)
    assert len(await authors(orm)) == 2

    async def failing(_unit: Any) -> None:
        async with orm.session(commit="flush") as session:
            await service(session, "V")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await run(orm, failing)
    assert len(await authors(orm)) == 2


async def test_a_savepoint_undoes_its_own_part_alone(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            await session.flush()
            with contextlib.suppress(IntegrityError):
                async with session.begin_nested():
                    session.add(Book(title="T", author="again"))
            session.add(Book(title="U", author="B"))

    await run(orm, work)
    assert await authors(orm) == ["A", "B"]


async def test_a_session_shows_what_a_savepoint_has_undone_as_it_was(orm: ORMService):
    made = [await orm.create(Book, title=title, author="A") for title in ("T", "U")]
    async with orm.session() as session:
        book = await session.get_one(Book, made[0].id)
        async with await session.begin_nested() as nested:
            await orm.update(Book, made[0].id, author="undone")
            await orm.create(Book, title="V", author="undone")
            assert book.author == "undone"
            async with session.begin_nested():
                await orm.update(Book, made[1].id, author="undone")
            await nested.rollback()
        await session.refresh(book)
        assert book.author == "A"
        await orm.update(Book, made[1].id, author="kept")
    assert await authors(orm) == ["A", "kept"]


async def test_an_error_that_is_swallowed_outside_of_a_savepoint_commits_nothing(orm: ORMService):
    await orm.create(Book, **BOOK)

    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(title="U", author="B"))
            await session.flush()
            with contextlib.suppress(IntegrityError):
                await session.execute(sa.insert(Book).values(title="T", author="B", stock_quantity=0))

    with pytest.raises(UnitOfWorkError):
        await run(orm, work)
    assert await authors(orm) == ["A"]


async def test_errors_of_a_session_that_leave_the_handler_are_diptychs_own(orm: ORMService):
    await orm.create(Book, **BOOK)

    async def duplicate() -> None:
        async with orm.session() as session:
            session.add(Book(title="T", author="B"))

    with pytest.raises(DuplicateError):
        await duplicate()


async def test_a_duplicate_of_a_session_or_a_statement_names_class_and_attributes(orm: ORMService):
    async with orm.session() as session:
        session.add(Shelf(room="north", number=1, code="N1"))

    async def flushed() -> None:
        async with orm.session() as session:
            session.add(Shelf(room="north", number=1))

    statement = sa.insert(Shelf).values(room="north", number=2, code="N1")
    for call, names in ((flushed(), ("room", "number")), (orm.execute(statement), ("code",))):
        with pytest.raises(DuplicateError) as caught:
            await call
        assert (caught.value.model, caught.value.columns) == ("Shelf", names)


async def run_all(orm: ORMService, *statements: str) -> None:
    async with orm.database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))


async def test_a_duplicate_in_a_partition_has_the_names_of_the_class(orm: ORMService):
    """PostgreSQL tells the partition as the table of the constraint."""
    if orm.database.name == "sqlite":
        pytest.skip("SQLite has no partitions")
    await run_all(
        orm,
        "ALTER TABLE shelf_table RENAME TO shelf_north",
        "CREATE TABLE shelf_table (LIKE shelf_north INCLUDING DEFAULTS) PARTITION BY LIST (room_name)",
        "ALTER TABLE shelf_table ATTACH PARTITION shelf_north FOR VALUES IN ('north')",
    )
    try:
        await orm.create(Shelf, room="north", number=1)
        with pytest.raises(DuplicateError) as caught:
            await orm.create(Shelf, room="north", number=1)
    finally:
        await run_all(
            orm,
            "ALTER TABLE shelf_table DETACH PARTITION shelf_north",
            "DROP TABLE shelf_table",
            "ALTER TABLE shelf_north RENAME TO shelf_table",
        )
    assert (caught.value.model, caught.value.columns) == ("Shelf", ("room", "number"))


async def test_a_duplicate_in_the_table_of_a_trigger_is_named_by_that_table(orm: ORMService):
    await orm.create(Shelf, room="north", number=1)
    insert = "INSERT INTO shelf_table (room_name, shelf_number) VALUES ('north', 1)"
    made = [f"CREATE TRIGGER second AFTER INSERT ON books BEGIN {insert}; END"]
    undone = ["DROP TRIGGER second"]
    if orm.database.name == "postgresql":
        made = [
            f"CREATE FUNCTION second() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {insert}; RETURN NULL; END $$",
            "CREATE TRIGGER second AFTER INSERT ON books FOR EACH ROW EXECUTE FUNCTION second()",
        ]
        undone = ["DROP FUNCTION second CASCADE"]

    await run_all(orm, *made)
    try:
        with pytest.raises(DuplicateError) as caught:
            await orm.create(Book, **BOOK)
    finally:
        await run_all(orm, *undone)
    assert (caught.value.model, caught.value.columns) == ("Shelf", ("room", "number"))


async def test_orm_service_and_session_see_each_others_changes(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            book = Book(**BOOK)
            session.add(book)
            found = await orm.get(Book, "T", "title")
            assert found is not None
            assert found.author == "A"
            await orm.update(Book, found.id, author="B")
            assert book.author == "B"
            book.author = "C"
            assert await orm.get(Book, "C", "author") is not None
            await orm.delete(Book, book.id)
            assert (await session.scalars(sa.select(Book))).all() == []

    await run(orm, work)
    assert await authors(orm) == []


async def test_relationships_load_as_in_any_session(orm: ORMService):
    book = await orm.create(Book, **BOOK)
    await orm.create(Shelf, room="north", number=1, code="N", book_id=book.id)
    async with orm.session() as session:
        shelf = (await session.scalars(sa.select(Shelf).options(selectinload(Shelf.book)))).one()
        assert shelf.book is not None
        shelf.book.author = "B"
    assert await authors(orm) == ["B"]


async def test_rows_are_read_and_locked_by_either(orm: ORMService):
    await orm.create(Book, **BOOK)

    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            book = (await session.scalars(sa.select(Book).where(Book.title == "T").with_for_update())).one()
            book.stock_quantity += 1
        rows = (await orm.execute(sa.select(Book.stock_quantity).with_for_update())).all()
        assert rows == [(1,)]

    await run(orm, work)


async def test_a_command_that_lost_runs_again_with_a_fresh_session(orm: ORMService):
    if orm.database.name == "sqlite":
        pytest.skip("writers never run at the same time on SQLite")
    book = await orm.create(Book, **BOOK)
    runs = 0

    async def work(_unit: Any) -> None:
        nonlocal runs
        runs += 1
        async with orm.session() as session:
            found = await session.get(Book, book.id)
            assert found is not None
            if runs == 1:
                async with orm.database.reader.connect() as other:
                    await other.execute(sa.text("SET default_transaction_read_only = off"))
                    await other.execute(sa.text("UPDATE books SET stock_quantity = 10"))
            found.stock_quantity += 1

    await run(orm, work)
    assert runs == 2
    assert [found.stock_quantity for found in await orm.all(Book)] == [11]


async def test_a_block_of_its_own_that_lost_is_a_conflict(orm: ORMService):
    if orm.database.name == "sqlite":
        pytest.skip("writers never run at the same time on SQLite")
    book = await orm.create(Book, **BOOK)

    async def losing() -> None:
        async with orm.session() as session:
            found = await session.get(Book, book.id)
            assert found is not None
            async with orm.database.reader.connect() as other:
                await other.execute(sa.text("SET default_transaction_read_only = off"))
                await other.execute(sa.text("UPDATE books SET stock_quantity = 10"))
            found.stock_quantity += 1

    with pytest.raises(ConflictError):
        await losing()


async def test_a_session_ends_with_its_command(orm: ORMService):
    kept: list[AsyncSession] = []

    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            kept.append(session)

    await run(orm, work)
    with pytest.raises(UnitOfWorkError, match="its command is over"):
        await kept[0].execute(sa.select(Book))
    with pytest.raises(UnitOfWorkError, match="its command is over"):
        await kept[0].flush()
    assert await authors(orm) == ["A"]


async def test_a_task_that_uses_a_session_after_its_command_is_told_so_and_changes_nothing(orm: ORMService):
    may_go_on = asyncio.Event()

    async def late(session: AsyncSession) -> None:
        await may_go_on.wait()
        session.add(Book(title="U", author="B"))
        await session.commit()

    async def work(_unit: Any) -> asyncio.Task[None]:
        async with orm.session(commit="flush") as session:
            session.add(Book(**BOOK))
            return asyncio.create_task(late(session))

    task = await run(orm, work)
    may_go_on.set()
    with pytest.raises(UnitOfWorkError, match="its command is over"):
        await task
    await orm.create(Book, title="V", author="C")
    assert await authors(orm) == ["A", "C"]


async def test_a_session_in_another_event_loop_is_told_so_and_the_command_goes_on(orm: ORMService):
    def elsewhere(session: AsyncSession) -> None:
        for use in (lambda: session.execute(sa.select(Book)), session.flush, session.commit):
            with pytest.raises(DifferentLoopError, match="the session of a command"):
                asyncio.run(use())

    async def work(_unit: Any) -> None:
        async with orm.session(commit="flush") as session:
            session.add(Book(**BOOK))
            await asyncio.to_thread(elsewhere, session)

    await run(orm, work)
    assert await authors(orm) == ["A"]


async def test_two_tasks_at_once_are_told_so(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            await asyncio.gather(*(session.execute(sa.select(Book)) for _ in range(2)))

    with pytest.raises(UnitOfWorkError, match="in use by another task"):
        await run(orm, work)


async def test_results_that_are_not_buffered_are_refused(orm: ORMService):
    async with orm.session() as session:
        with pytest.raises(UnitOfWorkError, match="use execute"):
            await session.stream(sa.select(Book))


STATEMENTS = [
    "COMMIT",
    "/* really */ rollback",
    "SAVEPOINT mine",
    "PREPARE TRANSACTION 'mine'",
    "CREATE TABLE mine (id integer)",
    "ALTER TABLE books ADD COLUMN mine integer",
    "DROP TABLE books",
    "UPDATE books SET author = 'B'; DELETE FROM books",
    "SELECT ';' ; SELECT 1",
    " /* c */ commit",
    "/* a /* b */ c */ COMMIT",
    "-- a\rCOMMIT",
    "\ufeffCOMMIT",
    "SET synchronous_commit = off",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "RESET ALL",
]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("by", ["execute", "session", "connection", "text by the connection", "run_sync"])
async def test_statements_that_are_not_a_commands_are_refused_before_they_are_sent(
    orm: ORMService, statement: str, by: str
):
    await orm.create(Book, **BOOK)

    async def work(_unit: Any) -> None:
        await orm.update(Book, "T", "title", author="B")
        if by == "execute":
            await orm.execute(sa.text(statement))
        async with orm.session() as session:
            if by == "session":
                await session.execute(sa.text(statement))
            if by == "run_sync":
                await session.run_sync(lambda sync: sync.connection().execute(sa.text(statement)))
            connection = await session.connection()
            if by == "text by the connection":
                await connection.execute(sa.text(statement))
            await connection.exec_driver_sql(statement)

    with pytest.raises(UnitOfWorkError, match="sent"):
        await run(orm, work)
    assert await authors(orm) == ["A"]
    await orm.create(Book, title="U", author="B")


async def test_a_definition_is_refused_by_the_connection_too(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            await (await session.connection()).execute(sa.schema.DropTable(Shelf.__table__))  # type: ignore[arg-type]

    with pytest.raises(UnitOfWorkError, match="DropTable was not sent"):
        await run(orm, work)
    assert await orm.all(Shelf) == []


async def test_settings_of_the_transaction_are_allowed(orm: ORMService):
    if orm.database.name == "sqlite":
        pytest.skip("SQLite has no SET")
    async with orm.session() as session:
        await session.execute(sa.text("SET LOCAL lock_timeout = 1000"))
        await session.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))


def by_root(connection: sa.Connection, name: str) -> None:
    transaction = connection.get_transaction()
    assert transaction is not None
    getattr(transaction, name)()


ENDS: dict[str, Any] = {
    **{
        name: lambda connection, name=name: getattr(connection, name)()
        for name in ("commit", "rollback", "close")
    },
    "invalidate": lambda connection: connection.invalidate(RuntimeError()),
    "commit of the transaction": lambda connection: by_root(connection, "commit"),
    "rollback of the transaction": lambda connection: by_root(connection, "rollback"),
}


@pytest.mark.parametrize("ending", list(ENDS))
async def test_the_connection_of_a_session_can_not_be_ended_and_other_commands_are_unharmed(
    orm: ORMService, ending: str
):
    """On SQLite the other commands are in the same transaction."""

    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            await session.flush()
            connection = await session.connection()
            await connection.run_sync(ENDS[ending])
            raise UnitOfWorkError("it was refused")  # PostgreSQL is told at the end, and sends nothing

    async def refused() -> None:
        with pytest.raises(UnitOfWorkError, match="was refused"):
            await run(orm, work)

    others = [orm.create(Book, title=f"{n}", author=f"{n}") for n in range(3)]
    await asyncio.gather(others[0], others[1], refused(), others[2])
    async with orm.session() as session:
        session.add(Book(title="later", author="L"))
    assert sorted(await authors(orm)) == ["0", "1", "2", "L"]
    async with orm.database.reader.connect() as connection:
        found = await connection.execute(sa.text("SELECT count(*) FROM books"))
        assert found.scalar_one() == 4


async def test_a_refused_end_that_is_swallowed_commits_all_or_nothing(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            connection = await session.connection()
            with contextlib.suppress(UnitOfWorkError):
                await connection.commit()
            session.add(Book(title="U", author="B"))

    await run(orm, work)
    assert await authors(orm) == ["A", "B"]


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_session_that_is_closed_in_the_midst_keeps_what_it_has_flushed(orm: ORMService, ending: str):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            await session.flush()
            await session.run_sync(lambda sync: getattr(sync, ending)())
            session.add(Book(title="U", author="B"))
            await getattr(session, ending)()
            session.add(Book(title="V", author="C"))

    await run(orm, work)
    assert await authors(orm) == ["A", "B", "C"]


async def test_a_session_is_not_invalidated(orm: ORMService):
    async with orm.session() as session:
        session.add(Book(**BOOK))
        with pytest.raises(UnitOfWorkError, match="invalidate"):
            await session.run_sync(lambda sync: sync.invalidate())
        with pytest.raises(UnitOfWorkError, match="invalidate"):
            await session.invalidate()
    assert await authors(orm) == ["A"]


async def test_text_alone_is_refused(orm: ORMService):
    with pytest.raises(UnitOfWorkError, match="wrap it"):
        await orm.execute("DELETE FROM books")  # type: ignore[arg-type]


async def test_a_command_cancelled_anywhere_leaves_all_or_nothing_and_harms_nobody(orm: ORMService):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(**BOOK))
            await session.flush()
            await session.execute(sa.update(Book).values(author="B"))

    for steps in range(0, 60, 3):
        beside = [asyncio.create_task(orm.create(Book, title=f"{steps} {n}", author="C")) for n in range(3)]
        command = asyncio.create_task(run(orm, work))
        for _ in range(steps):
            await asyncio.sleep(0)
        command.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await command
        await asyncio.gather(*beside)
        await orm.side.units.settle()
        found = await authors(orm)
        assert "A" not in found
        for title in ["T", *(f"{steps} {n}" for n in range(3))]:
            await orm.delete(Book, title, "title")


async def test_what_a_statement_changes_is_counted(orm: ORMService):
    for title in "TUV":
        await orm.create(Book, title=title, author="A")
    assert (await orm.execute(sa.update(Book).where(Book.title > "T").values(author="B"))).rowcount == 2
    assert (
        await orm.execute(sa.text("DELETE FROM books WHERE author = :author"), {"author": "B"})
    ).rowcount == 2
    many = [{"title": title, "author": "C", "stock_quantity": 0} for title in "XY"]
    await orm.execute(sa.insert(Book), many)
    assert await authors(orm) == ["A", "C", "C"]
