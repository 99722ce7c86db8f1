"""Every way in which SQL changes rows is noticed: in a command at its acknowledgement, of others by ``catch_up``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
import pytest
import sqlalchemy as sa

from tests.captured import GetPart, Part, application, prepare, same, served_by_redis


class Case(NamedTuple):
    """Statements of one transaction. ``before`` are executed before the application is started."""

    statements: Sequence[str]
    before: Sequence[str] = ()


_ON_UPDATE_OF_PARTS = {
    # As applications keep a total, or the time of the last change: the row is changed again within the statement.
    "sqlite": (
        "CREATE TRIGGER {name} AFTER UPDATE OF amount ON parts WHEN NEW.amount < 100 "
        "BEGIN UPDATE parts SET amount = NEW.amount + 100 WHERE id = NEW.id; END",
    ),
    "postgresql": (
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE parts SET amount = NEW.amount + 100 WHERE id = NEW.id; RETURN NULL; END $$",
        "CREATE TRIGGER {name} AFTER UPDATE OF amount ON parts FOR EACH ROW WHEN (NEW.amount < 100) "
        "EXECUTE FUNCTION again()",
    ),
}


def _again(database: str, name: str) -> Sequence[str]:
    return [statement.format(name=name) for statement in _ON_UPDATE_OF_PARTS[database]]


_SWAP = (
    "UPDATE parts SET code = 'between' WHERE id = 1",
    "UPDATE parts SET code = 'a' WHERE id = 2",
    "UPDATE parts SET code = 'b' WHERE id = 1",
)
_UPSERT = "INSERT INTO parts (id, code, amount) VALUES (9, '{}', 9) ON CONFLICT (code) DO {}"

ON_BOTH = {
    "several rows at once": Case(["INSERT INTO parts (id, code, amount) VALUES (8, 'x', 8), (9, 'y', 9)"]),
    "an update of every row": Case(["UPDATE parts SET amount = amount + 1"]),
    "a delete without a condition": Case(["DELETE FROM parts"]),
    "a key changes": Case(["UPDATE parts SET code = 'z' WHERE id = 1"]),
    "the primary key changes, and references with it": Case(["UPDATE parts SET id = 11 WHERE id = 1"]),
    "two rows swap their keys": Case(_SWAP),
    "a row is deleted, and added again under its key": Case(
        ["DELETE FROM parts WHERE id = 4", "INSERT INTO parts (id, code, amount) VALUES (40, 'd', 1)"]
    ),
    "a cascade over two steps": Case(["DELETE FROM parts WHERE id = 1"]),
    "a joined row goes, references become null": Case(["DELETE FROM makers WHERE id = 1"]),
    "a joined row gets another key, references follow": Case(["UPDATE makers SET id = 7 WHERE id = 1"]),
    "a joined row changes": Case(["UPDATE makers SET name = 'Cedar' WHERE id = 1"]),
    "a row is joined with another": Case(["UPDATE parts SET maker_id = 2 WHERE id IN (1, 4)"]),
    "an upsert that updates": Case([_UPSERT.format("a", "UPDATE SET amount = excluded.amount")]),
    "an upsert that adds": Case([_UPSERT.format("x", "UPDATE SET amount = excluded.amount")]),
    "an upsert that does nothing": Case([_UPSERT.format("a", "NOTHING")]),
    "an upsert that changes the key": Case([_UPSERT.format("a", "UPDATE SET code = 'moved'")]),
    "odd characters": Case(
        [
            "INSERT INTO parts (id, code) VALUES (20, 'ä ''\"\\ % :x {y} \u2028 😀')",
            "UPDATE parts SET code = '\t\n/*diptych*/' WHERE id = 4",
        ]
    ),
    "whole numbers above 2**53": Case(
        [
            "INSERT INTO makers (id, name) VALUES (9007199254740993, 'Great')",
            "INSERT INTO parts (id, code, maker_id) VALUES (9007199254740995, 'great', 9007199254740993)",
            "UPDATE makers SET name = 'Greater' WHERE id = 9007199254740993",
        ]
    ),
    "negative numbers": Case(
        ["INSERT INTO parts (id, code) VALUES (-1, 'minus')", "UPDATE parts SET amount = 1 WHERE id = -1"]
    ),
}

ON_SQLITE = {
    "INSERT OR REPLACE that takes the place of another row": Case(
        ["INSERT OR REPLACE INTO parts (id, code, amount) VALUES (30, 'd', 30)"]
    ),
    "INSERT OR REPLACE of two rows at once": Case(
        ["INSERT OR REPLACE INTO parts (id, code, amount) VALUES (3, 'd', 30)"]
    ),
    "INSERT OR REPLACE of a row with others below it": Case(
        ["INSERT OR REPLACE INTO parts (id, code, amount) VALUES (30, 'a', 30)"]
    ),
    "UPDATE OR REPLACE": Case(["UPDATE OR REPLACE parts SET code = 'c' WHERE id = 4"]),
    "INSERT OR IGNORE": Case(["INSERT OR IGNORE INTO parts (id, code, amount) VALUES (30, 'd', 30)"]),
    "UPDATE OR IGNORE": Case(["UPDATE OR IGNORE parts SET code = 'c' WHERE id = 4"]),
    "REPLACE by an index of another collation": Case(
        ["INSERT OR REPLACE INTO parts (id, code) VALUES (30, 'D')"],
        ["CREATE UNIQUE INDEX one_case ON parts (code COLLATE NOCASE)"],
    ),
    "REPLACE by an index of an expression": Case(
        ["INSERT OR REPLACE INTO parts (id, code) VALUES (30, 'D')"],
        ["CREATE UNIQUE INDEX one_case ON parts (lower(code))"],
    ),
    "REPLACE by a partial index": Case(
        ["INSERT OR REPLACE INTO parts (id, code, amount) VALUES (30, 'x', 4)"],
        ["CREATE UNIQUE INDEX one_amount ON parts (amount) WHERE amount > 3"],
    ),
    "REPLACE by a partial index, with a primary key that SQLite numbers": Case(
        ["INSERT OR REPLACE INTO parts (code, amount) VALUES ('x', 4)"],
        ["CREATE UNIQUE INDEX one_amount ON parts (amount) WHERE parts.id > 3"],
    ),
    "UPDATE OR REPLACE that moves a row into a partial index": Case(
        ["UPDATE OR REPLACE parts SET amount = 4 WHERE id = 3"],
        ["CREATE UNIQUE INDEX one_length ON parts (length(code)) WHERE amount = 4"],
    ),
    "a trigger made before those of diptych": Case(
        ["UPDATE parts SET amount = 5 WHERE id = 4"], _again("sqlite", "a_first")
    ),
    "a view with an INSTEAD OF trigger": Case(
        ["UPDATE few SET amount = 7 WHERE code = 'd'"],
        [
            "CREATE VIEW few AS SELECT code, amount FROM parts",
            "CREATE TRIGGER few_update INSTEAD OF UPDATE ON few "
            "BEGIN UPDATE parts SET amount = NEW.amount WHERE code = OLD.code; END",
        ],
    ),
    "a trigger of another table": Case(
        ["UPDATE makers SET name = 'Cedar' WHERE id = 1"],
        [
            "CREATE TRIGGER renamed AFTER UPDATE ON makers "
            "BEGIN UPDATE parts SET amount = amount + 50, code = code || '!' WHERE maker_id = NEW.id; END"
        ],
    ),
    "a savepoint that is rolled back": Case(
        [
            "SAVEPOINT s",
            "UPDATE parts SET amount = 50 WHERE id = 1",
            "ROLLBACK TO s",
            "RELEASE s",
            "UPDATE parts SET amount = 51 WHERE id = 2",
        ]
    ),
}

_FUNCTION = "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$"
ON_POSTGRESQL = {
    "a trigger whose name sorts before those of diptych": Case(
        ["UPDATE parts SET amount = 5 WHERE id = 4"], _again("postgresql", "a_first")
    ),
    "a trigger whose name sorts after those of diptych": Case(
        ["UPDATE parts SET amount = 5 WHERE id = 4"], _again("postgresql", "z_last")
    ),
    "a trigger that moves another row to the former key": Case(
        ["UPDATE parts SET code = 'moved' WHERE id = 4"],
        [
            _FUNCTION.format("oust", "UPDATE parts SET code = OLD.code WHERE id = 3; RETURN NULL;"),
            "CREATE TRIGGER a_first AFTER UPDATE OF code ON parts FOR EACH ROW "
            "WHEN (OLD.id = 4) EXECUTE FUNCTION oust()",
        ],
    ),
    "a trigger that gives another value before the change": Case(
        ["INSERT INTO parts (id, code, amount) VALUES (30, 'x', 1)"],
        [
            _FUNCTION.format("alter_new", "NEW.code := NEW.code || '!'; RETURN NEW;"),
            "CREATE TRIGGER a_first BEFORE INSERT ON parts FOR EACH ROW EXECUTE FUNCTION alter_new()",
        ],
    ),
    "a trigger of another table": Case(
        ["UPDATE makers SET name = 'Cedar' WHERE id = 1"],
        [
            _FUNCTION.format(
                "follow",
                "UPDATE parts SET amount = amount + 50, code = code || '!' WHERE maker_id = NEW.id; RETURN NULL;",
            ),
            "CREATE TRIGGER renamed AFTER UPDATE ON makers FOR EACH ROW EXECUTE FUNCTION follow()",
        ],
    ),
    "a deferred trigger that writes at the commit": Case(
        ["UPDATE makers SET name = 'Cedar' WHERE id = 1"],
        [
            _FUNCTION.format("late", "UPDATE parts SET amount = 77 WHERE maker_id = NEW.id; RETURN NULL;"),
            "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON makers DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION late()",
        ],
    ),
    "a rule that does it to another table": Case(
        ["UPDATE makers SET name = 'Cedar' WHERE id = 1"],
        [
            "CREATE RULE also AS ON UPDATE TO makers DO ALSO "
            "UPDATE parts SET amount = 66 WHERE maker_id = NEW.id"
        ],
    ),
    "a view that can be written": Case(
        ["UPDATE few SET amount = 7 WHERE code = 'd'", "DELETE FROM few WHERE code = 'c'"],
        ["CREATE VIEW few AS SELECT code, amount FROM parts"],
    ),
    "a view with an INSTEAD OF trigger": Case(
        ["UPDATE few SET amount = 7 WHERE code = 'd'"],
        [
            "CREATE VIEW few AS SELECT code, max(amount) AS amount FROM parts GROUP BY code",
            _FUNCTION.format(
                "instead", "UPDATE parts SET amount = NEW.amount WHERE code = OLD.code; RETURN NEW;"
            ),
            "CREATE TRIGGER few_update INSTEAD OF UPDATE ON few FOR EACH ROW EXECUTE FUNCTION instead()",
        ],
    ),
    "a view with a rule": Case(
        ["UPDATE few SET amount = 7 WHERE code = 'd'"],
        [
            "CREATE VIEW few AS SELECT code, max(amount) AS amount FROM parts GROUP BY code",
            "CREATE RULE few_update AS ON UPDATE TO few DO INSTEAD "
            "UPDATE parts SET amount = NEW.amount WHERE code = OLD.code",
        ],
    ),
    "MERGE": Case(
        [
            "MERGE INTO parts USING (VALUES ('a', 70), ('x', 71), ('d', 0)) AS given (code, amount) "
            "ON parts.code = given.code WHEN MATCHED AND given.amount = 0 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET amount = given.amount "
            "WHEN NOT MATCHED THEN INSERT (id, code, amount) VALUES (50, given.code, given.amount)"
        ]
    ),
    "writing CTEs": Case(
        [
            "WITH gone AS (DELETE FROM parts WHERE id = 4 RETURNING code, amount), "
            "more AS (UPDATE parts SET amount = amount + 10 WHERE id = 3 RETURNING id) "
            "INSERT INTO parts (id, code, amount) SELECT 41, code || '2', amount FROM gone"
        ]
    ),
    "an UPDATE with FROM": Case(
        ["UPDATE parts SET code = parts.code || makers.name FROM makers WHERE makers.id = parts.maker_id"]
    ),
    "TRUNCATE": Case(["TRUNCATE parts"]),
    "TRUNCATE of a table that refers to others by CASCADE": Case(["TRUNCATE makers CASCADE"]),
    "TRUNCATE, and the same rows again": Case(
        ["TRUNCATE parts", "INSERT INTO parts (id, code, amount) VALUES (1, 'a', 1), (5, 'b', 5)"]
    ),
    "a savepoint that is rolled back": Case(
        [
            "DO $$ BEGIN BEGIN UPDATE parts SET amount = 50 WHERE id = 1; RAISE 'no'; "
            "EXCEPTION WHEN OTHERS THEN END; UPDATE parts SET amount = 51 WHERE id = 2; END $$"
        ]
    ),
    "a text that begins as a comment": Case(
        ["/*diptych 0123456789abcdef parts*/ UPDATE parts SET amount = 9"]
    ),
}

CASES = [
    *(
        pytest.param(database, case, id=f"{database}: {name}")
        for database in ("sqlite", "postgresql")
        for name, case in {**ON_BOTH, **(ON_SQLITE if database == "sqlite" else ON_POSTGRESQL)}.items()
    ),
]
NOT_IN_A_COMMAND = ("SAVEPOINT", "DO ")
CODES = ("x", "y", "z", "moved", "great", "minus", "D", "a!", "b!", "x!", "between", "d2")


def _url(request: pytest.FixtureRequest, database: str) -> str:
    return str(request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"))


@pytest.mark.parametrize(("database", "case"), CASES)
async def test_what_a_program_changes_is_seen_after_catch_up(request, valkey, database, case):
    url = _url(request, database)
    program = await prepare(url, *case.before)
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
        await program.runs(*case.statements)
        await app.catch_up()
        await same(app, *CODES)
        await served_by_redis(app, *CODES)


@pytest.mark.parametrize(("database", "case"), CASES)
async def test_what_a_command_changes_is_seen_at_its_acknowledgement(request, valkey, database, case):
    if case.statements[0].startswith(NOT_IN_A_COMMAND):
        pytest.skip("savepoints of commands are those of sessions")
    url = _url(request, database)
    await prepare(url, *case.before)
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
        async with app.orm.session() as session:
            for statement in case.statements:
                await (await session.connection()).exec_driver_sql(statement)
        await same(app, *CODES)
        await served_by_redis(app, *CODES)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", ["a_first", "z_last"])
async def test_what_a_trigger_makes_of_the_changes_of_ormservice_is_seen(request, valkey, database, name):
    url = _url(request, database)
    await prepare(url, *_again(database, name))
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
        await app.orm.update(Part, "d", "code", amount=6)
        await same(app)
        await app.orm.update(Part, "d", "code", amount=7, code="x")
        await same(app, "x")
        await app.orm.create(Part, id=60, code="y", amount=1)
        await same(app, "y")
        await app.orm.delete(Part, "y", "code")
        await same(app, "y")
        await served_by_redis(app, "x", "y")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_what_a_trigger_makes_of_many_rows_of_ormservice_is_seen(request, valkey, database):
    on_insert = [text.replace("UPDATE OF amount", "INSERT") for text in _again(database, "z_last")]
    url = _url(request, database)
    await prepare(url, *on_insert)
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
        rows = [{"id": 70 + n, "code": f"m{n}", "amount": n} for n in range(5)]
        await app.orm.create_all(Part, rows)
        await same(app, *(f"m{n}" for n in range(5)))
        await served_by_redis(app)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_cascades_of_the_changes_of_ormservice_are_seen(request, valkey, database):
    """In the same table: the statement has ORMService's marker, what the cascade does has its own entries."""
    url = _url(request, database)
    await prepare(url)
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
        await app.orm.update(Part, "a", "code", id=15)
        await same(app)
        await app.orm.delete(Part, "a", "code")
        await same(app)
        await served_by_redis(app)


