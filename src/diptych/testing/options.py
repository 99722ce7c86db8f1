"""The options of pytest for the servers of the tests."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest


class _Option(NamedTuple):
    name: str
    variable: str
    words: tuple[str, ...]
    schemes: tuple[str, ...]
    help: str


SQL = _Option(
    "--diptych-database",
    "DIPTYCH_TESTING_DATABASE",
    ("sqlite", "postgresql"),
    ("postgresql://", "postgres://", "postgresql+asyncpg://"),
    "the database of each test: sqlite (the default), postgresql, or the URL of a PostgreSQL server that is there",
)
REDIS = _Option(
    "--diptych-redis",
    "DIPTYCH_TESTING_REDIS",
    ("valkey", "none"),
    ("redis://", "rediss://", "unix://"),
    "the Redis of the tests: valkey (the default), none, or the URL of a Redis or Valkey that is there",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options. Pytest calls this."""
    group = parser.getgroup("diptych")
    for option in (SQL, REDIS):
        group.addoption(option.name, default=None, help=f"{option.help}; else {option.variable} says it")


def value_of(config: pytest.Config, option: _Option) -> str:
    """The value of an option: of the command line, else of the environment, else the default."""
    given = config.getoption(option.name, default=None) or os.environ.get(option.variable)
    value = str(given or option.words[0])
    if value not in option.words and not value.startswith(option.schemes):
        words = " or ".join(option.words)
        shown = value if "://" not in value else value.partition("://")[0] + "://…"
        raise pytest.UsageError(
            f"{option.name} ({option.variable}) is {words}, or a URL of {option.schemes[0]}, not {shown}"
        )
    return value
