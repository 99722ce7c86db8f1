"""What ``Diptych.health`` tells: which stores are there, and which of them answers queries."""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec


class SqlHealth(msgspec.Struct, frozen=True):
    """Whether SQL answers, and which database it is."""

    state: Literal["up", "away"]
    engine: str


class RedisHealth(msgspec.Struct, frozen=True):
    """Whether Redis can be used; ``detail`` says why not. ``off``: none is configured."""

    state: Literal["up", "away", "refused", "off"]
    detail: str | None = None


class SetAsideRow(msgspec.Struct, frozen=True):
    """A row that does not fit its document: its table, its key in the read model, and the field."""

    table: str
    key: str
    field: str


class ReadModelHealth(msgspec.Struct, frozen=True):
    """Which store answers queries of a read model, since when, why if it is SQL (a short token).

    ``progress`` tells how far a rebuild of this process is, "12000 of 100000 documents, about 4 s left", and
    ``time_left_s`` the same as a number, None before it can be told. ``set_aside`` is how many rows do not fit their
    documents, None while SQL answers, which does not count them; ``set_aside_rows`` names ten of them.
    """

    served_by: Literal["redis", "sql"]
    detail: str | None = None
    since: datetime.datetime | None = None
    progress: str | None = None
    time_left_s: float | None = None
    set_aside: int | None = None
    set_aside_rows: tuple[SetAsideRow, ...] = ()


class Health(msgspec.Struct, frozen=True):
    """``status`` is "ok" as long as SQL answers: without Redis queries are slower, not wrong."""

    status: Literal["ok", "unavailable"]
    sql: SqlHealth
    redis: RedisHealth
    read_models: dict[str, ReadModelHealth]