async def test_more_rows_than_a_command_reads_at_once_are_copied(postgres_url, valkey):
    await prepare(postgres_url)
    async with application(postgres_url, valkey.url) as app:
        await served_by_redis(app)
        connection = await asyncpg.connect(postgres_url)
        records = [(100 + n, f"copied{n}", n) for n in range(3000)]
        await connection.copy_records_to_table("parts", records=records, columns=["id", "code", "amount"])
        await connection.close()
        await app.catch_up()
        async with app.orm.database.reader.connect() as reader:
            assert await reader.scalar(sa.text("SELECT count(*) FROM parts")) == 3004
        for n in (0, 1500, 2999):
            part = (await app.ask(GetPart(f"copied{n}"))).decode()
            assert part is not None
            assert part.amount == n


async def test_rows_that_truncate_removes_unseen_are_gone_at_the_acknowledgement(postgres_url, valkey):
    """TRUNCATE removes rows, too, that were committed after the snapshot of its transaction: no trigger sees them."""
    program = await prepare(postgres_url, "DELETE FROM parts")
    async with application(postgres_url, valkey.url, lease_ms=5000) as app:
        await served_by_redis(app)
        async with app.orm.session() as session:
            assert await session.scalar(sa.select(sa.func.count()).select_from(Part)) == 0
            await program.runs("INSERT INTO parts (id, code, amount) VALUES (9, 'x', 9)")
            await app.catch_up()
            await served_by_redis(app, "x")
            await session.execute(sa.text("TRUNCATE parts"))
        await same(app, "x")
        await program.runs("INSERT INTO parts (id, code, amount) VALUES (9, 'x', 9)", "TRUNCATE parts")
        await app.catch_up()
        await same(app, "x")
