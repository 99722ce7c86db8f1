"""What happens to tables and triggers while an application serves is noticed, and nothing stale is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
import pytest
import sqlalchemy as sa

from diptych import Diptych, WiringError
from diptych.errors import SchemaError
from diptych.log import EVERYTHING
from diptych.log.append import gap_entries
from diptych.log.capture.fingerprint import fingerprints
from diptych.log.capture.postgres import HINT_CHANNEL
from diptych.log.capture.table import CAPTURE, captured_table
from tests.books import AddBook
from tests.captured import Maker, Part, Program, application, prepare, same, served_by_redis
from tests.catalogue import Held, answered_by, author_of, catalogue, redis_side_of, set_author
from tests.servers import PostgresServer

LEASE_S = 1.0


class Case(NamedTuple):
    """Statements, each a transaction of its own or one for all, ``before`` the application is started or while it
    serves. ``again`` changes rows once more, when it is served from Redis again.
    """

    statements: Sequence[str]
    is_one_transaction: bool = True
    before: Sequence[str] = ()
    again: Sequence[str] = (
        "UPDATE parts SET amount = amount + 1000",
        "UPDATE makers SET name = name || '!'",
        "DELETE FROM parts WHERE code = 'd'",
    )


_CHANGE = "UPDATE parts SET amount = amount + 10"
_OFF = "ALTER TABLE parts DISABLE TRIGGER ALL"
_ON = "ALTER TABLE parts ENABLE TRIGGER ALL"
_SWAP = (
    "CREATE TABLE parts_new (LIKE parts INCLUDING ALL)",
    "INSERT INTO parts_new SELECT id, code || '2', amount + 1, maker_id, whole_id FROM parts",
    "ALTER TABLE parts RENAME TO parts_old",
    "ALTER TABLE parts_new RENAME TO parts",
)
_PARTITIONED = (
    "DROP TABLE parts CASCADE",
    'CREATE TABLE parts (id bigint NOT NULL, code varchar(200) COLLATE "C" PRIMARY KEY, '
    "amount int DEFAULT 0 NOT NULL, "
    "maker_id bigint REFERENCES makers ON DELETE SET NULL ON UPDATE CASCADE, whole_id bigint) "
    "PARTITION BY RANGE (code)",
    "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM ('a') TO ('c')",
    "CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM ('c') TO ('n')",
    "INSERT INTO parts (id, code, amount, maker_id) VALUES (1, 'a', 1, 1), (2, 'b', 2, 1), (3, 'c', 3, 2), "
    "(4, 'd', 4, 2)",
)

ON_POSTGRESQL = {
    "triggers disabled": Case([_OFF, _CHANGE], is_one_transaction=False),
    "triggers disabled for a moment": Case([_OFF, _CHANGE, _ON], is_one_transaction=False),
    "triggers disabled for a moment, in one transaction": Case([_OFF, _CHANGE, _ON]),
    "triggers of users disabled for a moment": Case(
        ["ALTER TABLE parts DISABLE TRIGGER USER", _CHANGE, "ALTER TABLE parts ENABLE TRIGGER USER"]
    ),
    "a trigger dropped and made again": Case(
        ["DROP TRIGGER diptych_capture ON parts", _CHANGE, "ALTER TABLE parts ADD COLUMN colour text"]
    ),
    "a function replaced": Case(
        [
            "CREATE OR REPLACE FUNCTION diptych_capture_parts() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RETURN NULL; END $$",
            _CHANGE,
        ]
    ),
    "session_replication_role": Case(["SET LOCAL session_replication_role = replica", _CHANGE]),
    "triggers enabled, which leaves them out for replicas": Case(
        [_ON, "SET LOCAL session_replication_role = replica", _CHANGE], is_one_transaction=False
    ),
    "a table swapped by renaming": Case(_SWAP),
    "a column's type altered": Case(["ALTER TABLE parts ALTER amount TYPE int USING amount + 7"]),
    "a column's type altered to a wider one": Case(
        ["ALTER TABLE parts ALTER code TYPE varchar(300)", _CHANGE]
    ),
    "a column's type altered between changes": Case(
        [_CHANGE, 'ALTER TABLE parts ALTER code TYPE text COLLATE "C"', _CHANGE]
    ),
    "a column added": Case(["ALTER TABLE parts ADD COLUMN colour text DEFAULT 'red'", _CHANGE]),
    "a column dropped that nobody maps": Case(
        ["ALTER TABLE parts DROP COLUMN colour", _CHANGE],
        before=["ALTER TABLE parts ADD COLUMN colour text DEFAULT 'red'"],
    ),
    "a column added, renamed and dropped": Case(
        [
            "ALTER TABLE parts ADD COLUMN colour text",
            "ALTER TABLE parts RENAME colour TO tint",
            _CHANGE,
            "ALTER TABLE parts DROP COLUMN tint",
        ],
        is_one_transaction=False,
    ),
    "VACUUM FULL": Case([_CHANGE, "CLUSTER parts USING parts_pkey"]),
    "TRUNCATE": Case(["TRUNCATE parts", "INSERT INTO parts (id, code) VALUES (5, 'e'), (6, 'd')"]),
    "TRUNCATE while a column has another name": Case(
        [
            "ALTER TABLE parts RENAME whole_id TO part_of",
            "TRUNCATE parts",
            "ALTER TABLE parts RENAME part_of TO whole_id",
        ]
    ),
    "a partition is written by its name": Case(
        ["UPDATE parts_low SET amount = 50", "DELETE FROM parts_high WHERE code = 'c'"], before=_PARTITIONED
    ),
    "a row moves to another partition": Case(
        ["UPDATE parts SET code = 'e', amount = 9 WHERE code = 'a'"], before=_PARTITIONED
    ),
    "a partition is detached": Case(["ALTER TABLE parts DETACH PARTITION parts_high"], before=_PARTITIONED),
    "a partition is attached": Case(
        [
            "CREATE TABLE parts_last (LIKE parts INCLUDING ALL)",
            "INSERT INTO parts_last (id, code, amount) VALUES (9, 'x', 9)",
            "ALTER TABLE parts ATTACH PARTITION parts_last FOR VALUES FROM ('n') TO ('zz')",
        ],
        before=_PARTITIONED,
    ),
    "a partition is truncated": Case(["TRUNCATE parts_high"], before=_PARTITIONED),
    "a partitioned table is truncated": Case(["TRUNCATE parts"], before=_PARTITIONED),
    "a partition's trigger is disabled for a moment": Case(
        [
            "ALTER TABLE parts_low DISABLE TRIGGER USER",
            "UPDATE parts_low SET amount = 60",
            "ALTER TABLE parts_low ENABLE TRIGGER USER",
        ],
        before=_PARTITIONED,
    ),
}

_BATCH = (
    # As Alembic's batch mode does it.
    "PRAGMA defer_foreign_keys=ON",
    "CREATE TABLE _alembic_tmp_parts (id INTEGER PRIMARY KEY, code VARCHAR(200) NOT NULL UNIQUE, "
    "amount INTEGER DEFAULT 0 NOT NULL, maker_id INTEGER, whole_id INTEGER, colour TEXT)",
    "INSERT INTO _alembic_tmp_parts (id, code, amount, maker_id, whole_id) "
    "SELECT id, code, amount + 5, maker_id, whole_id FROM parts",
    "DROP TABLE parts",
    "ALTER TABLE _alembic_tmp_parts RENAME TO parts",
)
_LOG_NOTHING = (
    "DROP TRIGGER diptych_capture_parts_u",
    "CREATE TRIGGER diptych_capture_parts_u AFTER UPDATE ON parts BEGIN SELECT 1; END",
    _CHANGE,
)
ON_SQLITE = {
    "a trigger dropped": Case(["DROP TRIGGER diptych_capture_parts_u", _CHANGE]),
    "a trigger replaced": Case(_LOG_NOTHING),
    "Alembic's batch mode": Case(_BATCH),
    "a table renamed, and another in its place": Case(
        [
            "ALTER TABLE parts RENAME TO parts_old",
            "CREATE TABLE parts (id INTEGER PRIMARY KEY, code VARCHAR(200) NOT NULL UNIQUE, "
            "amount INTEGER DEFAULT 0 NOT NULL, maker_id INTEGER, whole_id INTEGER)",
            "INSERT INTO parts SELECT id, code || '2', amount + 1, maker_id, whole_id FROM parts_old",
        ]
    ),
    "a column added, renamed and dropped": Case(
        [
            "ALTER TABLE parts ADD COLUMN colour text",
            "ALTER TABLE parts RENAME colour TO tint",
            _CHANGE,
            "ALTER TABLE parts DROP COLUMN tint",
        ],
        is_one_transaction=False,
    ),
    "ANALYZE": Case([_CHANGE, "ANALYZE"]),
    "a unique index added": Case(
        [
            "CREATE UNIQUE INDEX one_amount ON parts (amount)",
            "INSERT OR REPLACE INTO parts (id, code, amount) VALUES (9, 'x', 4)",
        ],
        is_one_transaction=False,
    ),
}

CASES = [
    *(pytest.param("sqlite", case, id=f"sqlite: {name}") for name, case in ON_SQLITE.items()),
    *(pytest.param("postgresql", case, id=f"postgresql: {name}") for name, case in ON_POSTGRESQL.items()),
]
CODES = ("a2", "b2", "c2", "d2", "e", "x")


@pytest.mark.parametrize(("database", "case"), CASES)
async def test_what_is_done_to_tables_and_triggers_is_noticed(request, valkey, database, case):
    url = str(request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"))
    program = await prepare(url, *case.before)
    async with application(url, valkey.url, lease_ms=int(LEASE_S * 1000)) as app:
        await served_by_redis(app)
        await (program.runs if case.is_one_transaction else program.runs_each_alone)(*case.statements)
        await asyncio.sleep(LEASE_S)
        await same(app, *CODES)
        await served_by_redis(app, *CODES)
        # The triggers are there again, and what they log is brought in.
        await program.runs(*case.again)
        await app.catch_up()
        await same(app, *CODES)
        await served_by_redis(app, *CODES)
        await app.orm.update(Part, "b", "code", amount=4711)
        await same(app, *CODES)


@pytest.mark.parametrize(
    ("database", "statement"),
    [
        ("sqlite", "DROP TRIGGER diptych_capture_parts_u"),
        ("postgresql", "ALTER TABLE parts ALTER amount TYPE int USING amount + 7"),
    ],
)
async def test_a_pass_that_begins_before_another_keeper_mends_the_triggers_gives_no_lease(
    request, valkey, database, statement
):
    """The pass is promised, and finds the triggers right: the generation has ended meanwhile."""
    url = str(request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"))
    program = await prepare(url)
    lease_s = 2.0
    async with application(url, valkey.url, lease_ms=int(lease_s * 1000)) as app:
        await served_by_redis(app)
        keeper, *others = redis_side_of(app).keepers.values()
        for other in others:
            await other.stop()
        look = Held(keeper.replica.store, "inspect")
        await look.reached.wait()
        await program.runs(statement, "UPDATE parts SET amount = amount + 10")
        committed = time.monotonic()
        await asyncio.sleep(lease_s / 4)
        replay = Held(keeper.replica, "replay_log")
        look.go_on.set()
        await replay.reached.wait()
        await app.orm.side.fence.capture(keeper.replica.compiled.tables)
        replay.go_on.set()
        await asyncio.sleep(max(0.0, committed + lease_s - time.monotonic()))
        while time.monotonic() < committed + 1.5 * lease_s:
            await same(app)


async def test_a_trigger_of_a_partition_is_known_to_commands(postgres_url, valkey):
    """What it changes is seen at once, as with a trigger of the whole table."""
    await prepare(
        postgres_url,
        *_PARTITIONED,
        "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE parts SET amount = NEW.amount WHERE code = 'c'; RETURN NULL; END $$",
        "CREATE TRIGGER follow AFTER UPDATE ON parts_low FOR EACH ROW EXECUTE FUNCTION follow()",
    )
    async with application(postgres_url, valkey.url, lease_ms=30_000, capture_hints=False) as app:
        await served_by_redis(app)
        for number in range(10, 20):
            await app.orm.update(Part, "a", "code", amount=number)
            await same(app, store="redis")


_PARTITIONED_TWICE = (
    *_PARTITIONED,
    "CREATE TABLE parts_last PARTITION OF parts FOR VALUES FROM ('n') TO ('zz') PARTITION BY RANGE (code)",
    "CREATE TABLE parts_x PARTITION OF parts_last FOR VALUES FROM ('x') TO ('y')",
    "INSERT INTO parts (id, code, amount) VALUES (8, 'x', 8)",
)


@pytest.mark.parametrize("truncated", ["parts_low", "parts_last", "parts_x", "parts", "parts_low, parts_x"])
async def test_what_is_truncated_by_the_name_of_a_partition_is_gone_at_the_acknowledgement(
    postgres_url, valkey, truncated
):
    """PostgreSQL fires triggers of statements for the tables that are truncated, and makes none on partitions."""
    await prepare(postgres_url, *_PARTITIONED_TWICE)
    async with application(postgres_url, valkey.url, lease_ms=2000) as app:
        await served_by_redis(app, "x")
        async with app.orm.session() as session:
            gone = {row.code for row in await session.execute(sa.text("SELECT code FROM parts"))}
            await session.execute(sa.text(f"TRUNCATE {truncated}"))
            gone -= {row.code for row in await session.execute(sa.text("SELECT code FROM parts"))}
        await same(app, "x")
        async with app.orm.database.reader.connect() as connection:
            touched = sa.text("SELECT row_id FROM diptych_log WHERE kind = 'touched' AND row_id IS NOT NULL")
            rows = sorted((await connection.scalars(touched)).all())
        assert rows == sorted({"a": "1", "b": "2", "c": "3", "d": "4", "x": "8"}[code] for code in gone)


async def test_partitions_come_and_go_and_are_truncated(postgres_url, valkey):
    program = await prepare(postgres_url, *_PARTITIONED)
    async with application(postgres_url, valkey.url, lease_ms=2000) as app:

        async def truncate(table: str) -> None:
            async with app.orm.session() as session:
                await session.execute(sa.text(f"TRUNCATE {table}"))
            await same(app, "x")

        await served_by_redis(app)
        await program.runs(
            "CREATE TABLE parts_last PARTITION OF parts FOR VALUES FROM ('n') TO ('zz')",
            "INSERT INTO parts (id, code, amount) VALUES (8, 'x', 8)",
        )
        await app.catch_up()
        await served_by_redis(app, "x")
        await truncate("parts_last")
        await program.runs("ALTER TABLE parts DETACH PARTITION parts_low")
        await app.catch_up()
        await same(app, "x")
        # No row of the table is gone: that there is an entry nevertheless costs no more than a build.
        await truncate("parts_low")
        await served_by_redis(app, "x")
        await program.runs("ALTER TABLE parts ATTACH PARTITION parts_low FOR VALUES FROM ('a') TO ('c')")
        await program.runs("INSERT INTO parts (id, code, amount) VALUES (1, 'a', 1)")
        await app.catch_up()
        await served_by_redis(app, "x")
        await truncate("parts_low")


async def test_each_transaction_that_changes_rows_notifies_whatever_a_savepoint_took_back(
    postgres_url, valkey
):
    await prepare(postgres_url)
    notifications: asyncio.Queue[str] = asyncio.Queue()
    async with application(postgres_url, valkey.url):
        listener, program = [await asyncpg.connect(postgres_url) for _ in range(2)]
        await listener.add_listener(HINT_CHANNEL, lambda *heard: notifications.put_nowait(heard[2]))
        for statements in (
            (_CHANGE, _CHANGE),
            (_CHANGE,),
            ("SAVEPOINT a", _CHANGE, "ROLLBACK TO a", _CHANGE),
            ("SAVEPOINT a", _CHANGE, "RELEASE a", "SAVEPOINT b", _CHANGE, "ROLLBACK TO b"),
        ):
            async with program.transaction():
                for statement in statements:
                    await program.execute(statement)
            await asyncio.wait_for(notifications.get(), 10)
            assert notifications.empty(), statements
        await listener.close()
        await program.close()


@pytest.mark.parametrize(
    ("database", "statements"),
    [
        ("sqlite", ["DROP TRIGGER diptych_capture_parts_u", _CHANGE]),
        ("postgresql", [_OFF, _CHANGE, _ON]),
        ("postgresql", list(_SWAP)),
    ],
)
async def test_what_happened_while_nobody_ran_is_noticed_at_the_start(request, valkey, database, statements):
    url = str(request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"))
    program = await prepare(url)
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
    await program.runs(*statements)
    async with application(url, valkey.url) as app:
        await asyncio.sleep(LEASE_S)
        await same(app, *CODES)
        await served_by_redis(app, *CODES)


async def test_a_column_that_entries_name_goes_and_nobody_is_kept_from_writing(postgres_url, valkey):
    """A foreign key's column is dropped under the triggers that name it."""
    program = await prepare(postgres_url)
    async with application(postgres_url, valkey.url) as app:
        await served_by_redis(app)
        await program.runs_each_alone(
            "ALTER TABLE parts RENAME whole_id TO part_of", "UPDATE makers SET name = 'Cedar' WHERE id = 1"
        )
        for number in range(20):
            await program.runs(f"UPDATE parts SET amount = {number}")
            await asyncio.sleep(0.05)
        await program.runs("ALTER TABLE parts RENAME part_of TO whole_id")
        await asyncio.sleep(LEASE_S)
        await same(app)
        await served_by_redis(app)


