"""Types of columns, conversion of values to these types, and refusal of values that don't fit.

Every database has to judge alike: a value that SQLite would swallow and PostgreSQL refuse, or the reverse, or that
would fail deep inside a driver, is refused here.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import json
import math
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from diptych.messages.validation import worded
from diptych.sql.sqlite.types import check_storable

KEY_TYPES = (str, int, datetime.date, uuid.UUID)
"""Types of columns by which the log names rows, whoever has written the entry: those of keys and of joins."""

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


def is_floating(column: Any) -> bool:
    """Returns whether a mapped attribute is of a floating-point type, even one that is loaded as `Decimal`."""
    return isinstance(column.type, sa.Float)


def is_logged(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Returns whether a value that went through JSON equals the value of a select, on every database.

    Not so for types of an application or of a single database; for times of day with a zone, whose zones drivers give
    in several classes; for inexact numbers in a ``NUMERIC`` column, where SQLite makes 1 of 1.0; and for enums whose
    members have values other than all text, or all whole numbers.
    """
    if not isinstance(column_type, _LOGGED) or not is_library_type(column_type):
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
        members = column_type.enum_class
        return issubclass(members, enum.Enum) and {type(one.value) for one in members} in ({str}, {int})
    return all(_is_same(column_type, dialect) for dialect in _DIALECTS)


