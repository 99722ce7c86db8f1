"""Messages as bodies, and documents and pages as answers, of Litestar's handlers, by DTOs."""

from __future__ import annotations

from typing import Any, cast

from litestar.dto import AbstractDTO
from litestar.typing import FieldDefinition

from diptych.errors import Fault, InvalidMessage, WiringError
from diptych.ext.litestar.answers import AnswerDTO, ShownDTO, has_answer
from diptych.http.asgi import RequestScope
from diptych.http.bodies import json_value
from diptych.http.invalid_request import InvalidRequest
from diptych.messages.kinds import is_message
from diptych.messages.message import build
from diptych.messages.validation import bounded, object_of


def is_supported(field: FieldDefinition) -> bool:
    """Returns whether a type is a message, a document or a page, or a class with one of the latter in it."""
    return is_message(field.annotation) or has_answer(field.annotation)


def dto_of(field: FieldDefinition) -> type[AbstractDTO[Any]]:
    """Returns the DTO for a parameter `data`, or for what a handler returns."""
    if has_answer(field.annotation):
        return AnswerDTO
    return type("BodyDTO", (MessageDTO,), {"field": field})


class MessageDTO(ShownDTO):
    """Makes the messages of a body by `build`; Litestar would accept what `build` refuses."""

    field: FieldDefinition

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, *_: Any, **__: Any
    ) -> None:
        """Raises `WiringError` for a type that no message is made for. Litestar calls this at the start."""
        if not _is_made(field_definition):
            name = handler_id.partition("::")[0]
            raise WiringError(
                [
                    f"{name}: data has to be a message, a list of messages, or one of the two with None; make it that"
                ]
            )

    def decode_bytes(self, value: bytes) -> Any:
        return self.decode_builtins(json_value(cast(RequestScope, self.asgi_connection.scope), value))

    def decode_builtins(self, value: Any) -> Any:
        try:
            return _made(self.field, value)
        except InvalidMessage as error:
            raise InvalidRequest(error.message, error.faults, ()) from error


def _is_made(field: FieldDefinition) -> bool:
    if field.is_optional or field.origin is list:
        inner = _without_none(field)
        return len(inner) == 1 and _is_made(inner[0])
    return is_message(field.annotation)


def _made(field: FieldDefinition, value: Any) -> Any:
    """Returns the messages of a value of JSON. Raises `InvalidMessage` with all that is wrong with them."""
    if field.is_optional and value is None:
        return None
    if is_message(field.annotation):
        return build(field.annotation, object_of(field.annotation, value))
    (inner,) = _without_none(field)
    if field.is_optional:
        return _made(inner, value)
    if not isinstance(value, list):
        raise InvalidMessage("body", [Fault("", "must be a list")])
    made: list[Any] = []
    faults: list[Fault] = []
    for at, one in enumerate(value):
        try:
            made.append(_made(inner, one))
        except InvalidMessage as error:
            faults += (Fault(f"{at}.{name}".rstrip("."), detail) for name, detail in error.faults)
    if faults:
        raise InvalidMessage("body", bounded(faults))
    return made


def _without_none(field: FieldDefinition) -> list[FieldDefinition]:
    return [one for one in field.inner_types if not one.is_none_type]