async def test_another_role_writes_and_may_neither_read_the_log_nor_switch_the_triggers_off(
    postgres_url, valkey
):
    program = await prepare(postgres_url, "DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk")
    await program.runs("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON parts, makers TO clerk")
    async with application(postgres_url, valkey.url) as app:
        await served_by_redis(app)
        await program.runs("SET ROLE clerk", "SET search_path = ''", "UPDATE public.parts SET amount = 70")
        await app.catch_up()
        await same(app)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await program.runs("SET ROLE clerk", "SELECT 1 FROM diptych_log")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await program.runs("SET ROLE clerk", _OFF)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await program.runs("SET ROLE clerk", "SET session_replication_role = replica")
        await program.runs("SET ROLE clerk", "TRUNCATE parts")
        await app.catch_up()
        await same(app)
        async with app.orm.database.reader.connect() as connection:
            kinds = sa.text(
                "SELECT DISTINCT kind, actor, command_id FROM diptych_log WHERE kind NOT IN ('created', 'gap')"
            )
            assert set(await connection.execute(kinds)) == {
                ("updated", "postgres", ""),
                ("touched", "postgres", ""),
            }
    await program.runs("DROP OWNED BY clerk", "DROP ROLE clerk")


async def test_a_role_that_owns_no_table_is_served_after_truncate(postgres_url, valkey):
    """The triggers are as they were: only the owner may make them anew, and nobody has to."""
    owner = await prepare(postgres_url, "DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN")
    await owner.runs(
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO clerk",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk",
    )
    url = postgres_url.replace("postgres@", "clerk@")
    async with application(postgres_url, valkey.url):
        pass
    async with application(url, valkey.url) as app:
        await served_by_redis(app)
        await Program(url).runs("TRUNCATE parts", "INSERT INTO parts (id, code) VALUES (8, 'x')")
        await asyncio.sleep(LEASE_S)
        await same(app, "x")
        await served_by_redis(app, "x")
    await owner.runs("DROP OWNED BY clerk", "DROP ROLE clerk")


