"""Triggers are made on a table that others hold: autovacuum makes room, and whoever does not is named."""

from __future__ import annotations

import asyncpg
import pytest

from diptych import DatabaseBusyError
from diptych.fence import capture
from tests.captured import Program, application, prepare
from tests.catalogue import eventually
from tests.servers import PostgresServer

SLOW_AUTOVACUUM = {
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_cost_delay": "100ms",
    "autovacuum_vacuum_cost_limit": "1",
    "autovacuum_vacuum_threshold": "10",
    "autovacuum_vacuum_scale_factor": "0.01",
}


async def test_a_start_while_autovacuum_works_on_the_table():
    """It works for minutes, and is told to yield only to who has waited for deadlock_timeout."""
    with PostgresServer(config=SLOW_AUTOVACUUM) as server:
        url = server.url_of(server.create_database())
        async with application(url, None):
            pass
        program = Program(url)
        await program.runs(
            "DROP TRIGGER diptych_capture ON parts",
            "INSERT INTO parts (id, code) SELECT n, repeat('x', 100) || n FROM generate_series(1, 20000) AS n",
        )
        await program.runs("UPDATE parts SET amount = 1")
        connection = await asyncpg.connect(url)

        async def works() -> bool:
            return bool(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE granted"
                    " AND backend_type = 'autovacuum worker' AND relation = 'parts'::regclass"
                )
            )

        await eventually(works, "autovacuum is at work")
        async with application(url, None):
            assert (
                await connection.fetchval(
                    "SELECT tgenabled FROM pg_trigger WHERE tgname = 'diptych_capture'"
                    " AND tgrelid = 'parts'::regclass"
                )
                == b"A"
            )
        await connection.close()


async def test_who_holds_the_table_is_named(postgres_url, monkeypatch):
    program = await prepare(postgres_url, "DROP TRIGGER diptych_capture ON parts")
    monkeypatch.setattr(capture, "_PATIENCE_S", 1.0)
    holder = await asyncpg.connect(postgres_url, server_settings={"application_name": "report of the night"})
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT 'a secret', count(*) FROM parts")
    sentence = (
        "the triggers on parts can't be made while others hold the table: "
        rf"pid {holder.get_server_pid()} \(report of the night, idle in transaction\)"
    )
    with pytest.raises(DatabaseBusyError, match=sentence) as error:
        await application(postgres_url, None).start()
    assert "secret" not in str(error.value)
    await transaction.rollback()
    await holder.close()
    await program.runs("SELECT 1")
    async with application(postgres_url, None):
        pass


async def test_a_prepared_transaction_that_holds_the_table_is_named(monkeypatch):
    monkeypatch.setattr(capture, "_PATIENCE_S", 1.0)
    with PostgresServer(config={"max_prepared_transactions": "2"}) as server:
        url = server.url_of(server.create_database())
        await prepare(url, "DROP TRIGGER diptych_capture ON parts")
        connection = await asyncpg.connect(url)
        for statement in ("BEGIN", "LOCK TABLE parts IN SHARE MODE", "PREPARE TRANSACTION 'two'"):
            await connection.execute(statement)
        with pytest.raises(DatabaseBusyError, match=r"on parts can't .*: a prepared transaction"):
            await application(url, None).start()
        await connection.close()
