"""Commands, queries and events: frozen structs whose fields are all checked.

A message is checked at its construction in code and when built from outside data, by the same rules: the annotations
(``msgspec.Meta`` bounds included) and ``Rule`` functions inside ``Annotated``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, dataclass_transform

import msgspec

from diptych.errors import InvalidMessage
from diptych.messages.mixins import CommandOf, QueryOf
from diptych.messages.models import model_from
from diptych.messages.plans import Rule, is_model
from diptych.messages.validation import bounded, check_fields, checked, object_of
from diptych.schemas import DataclassFields, struct_schema

__all__ = ["Command", "Event", "Message", "Query", "Rule", "build"]

R = TypeVar("R", covariant=True)
S = TypeVar("S", bound=msgspec.Struct | CommandOf[Any] | QueryOf[Any])


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True):
    """The base of all messages. The construction of a faulty message raises ``InvalidMessage``.

    >>> from diptych import InvalidMessage, Message
    >>> class Greeting(Message, frozen=True):
    ...     name: str
    >>> try:
    ...     Greeting(name=5)
    ... except InvalidMessage as error:
    ...     print(error)
    Greeting: name must be text
    """

    # FastAPI takes a dataclass for the body of a request, and any other class for a parameter of the query string.
    __dataclass_fields__: ClassVar[Any] = DataclassFields()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return struct_schema(cls, partial(_from_outside, cls))

    def __post_init__(self) -> None:
        canonical, faults = check_fields(self)
        for name, value in canonical.items():
            msgspec.structs.force_setattr(self, name, value)
        if faults:
            raise InvalidMessage(type(self).__name__, bounded(faults))


class Command(Message, Generic[R], frozen=True):
    """The base of commands, which ask for a change. ``R`` is the type of the result of ``execute``.

    >>> from diptych import Command
    >>> class AddBook(Command[int], frozen=True):
    ...     title: str
    >>> AddBook(title="Emma")
    AddBook(title='Emma')
    """


class Query(Message, Generic[R], frozen=True):
    """The base of queries, which ask for an answer and change nothing. ``R`` is the type of the result of ``ask``.

    >>> from diptych import Document, Query
    >>> class GetBook(Query[Document], frozen=True):
    ...     title: str
    >>> GetBook(title="Emma")
    GetBook(title='Emma')
    """


class Event(Message, frozen=True):
    """The base of events, which tell of a change in the past. Nothing dispatches events yet: they have no handlers.

    >>> from diptych import Event
    >>> class BookAdded(Event, frozen=True):
    ...     title: str
    >>> BookAdded(title="Emma")
    BookAdded(title='Emma')
    """


def build(message_type: type[S], fields: Mapping[str, Any], *, text: bool | Collection[str] = False) -> S:
    """Makes a message, or any struct, from outside data, such as decoded JSON, and reports all faulty fields at once.

    With ``text`` the values are strings of a form or a query string and are converted to the fields' types:
    numbers are written as in JSON, truth values ``true``, ``false``, ``1`` or ``0``, and only None is null. ``text``
    may also name the fields that are strings, where the others are as JSON has them.
    Raises ``InvalidMessage`` whose faults name unknown, missing and wrong fields; a field of a nested struct is
    named by its path, ``changes.title``, an item of a list by its number, ``tags.0``. Of unknown fields, which
    the sender can make up without end, the first 20 are named and the rest counted, in a fault without a name.

    >>> from diptych import Command, InvalidMessage, build
    >>> class AddBook(Command[int], frozen=True):
    ...     title: str
    ...     year: int
    >>> build(AddBook, {"title": "Emma", "year": "1815"}, text=True)
    AddBook(title='Emma', year=1815)
    >>> try:
    ...     build(AddBook, {"year": "x", "pages": 9})
    ... except InvalidMessage as error:
    ...     print([(fault.field, fault.detail) for fault in error.faults])
    [('pages', 'is not a known field'), ('title', 'is missing'), ('year', 'must be a whole number')]
    """
    if is_model(message_type):
        made: S = model_from(message_type, fields, is_text=bool(text))
        return made
    return checked(message_type, fields, text=text)


def _from_outside(message_type: type[Message], value: Any) -> Message:
    return build(message_type, object_of(message_type, value))
