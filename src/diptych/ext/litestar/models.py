"""Messages as bodies, and documents and pages as answers, of Litestar's handlers, by DTOs."""

from __future__ import annotations

from typing import Any, cast

from litestar.dto import AbstractDTO
from litestar.enums import RequestEncodingType
from litestar.typing import FieldDefinition
from litestar.utils.scope.state import ScopeState

from diptych.errors import Fault, InvalidMessage, PlacedFault, WiringError, steps_of
from diptych.ext.litestar.answers import AnswerDTO, ShownDTO, has_answer
from diptych.http.asgi import RequestScope
from diptych.http.bodies import form_values, json_value
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
        """Raises `WiringError` for a type or an encoding that no message is made of. Litestar calls this."""
        name = handler_id.partition("::")[0]
        encoding = _encoding(field_definition)
        if not _is_made(field_definition):
            remedy = "data has to be a message, a list of messages, or one of the two with None; make it that"
        elif encoding in (RequestEncodingType.MULTI_PART, RequestEncodingType.MESSAGEPACK):
            remedy = (
                f"no message is made of {encoding.value}: have the form sent as "
                f"{RequestEncodingType.URL_ENCODED.value} (URLEncodedBody, or Endpoint(form=True)), or make the "
                "message in the handler by build"
            )
        elif encoding == RequestEncodingType.URL_ENCODED and _is_of_lists(field_definition):
            remedy = "a form has the fields of one message: make data that message, or have JSON sent"
        else:
            return
        raise WiringError([f"{name}: {remedy}"])

    def decode_bytes(self, value: bytes) -> Any:
        scope = cast(RequestScope, self.asgi_connection.scope)
        return self._decoded(json_value(scope, value), text=False)

    def decode_builtins(self, value: Any) -> Any:
        """Returns the message of a form. Litestar's own reading of it, ``value``, takes what is malformed."""
        body = ScopeState.from_scope(self.asgi_connection.scope).body
        scope = cast(RequestScope, self.asgi_connection.scope)
        return self._decoded(form_values(scope, cast(bytes, body)), text=True)

    def _decoded(self, value: Any, *, text: bool) -> Any:
        try:
            return _made(self.field, value, text=text)
        except InvalidMessage as error:
            raise InvalidRequest(error.message, error.faults, ()) from error


def _encoding(field: FieldDefinition) -> Any:
    return getattr(field.kwarg_definition, "media_type", None)


def _is_of_lists(field: FieldDefinition) -> bool:
    return field.origin is list or any(map(_is_of_lists, field.inner_types if field.is_optional else ()))


def _is_made(field: FieldDefinition) -> bool:
    if field.is_optional or field.origin is list:
        inner = _without_none(field)
        return len(inner) == 1 and _is_made(inner[0])
    return is_message(field.annotation)


def _made(field: FieldDefinition, value: Any, *, text: bool = False) -> Any:
    """Returns the messages of a value of JSON, or of a form (``text``). Raises `InvalidMessage` with all faults."""
    if field.is_optional and value is None:
        return None
    if is_message(field.annotation):
        return build(field.annotation, object_of(field.annotation, value), text=text)
    (inner,) = _without_none(field)
    if field.is_optional:
        return _made(inner, value, text=text)
    if not isinstance(value, list):
        raise InvalidMessage("body", [Fault("", "must be a list")])
    made: list[Any] = []
    faults: list[Fault] = []
    for at, one in enumerate(value):
        try:
            made.append(_made(inner, one))
        except InvalidMessage as error:
            faults += (PlacedFault((str(at), *steps_of(one)), one.detail) for one in error.faults)
    if faults:
        raise InvalidMessage("body", bounded(faults))
    return made


def _without_none(field: FieldDefinition) -> list[FieldDefinition]:
    return [one for one in field.inner_types if not one.is_none_type]
