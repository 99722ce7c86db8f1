"""Commands, queries and events: frozen structs whose fields are checked, every one of them.

A message is checked when it is constructed in code and when it is built from outside data, by the same rules:
the annotations (``msgspec.Meta`` bounds included) and ``Rule`` functions inside ``Annotated``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, dataclass_transform

import msgspec

from diptych.errors import InvalidMessage
from diptych.messages.validation import Rule, bounded, check_fields, check_mapping, fits

__all__ = ["Command", "Event", "Message", "Query", "Rule", "build"]

R = TypeVar("R", covariant=True)
S = TypeVar("S", bound=msgspec.Struct)


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True):
    """The base of what is sent through the bus. Constructing a faulty one raises ``InvalidMessage``."""

    def __post_init__(self) -> None:
        canonical, faults = check_fields(self)
        for name, value in canonical.items():
            msgspec.structs.force_setattr(self, name, value)
        if faults:
            raise InvalidMessage(type(self).__name__, bounded(faults))


class Command(Message, Generic[R], frozen=True):
    """Asks for a change. ``R`` is what ``await app.execute(command)`` returns."""


class Query(Message, Generic[R], frozen=True):
    """Asks for an answer and changes nothing. ``R`` is what ``await app.ask(query)`` returns."""


class Event(Message, frozen=True):
    """Tells of a change that has happened."""


def build(message_type: type[S], fields: Mapping[str, Any], *, text: bool = False) -> S:
    """Makes a struct from outside data, such as decoded JSON, and reports every faulty field at once.

    With ``text`` the values are strings of a form or a query string and are converted to the fields' types:
    numbers are written as in JSON, truth values ``true``, ``false``, ``1`` or ``0``, and only None is null.
    Raises ``InvalidMessage`` whose faults name unknown, missing and wrong fields; a field of a nested struct is
    named by its path, ``changes.title``, an item of a list by its number, ``tags.0``. Of unknown fields, which
    the sender can make up without end, the first 20 are named and the rest counted, in a fault without a name.
    """
    checks_itself = getattr(message_type, "__post_init__", None) is Message.__post_init__
    if checks_itself and not text and fits(message_type, fields):
        return message_type(**fields)  # by the same rules
    values, faults = check_mapping(message_type, fields, text=text)
    if faults:
        raise InvalidMessage(message_type.__name__, bounded(faults))
    return message_type(**values)
