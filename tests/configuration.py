"""Settings of applications in tests."""

from __future__ import annotations

from typing import Any

from diptych import ConfigService

PATIENT_REDIS: dict[str, Any] = {"redis_query_timeout_ms": 2000, "redis_command_timeout_ms": 5000}
"""Time for Redis to answer on a busy machine, where a test asserts that Redis answered."""


def configured(database_url: str, redis_url: str | None = None, **settings: Any) -> ConfigService:
    """Returns these settings, and no others of the environment, with a long lease and a patient look at Redis."""
    values = {**PATIENT_REDIS, "lease_ms": 10_000, **settings}
    return ConfigService(environ={}, database_url=database_url, redis_url=redis_url, **values)
