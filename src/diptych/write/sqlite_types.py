"""Types whose values SQLite would give back otherwise than they were stored."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

Processor = Callable[[Any], Any] | None


def give_back_what_was_stored(dialect: sa.Dialect) -> None:
    """Has an engine's dialect store and load these types like PostgreSQL does."""
    dialect.colspecs = {
        **dialect.colspecs,
        sa.Float: _Float,
        sa.DateTime: _DateTime,
        sa.TIMESTAMP: _DateTime,
    }


class _Float(sa.Float[Any]):
    """SQLite gives 1.0 as 1 where it is returned by the statement that stores it, and as 1.0 ever after."""

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Processor:
        inherited: Processor = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        return inherited or (lambda value: None if value is None else float(value))


class _DateTime(sqlite.DATETIME):
    """SQLite keeps no time zone: a point in time is stored, and given back, in UTC."""

    def bind_processor(self, dialect: sa.Dialect) -> Processor:
        store: Processor = super().bind_processor(dialect)
        if not self.timezone or store is None:
            return store
        return lambda value: store(value if value is None else value.astimezone(datetime.UTC))

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Processor:
        load: Processor = super().result_processor(dialect, coltype)
        if not self.timezone or load is None:
            return load
        return lambda value: None if value is None else load(value).replace(tzinfo=datetime.UTC)
