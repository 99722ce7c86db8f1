"""Facts about column types: their types of Python, their bounds, and whether JSON gives their values back exactly."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

_INTEGER_BITS = {sa.SmallInteger: 16, sa.BigInteger: 64, sa.Integer: 32}

_LOGGED = (
    *(sa.String, sa.Integer, sa.Float, sa.Numeric, sa.Boolean, sa.Uuid, sa.LargeBinary, sa.JSON),
    *(sa.DateTime, sa.Date, sa.Time, sa.Interval),
)
_DIALECTS: tuple[sa.Dialect, ...] = (sqlite.dialect(), postgresql.dialect())  # type: ignore[no-untyped-call]


def python_type_of(column_type: sa.types.TypeEngine[Any]) -> Any:
    """Returns the type of the column's values; None if only the column's type itself knows them."""
    if isinstance(column_type, sa.Interval):
        return datetime.timedelta
    if isinstance(column_type, sa.types.TypeDecorator | sa.JSON):
        return None
    try:
        return column_type.python_type
    except NotImplementedError:
        return None


def with_zone(python_type: Any, column_type: sa.types.TypeEngine[Any]) -> Any:
    """Returns the type, which for points in time requires a zone where the column keeps zones, and forbids one else.

    Otherwise databases would guess the zone.
    """
    if python_type in (datetime.datetime, datetime.time):
        return Annotated[python_type, msgspec.Meta(tz=bool(getattr(column_type, "timezone", False)))]
    return python_type


def bounded(python_type: Any, column_type: sa.types.TypeEngine[Any]) -> Any:
    """Returns the type with the bounds of the column, which SQLite would not enforce."""
    if python_type is str:
        if isinstance(column_type, sa.Enum):
            return Literal[tuple(column_type.enums)]
        length = getattr(column_type, "length", None)
        return Annotated[str, msgspec.Meta(max_length=length)] if length else str
    if python_type is int:
        bits = next((b for kind, b in _INTEGER_BITS.items() if isinstance(column_type, kind)), 64)
        return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]
    return python_type


def is_uuid_text(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Returns whether the values of the column are UUIDs as text."""
    return isinstance(column_type, sa.Uuid) and not column_type.as_uuid


def is_library_type(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Returns whether the type is SQLAlchemy's or ours: an application's type could do anything to its values."""
    return type(column_type).__module__.partition(".")[0] in ("sqlalchemy", "diptych")


def stored_texts(column_type: sa.Enum) -> dict[Any, str]:
    """Returns the stored text of each value of an enum: its name, unless ``values_callable`` gives a text."""
    values: Iterable[Any] = column_type.enum_class or column_type.enums
    store: Any = column_type.bind_processor(_DIALECTS[0])  # type: ignore[no-untyped-call]
    return {value: store(value) for value in values}


def is_logged(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Returns whether a value that went through JSON equals the value of a select, on every database.

    Not so for types of an application or of a single database; for times of day with a zone, whose zones drivers give
    in several classes; and for inexact numbers in a ``NUMERIC`` column, where SQLite makes 1 of 1.0.
    """
    if not isinstance(column_type, _LOGGED):
        return False
    if isinstance(column_type, sa.Time) and column_type.timezone:
        return False
    if (
        isinstance(column_type, sa.Numeric)
        and not isinstance(column_type, sa.Float)
        and not column_type.asdecimal
    ):
        return False
    if isinstance(column_type, sa.Enum) and column_type.enum_class is not None:
        return _is_plain_enum(column_type)
    return is_library_type(column_type) and all(_is_same(column_type, dialect) for dialect in _DIALECTS)


def _is_plain_enum(column_type: sa.Enum) -> bool:
    """Returns whether the members of the enum have distinct values, all text or all whole numbers."""
    members = column_type.enum_class
    if members is None or not issubclass(members, enum.Enum) or not is_library_type(column_type):
        return False
    kinds = {type(member.value) for member in members}
    return kinds in ({str}, {int})


def _is_same(column_type: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> bool:
    """Returns whether the column's type on this database (``with_variant``) has the same values."""
    there = column_type.dialect_impl(dialect)
    return is_library_type(there) and python_type_of(there) == python_type_of(column_type)
