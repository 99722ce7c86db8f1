"""Fixtures of pytest for applications on diptych, each test with a database and a namespace of its own.

In the ``conftest.py`` of a test suite:

    import pytest
    from shop import create_app

    pytest_plugins = ["diptych.testing"]

    @pytest.fixture
    def diptych_factory():
        return create_app
"""

from __future__ import annotations

from diptych.errors import MissingExtraError

try:
    import pytest  # noqa: F401
    import pytest_asyncio  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("diptych.testing", "testing", error.name or str(error)) from error

from diptych.testing.fixtures import _diptych_postgresql as _diptych_postgresql
from diptych.testing.fixtures import _diptych_sqlite as _diptych_sqlite
from diptych.testing.fixtures import (
    diptych_app,
    diptych_config,
    diptych_database,
    diptych_database_url,
    diptych_factory,
    diptych_postgres,
    diptych_prepare,
    diptych_redis,
    diptych_settings,
    diptych_valkey,
)
from diptych.testing.helpers import serving, settled, store_of
from diptych.testing.options import pytest_addoption as pytest_addoption

__all__ = [
    "diptych_app",
    "diptych_config",
    "diptych_database",
    "diptych_database_url",
    "diptych_factory",
    "diptych_postgres",
    "diptych_prepare",
    "diptych_redis",
    "diptych_settings",
    "diptych_valkey",
    "serving",
    "settled",
    "store_of",
]
