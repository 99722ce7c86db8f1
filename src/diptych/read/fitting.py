"""The check of a document's field against its column.

msgspec itself is asked, with sample values of the column: so nothing is refused that would be served, and a field
that would fail for every row is known before the first row.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import types
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import msgspec.inspect

from diptych.sql.description import Column

_MISMATCH = ", got `"
"""Part of msgspec's error for a value of another type; the error of a broken bound lacks it."""

_SAMPLES: dict[type, Sequence[Any]] = {
    bool: (True, False),
    datetime.date: (datetime.date(2024, 12, 31),),
    datetime.timedelta: (datetime.timedelta(hours=1),),
    uuid.UUID: (uuid.UUID(int=0),),
}
"""Sample values of types of which a field takes all values or none."""

_ONE_OF_MANY: dict[type, Sequence[Any]] = {
    int: (1,),
    float: (1.0,),
    str: ("",),
    bytes: (b"",),
    decimal.Decimal: (decimal.Decimal(1),),
    list: ([],),
    dict: ({},),
}
"""Sample values of types of which a field may take some values and refuse others."""


def can_fill(column: Column, field_type: Any) -> bool:
    """Says if any value of the column, null aside, can be in a document's field of this type and go out as JSON.

    Values beyond a bound of the field (``max_length``, say) are a matter of each row, and so are all values of a
    column of an unknown type.
    """
    if column.texts is None and column.type in _ONE_OF_MANY:
        return any(_fits(sample, field_type, one_of_many=True) for sample in _ONE_OF_MANY[column.type])
    samples = _samples_of(column)
    return not samples or any(_fits(sample, field_type) for sample in samples)


def in_json(value: Any) -> Any:
    """Returns a value with whole numbers in the place of members of enums that stand for them.

    msgspec takes a member for its text, and refuses one that stands for a number.
    """
    if isinstance(value, list):
        return [in_json(each) for each in value]
    if isinstance(value, dict):
        return {name: in_json(each) for name, each in value.items()}
    stands_for_it = isinstance(value, enum.Enum) and type(value.value) is int and not isinstance(value, int)
    return value.value if stands_for_it else value


def takes_null(field_type: Any) -> bool:
    """Says if a document's field of this type may be null."""
    try:
        msgspec.convert(None, field_type)
    except msgspec.ValidationError:
        return False
    return True


def takes(sample: Any, field_type: Any) -> bool:
    """Says if a document's field of this type may have the value, or another one of its type."""
    return _fits(sample, field_type, one_of_many=True)


def item_of(field_type: Any) -> Any:
    """Returns the type of the items of a list or tuple, or of one beside None; ``Any`` where it is not declared."""
    if get_origin(field_type) is Annotated:
        return item_of(get_args(field_type)[0])
    if get_origin(field_type) in (Union, types.UnionType):
        [*listed] = (each for each in get_args(field_type) if each is not type(None))
        return item_of(listed[0]) if len(listed) == 1 else Any
    items = [each for each in get_args(field_type) if each is not ...]
    return items[0] if len(items) == 1 else Any


def has_set(field_type: Any) -> bool:
    """Says if there is a set anywhere in values of this type."""
    waiting, seen = [msgspec.inspect.type_info(field_type)], set[type]()
    while waiting:
        info: Any = waiting.pop()
        if isinstance(info, msgspec.inspect.SetType | msgspec.inspect.FrozenSetType):
            return True
        kind = getattr(info, "cls", None)
        if kind in seen:
            continue
        if kind is not None:
            seen.add(kind)
        for name in ("type", "types", "item_type", "item_types", "key_type", "value_type", "fields"):
            inner = getattr(info, name, ())
            waiting += inner if isinstance(inner, tuple) else [inner]
    return False


def _samples_of(column: Column) -> Sequence[Any]:
    zone = datetime.UTC if column.zoned else None
    if column.texts is not None:
        return list(column.texts)
    if column.type is datetime.datetime:
        return (datetime.datetime(2024, 12, 31, tzinfo=zone),)
    if column.type is datetime.time:
        return (datetime.time(tzinfo=zone),)
    return () if column.type is None else _SAMPLES.get(column.type, ())


def _fits(sample: Any, field_type: Any, *, one_of_many: bool = False) -> bool:
    try:
        msgspec.json.encode(msgspec.convert(in_json(sample), field_type))
    except msgspec.ValidationError as error:
        return one_of_many and _MISMATCH not in str(error)
    except TypeError:
        return False  # JSON can't express it
    return True