async def test_a_long_foreign_transaction_is_seen_once_it_is_committed(postgres_url, valkey):
    await prepare(postgres_url)
    async with application(postgres_url, valkey.url, lease_ms=400) as app:
        await served_by_redis(app)
        foreign = await asyncpg.connect(postgres_url)
        transaction = foreign.transaction()
        await transaction.start()
        await foreign.execute("UPDATE parts SET amount = 90 WHERE code = 'a'")
        for number in range(20):
            await app.orm.update(Part, "b", "code", amount=number)
            await same(app)
            await asyncio.sleep(0.05)
        await foreign.execute("UPDATE parts SET amount = 91 WHERE code = 'c'")
        await transaction.commit()
        await app.catch_up()
        await same(app)
        await foreign.close()
        await served_by_redis(app)


async def test_two_phase_commit_by_others_needs_the_hints_left_out(valkey):
    """A transaction that has notified can't be prepared."""
    with PostgresServer(config={"max_prepared_transactions": "2"}) as server:
        url = server.url_of(server.create_database())
        await prepare(url)
        async with application(url, valkey.url, capture_hints=False) as app:
            await served_by_redis(app)
            connection = await asyncpg.connect(url)
            for statement in ("BEGIN", "UPDATE parts SET amount = 33", "PREPARE TRANSACTION 'two'"):
                await connection.execute(statement)
            await app.orm.update(Maker, 2, name="Elm")
            await same(app)
            await connection.execute("COMMIT PREPARED 'two'")
            await connection.close()
            await app.catch_up()
            await same(app)
            await served_by_redis(app)
        # The hints are in again once the setting is left out.
        async with application(url, valkey.url) as app:
            await served_by_redis(app)
            connection = await asyncpg.connect(url)
            await connection.execute("BEGIN")
            await connection.execute("UPDATE parts SET amount = 34")
            with pytest.raises(asyncpg.FeatureNotSupportedError):
                await connection.execute("PREPARE TRANSACTION 'three'")
            await connection.close()


