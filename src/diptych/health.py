"""Health: the answer of ``Diptych.health``, part by part."""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec


class SqlHealth(msgspec.Struct, frozen=True):
    """State of the SQL database, and its kind: "sqlite" or "postgresql"."""

    state: Literal["up", "away"]
    engine: str


class RedisHealth(msgspec.Struct, frozen=True):
    """State of Redis, ``off`` if none is configured. ``detail`` says why Redis is not used."""

    state: Literal["up", "away", "refused", "off"]
    detail: str | None = None


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


NO_REDIS = RedisHealth("off", "REDIS_URL is not set")
"""State of Redis in an application without one."""

SQL_ALONE = ReadModelHealth("sql", "no-redis")
"""State of a read model in an application without Redis."""