def _is_same(column_type: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> bool:
    """Returns whether the column's type on this database (``with_variant``) has the same values."""
    there = column_type.dialect_impl(dialect)
    return is_library_type(there) and python_type_of(there) == python_type_of(column_type)


_NOT_UNICODE = "must be well-formed Unicode, without lone surrogates"


class ColumnValues:
    """The values of a column, in a database of this name. Each misfit is a ``ValueError("must …")``."""

    def __init__(self, column: sa.Column[Any], database: str = "") -> None:
        self.python_type = python_type_of(column.type)
        self.logged = is_logged(column.type)
        self._column = column
        self._is_sqlite = database == "sqlite"
        self._type = with_zone(self.python_type, column.type)
        self._bounded_type = bounded(self._type, column.type)
        # SQLite keeps what any other program writes: longer texts, and whole numbers of 64 bits in any column.
        of_others = {str: self._type, int: bounded(int, sa.BigInteger())}
        self._found_type = self._bounded_type
        if database == "sqlite" and self.python_type in of_others:
            self._found_type = of_others[self.python_type]
        # A whole number may be too long to be written at all, and has to be checked; a UUID as text has many forms.
        self.has_one_form = self.python_type is not int and not is_uuid_text(column.type)

    @functools.cached_property
    def is_required(self) -> bool:
        """True if a new row must be given a value, because there is no other source."""
        column = self._column
        given_elsewhere = (column.default, column.server_default, column.computed, column.identity)
        return (
            not column.nullable
            and all(source is None for source in given_elsewhere)
            and column.table.autoincrement_column is not column
        )

    def convert(self, value: Any) -> Any:
        """Returns the value to be stored, in the column's type."""
        if self._column.computed is not None:
            raise ValueError("is computed by the database")
        return self._fitting(value, self._bounded_type)

    def _fitting(self, value: Any, target: Any) -> Any:
        _refuse_expression(value)
        if value is None:
            if not self._column.nullable and not self._column.primary_key:
                raise ValueError("must not be null")
            return None
        if isinstance(self._column.type, sa.JSON):
            fitting = _check_json(value)
        else:
            fitting = self._check(self._converted(value, target))
        if self._is_sqlite:
            check_storable(self._column.type, fitting)
        return fitting

    def _converted(self, value: Any, target: Any) -> Any:
        if is_uuid_text(self._column.type):
            # ★ SQLite compares its letters, PostgreSQL the number: in a single form the text is the same everywhere.
            return str(_convert(value, uuid.UUID))
        return _convert(value, target)

    def convert_lookup(self, value: Any) -> Any:
        """Returns a value to look for, in the column's type; the column need not be able to hold the value."""
        _refuse_expression(value)
        if isinstance(self._column.type, sa.JSON):
            raise ValueError("can't be looked up by: it holds JSON")
        return None if value is None else self._converted(value, self._type)

    def fit(self, value: Any) -> Any:
        """Returns a value to look for, in the form that the column holds. Raises ``ValueError`` if it can't.

        PostgreSQL would fail on such a look-up.
        """
        if value is None:
            raise ValueError("must not be null")
        return self._fitting(value, self._found_type)

    def holds(self, value: Any) -> bool:
        """Returns whether the column can hold a value, whoever has written it."""
        try:
            self._fitting(value, self._found_type)
        except ValueError:
            return False
        return True

    def from_log(self, value: Any) -> Any:
        """Returns the column's value for a value of the change log's JSON. To be called only if ``logged``.

        Raises ``ValueError`` for a value that the column can't have: a different version of the application wrote it.
        """
        if value is None or isinstance(self._column.type, sa.JSON):
            return value
        if is_uuid_text(self._column.type):
            return _with_hyphens(msgspec.convert(value, str))
        if self.python_type is float and isinstance(value, str):
            return float(value)  # an infinity or NaN, which JSON can't express
        return msgspec.convert(value, self.python_type)

    def _check(self, value: Any) -> Any:
        if isinstance(value, str):
            _check_unicode(value)
            if "\x00" in value:
                raise ValueError("must not contain the character U+0000")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError("must be a finite number")
            if not isinstance(self._column.type, sa.Float):
                # More digits would be rounded by the database.
                _check_digits(decimal.Decimal(repr(value)), self._column.type)
        elif isinstance(value, decimal.Decimal):
            _check_digits(value, self._column.type)
        elif isinstance(value, datetime.datetime) and value.tzinfo is not None:
            try:
                value.astimezone(datetime.UTC)
            except OverflowError:
                raise ValueError("must be in the years 1 to 9999 of UTC") from None
        return value


def _with_hyphens(text: str) -> str:
    """Returns a UUID as a select gives it. A trigger tells what the table holds: on SQLite the digits alone.

    Other texts stay, those with capital letters among them: SQLite does not find their rows by the usual form.
    """
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        return text
    return str(uuid.UUID(text))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(_NOT_UNICODE) from None


def _convert(value: Any, target: Any) -> Any:
    # msgspec takes a member for its value, and refuses one whose value is a number.
    if target is None or (isinstance(value, enum.Enum) and type(value) is target):
        return value
    try:
        return msgspec.convert(value, target, strict=False)
    except UnicodeEncodeError:
        raise ValueError(_NOT_UNICODE) from None
    except msgspec.ValidationError as error:
        raise ValueError(worded(error)) from None


def _refuse_expression(value: Any) -> None:
    # Mapped attributes (Book.title) are expressions too, and would name a column of the statement.
    if isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__"):
        raise ValueError("must be a value, not an SQL expression")


def _check_json(value: Any) -> Any:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be what JSON can express") from None
    _check_unicode(text)
    if "\\u0000" in text:
        raise ValueError("must not contain the character U+0000")
    return value


def _check_digits(value: decimal.Decimal, column_type: sa.types.TypeEngine[Any]) -> None:
    if not value.is_finite():
        raise ValueError("must be a finite number")
    precision, scale = getattr(column_type, "precision", None), getattr(column_type, "scale", None) or 0
    if precision is None:
        return
    # Not by normalize(), which raises for exponents that a text may well have.
    _, digits, exponent = value.as_tuple()
    zeros = len(digits) - len(bytes(digits).rstrip(b"\0"))
    if value and isinstance(exponent, int) and -(exponent + zeros) > scale:
        raise ValueError(f"must have at most {scale} decimal places")
    if value and value.adjusted() >= precision - scale:
        raise ValueError(f"must have at most {precision - scale} digits before the decimal point")
