"""``CommandOf`` and ``QueryOf``: they make a pydantic model, or a frozen dataclass, a message.

A msgspec struct and a model of pydantic can't have a common subclass, so these are plain classes without fields.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from diptych.errors import InvalidMessage
from diptych.messages.plans import is_model
from diptych.messages.validation import bounded, check_fields, checked, object_of
from diptych.schemas import struct_schema

R = TypeVar("R", covariant=True)


class _MessageOf(Generic[R]):
    __slots__ = ()

    # pydantic takes the configuration of a model from its bases. A message is frozen: its handler may be run again,
    # and a hot query is remembered for the next request, both with the message as it was.
    model_config: ClassVar[Any] = {"frozen": True, "extra": "forbid"}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        if is_model(cls):
            return handler(source)
        return struct_schema(cls, lambda value: checked(cls, object_of(cls, value), text=False))

    def __post_init__(self) -> None:
        """Checks the fields of a dataclass, as those of a struct. Raises ``InvalidMessage``."""
        canonical, faults = check_fields(self)
        for name, value in canonical.items():
            object.__setattr__(self, name, value)
        if faults:
            raise InvalidMessage(type(self).__name__, bounded(faults))


class CommandOf(_MessageOf[R]):
    """Makes a pydantic model, or a frozen dataclass, a command. ``R`` is the type of the result of ``execute``.

    Models are frozen and refuse unknown fields, unless their own ``model_config`` says otherwise about the latter.
    The fields of dataclasses are checked like those of a ``Command``.

    >>> from dataclasses import dataclass
    >>> from diptych import CommandOf, InvalidMessage, build
    >>> @dataclass(frozen=True)
    ... class AddBook(CommandOf[int]):
    ...     title: str
    >>> build(AddBook, {"title": "Emma"})
    AddBook(title='Emma')
    >>> try:
    ...     build(AddBook, {"title": 5, "pages": 9})
    ... except InvalidMessage as error:
    ...     print([(fault.field, fault.detail) for fault in error.faults])
    [('pages', 'is not a known field'), ('title', 'must be text')]
    """

    __slots__ = ()


class QueryOf(_MessageOf[R]):
    """Makes a pydantic model, or a frozen dataclass, a query. ``R`` is the type of the result of ``ask``.

    >>> from dataclasses import dataclass
    >>> from diptych import Document, QueryOf
    >>> @dataclass(frozen=True)
    ... class GetBook(QueryOf[Document]):
    ...     title: str
    >>> GetBook("Emma")
    GetBook(title='Emma')
    """

    __slots__ = ()