@pytest.mark.parametrize(
    ("statements", "column"),
    [
        (
            [
                "ALTER TABLE parts DROP CONSTRAINT parts_code_key",
                "ALTER TABLE parts ADD UNIQUE (code) DEFERRABLE",
            ],
            "code",
        ),
        (["ALTER TABLE parts DROP CONSTRAINT parts_code_key"], "code"),
        (
            [
                "ALTER TABLE parts DROP CONSTRAINT parts_code_key",
                "CREATE UNIQUE INDEX one_code ON parts (code) WHERE amount > 0",
            ],
            "code",
        ),
    ],
)
async def test_a_key_that_the_database_does_not_hold_unique_at_all_times_is_refused(
    postgres_url, valkey, statements, column
):
    """Whatever the mapping says: the catalogue is what counts."""
    await prepare(postgres_url, *statements)
    with pytest.raises(
        WiringError, match=f"the key '{column}' must be unique by itself, in the database too"
    ):
        await application(postgres_url, valkey.url).start()


async def test_a_table_that_others_inherit_from_is_refused(postgres_url, valkey):
    await prepare(postgres_url, "CREATE TABLE heirs () INHERITS (parts)")
    with pytest.raises(SchemaError, match="other tables inherit from parts"):
        await application(postgres_url, valkey.url).start()


