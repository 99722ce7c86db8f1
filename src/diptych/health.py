"""Health, the answer of ``Diptych.health``, and the report of ``diptych status``, part by part."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import msgspec

from diptych.schemas import struct_schema


class SqlHealth(msgspec.Struct, frozen=True):
    """State of the SQL database, and its kind: "sqlite" or "postgresql"."""

    state: Literal["up", "away"]
    engine: str


class RedisHealth(msgspec.Struct, frozen=True):
    """State of Redis, ``off`` if none is configured. ``detail`` says why Redis is not used."""

    state: Literal["up", "away", "refused", "off"]
    detail: str | None = None

    def for_strangers(self) -> RedisHealth:
        """Returns the same without the words of Redis and of its driver, which name addresses and users."""
        if self.state in ("up", "off"):
            return self
        return RedisHealth(self.state, "the log says why, and HEALTH_DETAILS=true has it said here")


class SetAsideRow(msgspec.Struct, frozen=True):
    """A row that is set aside: its table, its key in the read model, and the field that does not fit."""

    table: str
    key: str
    field: str


class ReadModelHealth(msgspec.Struct, frozen=True):
    """State of a read model: the store behind its answers, since when, and why, if SQL does (a short token).

    ``progress`` tells how far a rebuild of this process is, "12000 of 100000 documents, about 4 s left", and
    ``time_left_s`` the same as a number, None before there is an estimate. ``set_aside`` is the number of rows that
    do not fit their documents, None while SQL answers, which does not count them; ``set_aside_rows`` names ten.
    """

    served_by: Literal["redis", "sql"]
    detail: str | None = None
    since: datetime.datetime | None = None
    progress: str | None = None
    time_left_s: float | None = None
    set_aside: int | None = None
    set_aside_rows: tuple[SetAsideRow, ...] = ()


class Health(msgspec.Struct, frozen=True):
    """State of an application. ``status`` is "ok" while SQL answers: without Redis queries are slower, not wrong.

    >>> import asyncio
    >>> from diptych import ConfigService, Diptych
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> async def main():
    ...     config = ConfigService(database_url="shop.db")
    ...     async with Diptych(config, models=Base, handlers=[]) as app:
    ...         health = await app.health()
    ...         print(health.status, health.sql)
    ...         print(health.redis)
    >>> asyncio.run(main())
    ok SqlHealth(state='up', engine='sqlite')
    RedisHealth(state='off', detail='REDIS_URL is not set')
    """

    status: Literal["ok", "unavailable"]
    sql: SqlHealth
    redis: RedisHealth
    read_models: dict[str, ReadModelHealth]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return struct_schema(cls)


NO_REDIS = RedisHealth("off", "REDIS_URL is not set")
"""State of Redis in an application without one."""

SQL_ALONE = ReadModelHealth("sql", "no-redis")
"""State of a read model in an application without Redis."""


class ReadModelStatus(msgspec.Struct, frozen=True):
    """State of a read model, as ``diptych status`` finds it. None is what is not known, or is not there.

    ``served_by`` is the store that would answer a query now, ``reason`` the short token for an answer from SQL.
    ``lease_left_s`` is the rest of the lease in seconds, ``passes_by`` the process that made the last pass, as
    ``host:pid``. ``lag_changes`` are the committed changes that the generation does not hold (100,000 at most are
    counted), ``lag_seconds`` the age of the oldest. ``memory_bytes`` in Redis is an estimate.
    """

    served_by: Literal["redis", "sql"] | None
    reason: str | None = None
    generation: str | None = None
    lease_left_s: float | None = None
    passes_by: str | None = None
    lag_changes: int | None = None
    lag_seconds: float | None = None
    documents: int | None = None
    set_aside: int | None = None
    memory_bytes: int | None = None


class StoreStatus(msgspec.Struct, frozen=True):
    """State of a store, its address without a password, and what is wrong with it."""

    state: Literal["up", "away", "refused", "off"]
    address: str | None = None
    detail: str | None = None


class Overview(msgspec.Struct, frozen=True):
    """The report of ``diptych status``. ``in_order`` if SQL answers and, with Redis, Redis every read model.

    ``log_head`` is the position of the newest entry of the change log, 0 without any, None while SQL is away.
    """

    in_order: bool
    sql: StoreStatus
    redis: StoreStatus
    log_head: int | None
    read_models: dict[str, ReadModelStatus]
