"""Column types whose values SQLite alone would not give back as stored.

A value that can't be given back exactly is refused with ``Unstorable`` before it is stored, a default's value too.
A value that some other program has put into the file is read as it is.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import math
import sqlite3
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

Processor = Callable[[Any], Any] | None


class Unstorable(ValueError):
    """Raised for a value changed by SQLite. The text states the requirement, without the value."""


def give_back_what_was_stored(dialect: sa.Dialect) -> None:
    """Has an engine's dialect store and load these types as PostgreSQL does."""
    dialect.colspecs = {
        **dialect.colspecs,
        sa.Float: _Float,
        sa.Numeric: _Numeric,
        sa.DateTime: _DateTime,
        sa.TIMESTAMP: _DateTime,
        sa.Time: _Time,
        sa.JSON: _Json,
    }


def check_storable(column_type: sa.types.TypeEngine[Any], value: Any) -> None:
    """Raises ``Unstorable`` if SQLite can't hold this value of this type exactly."""
    if isinstance(value, decimal.Decimal) and isinstance(column_type, sa.Numeric):
        if not isinstance(column_type, sa.Float):
            _check_decimal(value, _places(column_type))
    elif isinstance(column_type, sa.JSON):
        _check_json(value)


class _Float(sa.Float[Any]):
    """Floating-point numbers: SQLite returns 1.0 as 1 from the statement storing 1.0, and stores NaN as null."""

    def bind_processor(self, dialect: sa.Dialect) -> Processor:
        def store(value: Any) -> Any:
            if value is not None and math.isnan(value):
                raise Unstorable("must be a number")
            return None if value is None else float(value)

        return store

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Processor:
        inherited: Processor = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        return inherited or (lambda value: None if value is None else float(value))


class _Numeric(sa.Numeric[Any]):
    """Decimal numbers: SQLite stores the nearest binary number, so only exact values are admitted."""

    def bind_processor(self, dialect: sa.Dialect) -> Processor:
        if not self.asdecimal:
            return _Float().bind_processor(dialect)
        places = _places(self)

        def store(value: Any) -> Any:
            if value is None:
                return None
            _check_decimal(decimal.Decimal(str(value)), places)
            return float(value)

        return store

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Processor:
        if not self.asdecimal:
            return None
        places = _places(self)
        return lambda value: None if value is None else _decimal(value, places)


def _places(column_type: sa.Numeric[Any]) -> int:
    """Returns the number of decimal places of loaded values."""
    return int(column_type._effective_decimal_return_scale)


def _decimal(stored: float, places: int) -> decimal.Decimal:
    return decimal.Decimal(f"{stored:.{places}f}")


def _check_decimal(value: decimal.Decimal, places: int) -> None:
    with contextlib.suppress(OverflowError):
        if value.is_finite() and _decimal(float(value), places) == value:
            return
    raise Unstorable(
        f"must be a number that SQLite can hold exactly (some 15 digits, {places} of them decimal places at most)"
    )


class _DateTime(sqlite.DATETIME):
    """Points in time, stored and given back in UTC: SQLite keeps no time zone."""

    def bind_processor(self, dialect: sa.Dialect) -> Processor:
        store: Any = super().bind_processor(dialect)
        zoned = self.timezone

        def checked(value: Any) -> Any:
            if isinstance(value, datetime.datetime):
                _check_zone(value, zoned)
                value = value.astimezone(datetime.UTC) if zoned else value
            return store(value)

        return checked

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Processor:
        load: Any = super().result_processor(dialect, coltype)
        return lambda value: None if value is None else self._zoned(load(value))

    def _zoned(self, value: datetime.datetime) -> datetime.datetime:
        """Applies an offset stored by some other program, as PostgreSQL does; without a zone, drops the offset."""
        if not self.timezone:
            return value.replace(tzinfo=None)
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


class _Time(sqlite.TIME):
    """Times of day: the offset is kept, while SQLAlchemy alone would drop it."""

    def bind_processor(self, dialect: sa.Dialect) -> Processor:
        store: Any = super().bind_processor(dialect)  # type: ignore[no-untyped-call]
        zoned = self.timezone

        def checked(value: Any) -> Any:
            if not isinstance(value, datetime.time):
                return store(value)
            _check_zone(value, zoned)
            return value.isoformat("microseconds")

        return checked

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Processor:
        load: Processor = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        if not self.timezone:
            return load
        return lambda value: None if value is None else datetime.time.fromisoformat(value)


def _check_zone(value: datetime.datetime | datetime.time, zoned: bool) -> None:
    if (value.tzinfo is not None) != zoned:
        raise Unstorable("must have a time zone" if zoned else "must not have a time zone")


class _Json(sqlite.JSON):
    """JSON: in SQLite's numeric column, a single number as the document is converted to a number of SQLite."""

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        store: Any = super().bind_processor(dialect)  # type: ignore[no-untyped-call]

        def checked(value: Any) -> Any:
            _check_json(value)
            return store(value)

        return checked

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
        load: Any = super().result_processor(dialect, coltype)

        def loaded(value: Any) -> Any:
            return value if isinstance(value, int | float) else load(value)

        return loaded


def _check_json(value: Any) -> None:
    """Raises ``Unstorable`` for a single number rounded by SQLite; numbers inside a list or object are text."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    with contextlib.closing(sqlite3.connect(":memory:")) as sqlite_itself:
        (stored,) = sqlite_itself.execute("SELECT CAST(? AS NUMERIC)", (json.dumps(value),)).fetchone()
    if stored != value:
        raise Unstorable(
            "must not be a single number of more digits than SQLite can hold: put it into a list"
        )