async def test_a_trigger_that_a_migration_adds_while_an_application_serves(postgres_url, valkey):
    """A lease later, at the latest, commands know that their changes may change more."""
    async with catalogue(postgres_url, valkey.url, capture_hints=False, lease_ms=1000) as app:
        for title in ("Dune", "Emma"):
            await app.execute(AddBook(title, "0"))
        await answered_by(app, "redis")
        await Program(postgres_url).runs(
            "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "UPDATE books SET author = NEW.author WHERE title = 'Emma'; RETURN NULL; END $$",
            "CREATE TRIGGER follow AFTER UPDATE ON books FOR EACH ROW WHEN (NEW.title = 'Dune') "
            "EXECUTE FUNCTION follow()",
        )
        await asyncio.sleep(LEASE_S)
        await answered_by(app, "redis")
        for number in range(1, 20):
            await set_author(app, "Dune", str(number))
            assert await author_of(app, "Emma") == ("redis", str(number))


async def test_entries_of_other_kinds_and_of_no_table_disturb_nothing(database_url, valkey):
    """What later versions may write: a kind that is not known says that the row is to be read again."""
    program = await prepare(database_url)
    async with application(database_url, valkey.url, lease_ms=30_000) as app:
        await served_by_redis(app)
        is_sqlite = program.is_sqlite
        now = "'2026-01-01 00:00:00'" if is_sqlite else "now()"
        columns = "entity, table_name, key, old_key, kind, version, image, command_id, recorded_at"
        entry = f"INSERT INTO diptych_log ({columns})"
        await program.runs(
            f"{entry} VALUES ('none', NULL, '{{}}', NULL, 'noted', 1, NULL, '', {now})",
            f'{entry} VALUES (\'Part\', \'parts\', \'{{"id": 1, "code": "a"}}\', \'{{"id": 2, "code": "b"}}\', '
            f'\'looked at\', 1, \'{{"id": 1, "code": "a", "amount": 999}}\', \'\', {now})',
        )
        await app.catch_up()
        await same(app, store="redis")
        await app.orm.update(Part, "a", "code", amount=5)
        await same(app, store="redis")
        # However many rows of no table there are, they do not count among the entries that a sight lists.
        since = (await app.orm.side.fence.sight(EVERYTHING)).snapshot
        await program.runs(*[f"{entry} VALUES ('none', NULL, 'no JSON', '', '', 0, '[', '', {now})"] * 2100)
        for with_the_rows in (False, True):
            sight = await app.orm.side.fence.sight(since, expects_entries=with_the_rows)
            assert (sight.entries, sight.more) == ([], False)
        await app.catch_up()
        await same(app, store="redis")


