"""The change log: one row a change, in the change's own transaction, on both databases."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import pytest
import sqlalchemy as sa

from diptych import Command, Diptych, DuplicateError, ORMService
from diptych.context import request_scope
from diptych.fence import statements as fence_statements
from diptych.fence.statements import followers
from diptych.log import Snapshot
from diptych.log.retention import Retention
from diptych.log.table import EXPRESSIONS
from diptych.write.unit_of_work import new_context
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book, Kinds, Line, Shelf

BOOK: dict[str, Any] = {"title": "T", "author": "A", "published_date": "2024-01-01", "isbn": "1"}
IMAGE = {
    "id": 1,
    "title": "T",
    "author": "A",
    "published_date": "2024-01-01",
    "isbn": "1",
    "stock_quantity": 0,
}


async def log_of(orm: ORMService) -> list[dict[str, Any]]:
    """The rows of the log, their JSON decoded."""
    async with orm.database.reader.connect() as connection:
        rows = (
            (await connection.execute(sa.text("SELECT * FROM diptych_log ORDER BY position")))
            .mappings()
            .all()
        )
    return [
        {
            name: json.loads(value) if name in ("key", "old_key", "image") and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]


def parts(rows: list[dict[str, Any]], *names: str) -> list[Any]:
    return [tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in rows]


async def test_each_change_is_one_row_with_all_that_is_known_of_it(orm: ORMService):
    started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
        milliseconds=1
    )  # SQLite's clock has no finer
    await orm.create(Book, **BOOK)
    (row,) = await log_of(orm)
    recorded_at = row.pop("recorded_at")
    if isinstance(recorded_at, str):  # SQLite keeps it as text, in UTC
        recorded_at = datetime.datetime.fromisoformat(recorded_at).replace(tzinfo=datetime.UTC)
    assert started <= recorded_at <= datetime.datetime.now(datetime.UTC)
    assert (row.pop("transaction") is None) == (orm.database.name == "sqlite")
    assert len(row.pop("command_id")) == 36
    assert row == {
        "position": 1,
        "entity": "Book",
        "table_name": "books",
        "key": {"id": 1, "title": "T", "isbn": "1"},
        "old_key": None,
        "kind": "created",
        "version": 1,
        "image": IMAGE,
        "correlation_id": None,
        "actor": None,
        "row_id": "1",
        "old_row_id": None,
    }


async def test_an_update_logs_the_row_after_it_and_the_key_before_it(orm: ORMService):
    await orm.create(Book, **BOOK)
    await orm.update(Book, 1, title="U", stock_quantity=5)
    row = (await log_of(orm))[1]
    assert row["kind"] == "updated"
    assert row["image"] == {**IMAGE, "title": "U", "stock_quantity": 5}
    assert row["key"] == {"id": 1, "title": "U", "isbn": "1"}
    assert row["old_key"] == {"id": 1, "title": "T", "isbn": "1"}


async def test_a_deletion_keeps_the_last_image(orm: ORMService):
    await orm.create(Book, **BOOK)
    await orm.delete(Book, 1)
    row = (await log_of(orm))[1]
    assert row["kind"] == "deleted"
    assert row["image"] == IMAGE
    assert row["key"] == row["old_key"] == {"id": 1, "title": "T", "isbn": "1"}


async def test_an_entry_names_the_key_all_that_is_unique_and_what_links_the_row_to_others(orm: ORMService):
    await orm.create(Shelf, room="north", number=1, code="N1")
    await orm.create(Line, order_number="a", position=1, product="P")
    assert parts(await log_of(orm), "key") == [
        {"key": 1, "room": "north", "number": 1, "code": "N1", "book_id": None},
        {"order_number": "a", "position": 1},
    ]


async def test_what_changes_nothing_is_not_logged(orm: ORMService):
    await orm.create(Book, **BOOK)
    await orm.update(Book, 1)
    await orm.update(Book, 9, title="U")
    await orm.delete(Book, 9)
    with pytest.raises(DuplicateError):
        await orm.create(Book, **BOOK)
    assert parts(await log_of(orm), "kind") == ["created"]


async def test_values_of_every_type_are_logged_as_json(orm: ORMService):
    await orm.create(
        Kinds,
        big=2**63 - 1,
        real=1,
        flag=True,
        text='é"\n',
        instant="2024-01-01T10:00:00+02:00",
        span="PT1H",
        name="12345678-1234-5678-1234-567812345678",
        data=b"\x00\xff",
        size="small",
        document={"a": [1]},
    )
    (row,) = await log_of(orm)
    assert {name: value for name, value in row["image"].items() if value is not None} == {
        "id": 1,
        "big": 2**63 - 1,
        "real": 1.0,
        "flag": True,
        "text": 'é"\n',
        "instant": "2024-01-01T08:00:00Z",
        "span": "PT3600S",
        "name": "12345678-1234-5678-1234-567812345678",
        "data": "AP8=",
        "size": "small",
        "document": {"a": [1]},
    }


# Commands


class AddTwo(Command[None]):
    pass


class Fail(Command[None]):
    pass


class Handler:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add_two(self, command: AddTwo) -> None:
        await self.orm.create(Book, **BOOK)
        await self.orm.update(Book, 1, author="B")

    async def fail(self, command: Fail) -> None:
        await self.orm.create(Book, title="X", author="A")
        raise RuntimeError("on purpose")


async def test_the_changes_of_a_command_share_its_id_correlation_and_actor(database_url: str):
    scope = {"headers": [(b"x-request-id", b"request-7")], "user": "Ada"}
    app = Diptych(
        config(database_url),
        models=Base,
        handlers=[Handler],
        actor=lambda scope: scope["user"] if scope is not None else "a job",
    )
    async with app:
        token = request_scope.set(scope)
        await app.execute(AddTwo())
        request_scope.reset(token)
        await app.orm.create(Book, title="alone", author="A")
        rows = await log_of(app.orm)
    assert parts(rows, "kind", "correlation_id", "actor") == [
        ("created", "request-7", "Ada"),
        ("updated", "request-7", "Ada"),
        ("created", None, None),
    ]
    ids = parts(rows, "command_id")
    assert ids[0] == ids[1] != ids[2]
    transactions = parts(rows, "transaction")
    if app.config.get("DATABASE_URL").startswith("postgresql"):
        assert transactions[0] == transactions[1] != transactions[2]


async def test_a_command_that_is_rolled_back_leaves_no_row(database_url: str):
    async with Diptych(config(database_url), models=Base, handlers=[Handler]) as app:
        with pytest.raises(RuntimeError, match="on purpose"):
            await app.execute(Fail())
        assert await log_of(app.orm) == []
        assert await app.orm.all(Book) == []


# Positions


async def test_positions_increase_in_the_order_of_the_changes(orm: ORMService):
    for i in range(5):
        await orm.create(Book, title=str(i), author="A")
    positions = parts(await log_of(orm), "position")
    assert positions == sorted(set(positions))


async def test_the_position_of_a_deleted_row_is_never_drawn_again(orm: ORMService):
    """A reader that has seen position 2 would take the next row for one it has seen already."""
    await orm.create(Book, **BOOK)
    await orm.update(Book, 1, author="B")
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.text("DELETE FROM diptych_log WHERE position = 2"))
    await orm.update(Book, 1, author="C")
    assert parts(await log_of(orm), "position") == [1, 3]


async def test_positions_of_one_row_are_in_the_order_of_its_commits(orm: ORMService):
    """Under concurrency too: each image builds on the one before it."""
    await orm.create(Book, **BOOK)

    async def increment(_unit: object) -> None:
        book = await orm.get(Book, 1)
        assert book is not None
        await orm.update(Book, 1, stock_quantity=book.stock_quantity + 1)

    await asyncio.gather(*(orm.side.units.run(increment, new_context()) for _ in range(12)))
    assert [row["image"]["stock_quantity"] for row in await log_of(orm)] == list(range(13))


# Retention


async def age(orm: ORMService, days: dict[int, int]) -> None:
    """Makes the rows of the log at these positions so many days old."""
    async with orm.database.writer.begin() as connection:
        for position, old in days.items():
            at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=old)
            table = sa.table(
                "diptych_log", sa.column("position"), sa.column("recorded_at", sa.DateTime(timezone=True))
            )
            await connection.execute(
                sa.update(table).where(table.c.position == position).values(recorded_at=at)
            )


async def aged(orm: ORMService) -> None:
    """Four changes, 0, 5, 15 and 30 days old, with an actor."""

    async def work(_unit: object) -> None:
        await orm.create(Book, **BOOK)
        await orm.update(Book, 1, author="B")
        await orm.update(Book, 1, author="C")
        await orm.update(Book, 1, author="D")

    await orm.side.units.run(work, new_context("correlation", "Ada"))
    await age(orm, {1: 30, 2: 15, 3: 5})


async def test_everything_is_kept_by_default(orm: ORMService):
    await aged(orm)
    before = await log_of(orm)
    await Retention(orm.database, config("unused.db").settings, followers(orm.database.name)).run()
    assert await log_of(orm) == before


async def test_rows_are_deleted_after_the_days_that_are_set(orm: ORMService):
    await aged(orm)
    await Retention(
        orm.database, config("unused.db", log_retention_days=10).settings, followers(orm.database.name)
    ).run()
    assert parts(await log_of(orm), "position") == [3, 4]


async def test_personal_data_is_blanked_after_the_days_that_are_set(orm: ORMService):
    """Its position, entity, kind, command and time stay."""
    await aged(orm)
    before = await log_of(orm)
    settings = config("unused.db", log_personal_data_days=10).settings
    await Retention(orm.database, settings, followers(orm.database.name)).run()
    after = await log_of(orm)
    blank: dict[str, Any] = {"key": {}, "old_key": None, "image": None, "actor": None, "row_id": None}
    assert after == [before[0] | blank, before[1] | blank, before[2], before[3]]
    await Retention(orm.database, settings, followers(orm.database.name)).run()
    assert await log_of(orm) == after


FENCE: dict[str, Any] = {
    "read_model": "test:Books",
    "declaration": "1",
    "tables": "[]",
    "run_id": "r",
    "replication_id": "h",
}
FENCE |= {"generation": "g", "ready": True, "database": "d", "passes_started": 7, "passes_completed": 7}
HOUR_S = 3600


async def fence(
    orm: ORMService, *, seen: int, lease_ended_s: float, building_ended_s: float = 10 * HOUR_S
) -> None:
    """A fence row whose cursor has seen so many of the changes, and whose lease and builder ended so long ago."""
    async with orm.database.writer.begin() as connection:
        log = "SELECT transaction FROM diptych_log WHERE position = :next"
        if orm.database.name == "sqlite":
            log = "SELECT :next"
        after = (await connection.execute(sa.text(log), {"next": seen + 1})).scalar_one()
        cursor = Snapshot(int(after), int(after))
        now = (await connection.execute(sa.select(EXPRESSIONS[orm.database.name].now))).scalar_one()
        values = {"lease_until": now - lease_ended_s, "building_until": now - building_ended_s}
        values |= {"cursor": str(cursor), "cursor_stamp": cursor.stamp}
        await connection.execute(sa.insert(fence_statements.FENCE).values(**FENCE, **values))


async def generation_of(orm: ORMService) -> tuple[Any, ...]:
    async with orm.database.reader.connect() as connection:
        columns = "generation, ready, cursor, cursor_stamp, run_id, passes_completed"
        return tuple((await connection.execute(sa.text(f"SELECT {columns} FROM diptych_fence"))).one())


async def four_changes(orm: ORMService) -> None:
    """Each of a transaction of its own, all a month old."""
    await orm.create(Book, **BOOK)
    for author in "BCD":
        await orm.update(Book, 1, author=author)
    await age(orm, dict.fromkeys(range(1, 5), 30))


@pytest.mark.parametrize("setting", ["log_retention_days", "log_personal_data_days"])
async def test_a_generation_that_nobody_keeps_is_over_before_the_log_loses_rows(
    orm: ORMService, setting: str
):
    """Its keeper, back after days, would miss these changes, and have Redis trusted without them."""
    await four_changes(orm)
    await fence(orm, seen=1, lease_ended_s=HOUR_S + 5)
    settings = config("unused.db", **{setting: 10}).settings
    await Retention(orm.database, settings, followers(orm.database.name)).run()
    assert await generation_of(orm) == ("", False, None, 0, "r", 7)
    assert not [row for row in await log_of(orm) if row["image"] is not None]


@pytest.mark.parametrize("setting", ["log_retention_days", "log_personal_data_days"])
@pytest.mark.parametrize(
    "ended",
    [{"lease_ended_s": HOUR_S - 60}, {"lease_ended_s": -5}, {"lease_ended_s": 1e9, "building_ended_s": -5}],
)
async def test_what_a_generation_that_is_kept_has_not_carried_yet_stays(
    orm: ORMService, setting: str, ended: dict[str, float]
):
    await four_changes(orm)
    await fence(orm, seen=2, **ended)
    before, kept = await generation_of(orm), (await log_of(orm))[2:]
    settings = config("unused.db", **{setting: 10}).settings
    await Retention(orm.database, settings, followers(orm.database.name)).run()
    assert await generation_of(orm) == before
    assert [row for row in await log_of(orm) if row["image"] is not None] == kept


async def test_both_together_at_the_start_of_an_application(database_url: str):
    settings = config("unused.db", log_retention_days=20, log_personal_data_days=10).settings
    async with ORMService(config(database_url)) as orm:
        await orm.init(models=Base)
        await aged(orm)
        retention = Retention(orm.database, settings, followers(orm.database.name))
        await retention.run()
        assert parts(await log_of(orm), "position", "actor") == [(2, None), (3, "Ada"), (4, "Ada")]
        await retention.stop()
