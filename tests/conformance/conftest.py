"""What the tests of the write panel share: an open ORMService on each kind of database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from diptych import ConfigService, ORMService
from tests.conformance.tables import Base
from tests.servers import PostgresServer


def config(database_url: str, **settings: Any) -> ConfigService:
    return ConfigService(environ={}, database_url=database_url, **settings)


@contextlib.contextmanager
def statements_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements sent to PostgreSQL by units of work meanwhile."""
    import asyncpg

    seen: list[str] = []
    fetch, execute = asyncpg.Connection.fetch, asyncpg.Connection.execute

    async def fetched(self: Any, query: str, *arguments: Any, **named: Any) -> Any:
        seen.append(query)
        return await fetch(self, query, *arguments, **named)

    async def executed(self: Any, query: str, *arguments: Any, **named: Any) -> Any:
        seen.append(query)
        return await execute(self, query, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "fetch", fetched)
        patch.setattr(asyncpg.Connection, "execute", executed)
        yield seen


@pytest.fixture(scope="module")
def shared_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database that is emptied for each test, which is quicker than a new one."""
    name = postgres_server.create_database()
    yield postgres_server.url_of(name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
async def orm(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ORMService]:
    """An ORMService on an empty database of each kind, with the tables of `tables.py`."""
    is_sqlite = request.param == "sqlite"
    service = ORMService(
        config(str(tmp_path / "test.db") if is_sqlite else request.getfixturevalue("shared_postgres_url"))
    )
    await service.init(models=Base)
    if not is_sqlite:
        tables = ", ".join(["diptych_log", "diptych_fence", *Base.metadata.tables])
        async with service.database.writer.begin() as connection:
            await connection.execute(sa.text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
    yield service
    await service.close()