_BREAKS = {"sqlite": ["DROP TRIGGER diptych_capture_parts_u", _CHANGE], "postgresql": [_OFF, _CHANGE, _ON]}


async def _log_of(app: Diptych) -> list[tuple[str, str | None, str]]:
    async with app.orm.database.reader.connect() as connection:
        entries = sa.text("SELECT kind, table_name, key, row_id FROM diptych_log ORDER BY position")
        return [(row.kind, row.table_name, row.key) for row in await connection.execute(entries)]


async def test_an_entry_says_that_changes_may_have_been_missed_and_holds_nobody_up(database_url, valkey):
    """It is written with the triggers that are made anew, and the generations built since begin after it."""
    program = await prepare(database_url)
    async with application(database_url, valkey.url, lease_ms=int(LEASE_S * 1000)) as app:
        await served_by_redis(app)
        assert "gap" not in {kind for kind, _, _ in await _log_of(app)}  # the triggers were made at the start
        await program.runs_each_alone(*_BREAKS["sqlite" if program.is_sqlite else "postgresql"])
        await asyncio.sleep(LEASE_S)
        await served_by_redis(app)
        # On SQLite the number of the schema stands for the triggers of every table.
        tables = ["makers", "parts"] if program.is_sqlite else ["parts"]
        gaps = [("gap", table, "{}") for table in tables]
        assert sorted(entry for entry in await _log_of(app) if entry[0] == "gap") == gaps
        generations = {row.generation for row in await app.orm.side.fence.rows()}
        assert "" not in generations
        began = time.monotonic()
        for number in range(20):
            await app.orm.update(Part, "a", "code", amount=number)
            await program.runs(f"UPDATE parts SET amount = {number} WHERE code = 'b'")
            await app.catch_up()
            await same(app, store="redis")
        assert time.monotonic() - began < 10
        await asyncio.sleep(2 * LEASE_S)
        assert {row.generation for row in await app.orm.side.fence.rows()} == generations
        assert sorted(entry for entry in await _log_of(app) if entry[0] == "gap") == gaps


