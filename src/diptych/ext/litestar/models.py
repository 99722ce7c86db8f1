"""Messages as bodies, and documents and pages as answers, of Litestar's handlers, by DTOs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

from litestar.dto import AbstractDTO
from litestar.typing import FieldDefinition

from diptych.errors import Fault, InvalidMessage, WiringError
from diptych.http.asgi import RequestScope
from diptych.http.bodies import json_value
from diptych.http.invalid_request import InvalidRequest
from diptych.messages.kinds import is_message
from diptych.messages.message import build
from diptych.messages.validation import bounded, object_of
from diptych.read.answers import Document, Page, PageOf
from diptych.schemas import ANSWERS, Answers

if TYPE_CHECKING:
    from collections.abc import Generator

    from litestar.dto.data_structures import DTOFieldDefinition


def is_supported(field: FieldDefinition) -> bool:
    """Returns whether a type is a message, a document or a page."""
    return is_message(field.annotation) or is_answer(field)


def is_answer(field: FieldDefinition) -> bool:
    """Returns whether a type is a document or a page, of whatever."""
    return (field.origin or field.annotation) in (Document, Page)


class _DTO(AbstractDTO[Any]):
    model_type = object

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False

    @classmethod
    def is_supported_model_type_field(cls, field_definition: FieldDefinition) -> bool:
        return field_definition.match_predicate_recursively(is_answer)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Makes nothing: there is no model that Litestar would convert to."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Any:
        shown = FieldDefinition.from_annotation(_shown(field_definition))
        return schema_creator.for_field_definition(shown)


class MessageDTO(_DTO):
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


class AnswerDTO(_DTO):
    """Puts a text in place of a document or a page, until the stored bytes are sent."""

    def data_to_encodable_type(self, data: Any) -> Any:
        answers: Answers = self.asgi_connection.scope[ANSWERS]  # type: ignore[literal-required]
        if isinstance(data, Document | Page):
            return b'"%s"' % answers.stand_in(data).encode()
        if isinstance(data, list | tuple):
            return [answers.stand_in(one) if isinstance(one, Document | Page) else one for one in data]
        return data


def dto_of(field: FieldDefinition) -> type[AbstractDTO[Any]]:
    """Returns the DTO for a parameter `data`, or for what a handler returns."""
    if field.match_predicate_recursively(is_answer):
        return AnswerDTO
    return type("BodyDTO", (MessageDTO,), {"field": field})


def _shown(field: FieldDefinition) -> Any:
    """Returns the type of what is sent: that of the stored bytes."""
    if not is_answer(field):
        inner = [_shown(one) for one in field.inner_types]
        return list[tuple(inner)] if inner else field.annotation  # type: ignore[misc]
    (document,) = get_args(field.annotation) or (dict[str, Any],)
    return PageOf[document] if field.origin is Page else document  # type: ignore[valid-type]