async def test_a_gap_that_a_generation_has_not_seen_is_passed_over(database_url, valkey):
    """A generation that did not end with it was begun after it."""
    program = await prepare(database_url)
    async with application(database_url, valkey.url, lease_ms=30_000) as app:
        await served_by_redis(app)
        generations = {row.generation for row in await app.orm.side.fence.rows()}
        async with app.orm.database.writer.begin() as connection:
            await connection.execute(gap_entries(app.orm.database.name, {"parts": "Part", "makers": "Maker"}))
        await app.catch_up()
        await same(app, store="redis")
        await app.orm.update(Part, "a", "code", amount=5)
        await program.runs("UPDATE makers SET name = name || '!'")
        await app.catch_up()
        await same(app, store="redis")
        assert {row.generation for row in await app.orm.side.fence.rows()} == generations


_EARLIER = {
    "sqlite": [
        "DROP TRIGGER diptych_capture_parts_u",
        "CREATE TRIGGER diptych_capture_parts_u AFTER UPDATE ON parts BEGIN "
        "INSERT INTO diptych_log (entity, table_name, key, old_key, kind, version, command_id, recorded_at) VALUES "
        "('Part', 'parts', json_object('id', NEW.id, 'code', NEW.code), json_object('id', OLD.id, 'code', OLD.code), "
        "'updated', 2, '', '2026-01-01 00:00:00.000000'); END",
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION diptych_capture_parts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO diptych_log (entity, table_name, key, old_key, kind, version, command_id, recorded_at) VALUES "
        "('Part', 'parts', json_build_object('id', NEW.id, 'code', NEW.code), "
        "json_build_object('id', OLD.id, 'code', OLD.code), 'updated', 2, '', now()); RETURN NULL; END $$"
    ],
}


async def test_triggers_of_an_earlier_version_are_made_anew(database_url, valkey):
    """They write no row_id. They have missed nothing: the log has no gap."""
    program = await prepare(database_url)
    async with application(database_url, valkey.url) as app:
        captured = [captured_table(app.orm.side.entities.of(model)) for model in (Part, Maker)]
        async with app.orm.database.writer.begin() as connection:
            for statement in _EARLIER[app.orm.database.name]:
                await connection.exec_driver_sql(statement)
            # As by a process of that version, which still runs: it knows nothing of the format.
            for table, present in (await fingerprints(connection, captured)).items():
                update = sa.update(CAPTURE).where(CAPTURE.c.table_name == table)
                await connection.execute(update.values(format=1, fingerprint=present))
        await served_by_redis(app)
        await program.runs("UPDATE parts SET amount = 77 WHERE code = 'b'")
        await asyncio.sleep(LEASE_S)
        await served_by_redis(app)
        await program.runs("UPDATE parts SET amount = 78 WHERE code = 'b'")
        async with app.orm.database.reader.connect() as connection:
            last = sa.text("SELECT row_id FROM diptych_log ORDER BY position DESC LIMIT 1")
            assert (await connection.execute(last)).scalar_one() == "2"
        assert "gap" not in {kind for kind, _, _ in await _log_of(app)}


@pytest.mark.parametrize("round_", range(3))
async def test_catch_up_knows_of_what_no_trigger_has_logged(database_url, valkey, round_):
    """It waits until nobody trusts what lacks the change."""
    program = await prepare(database_url)
    async with application(database_url, valkey.url, lease_ms=int(LEASE_S * 1000)) as app:
        await served_by_redis(app)
        await asyncio.sleep(round_ * LEASE_S / 7)
        await program.runs_each_alone(*_BREAKS["sqlite" if program.is_sqlite else "postgresql"])
        began = time.monotonic()
        await app.catch_up()
        assert time.monotonic() - began < 1.5 * LEASE_S
        await same(app)
