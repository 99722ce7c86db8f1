"""Documents and pages in what Litestar's handlers return."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Optional, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from litestar import MediaType, Request, Response
from litestar.dto import AbstractDTO
from litestar.typing import FieldDefinition

from diptych.errors import WiringError
from diptych.http.answers import answer_found, answer_headers
from diptych.http.asgi import RequestScope
from diptych.http.errors import NotFound
from diptych.read.answers import Document, Page, PageOf

if TYPE_CHECKING:
    from collections.abc import Generator

    from litestar.dto.data_structures import DTOFieldDefinition


def has_answer(kind: Any) -> bool:
    """Returns whether a type is, or has in it, a document or a page; of classes the fields are looked at too."""
    return _is_with_answer(kind) or _class_with_answer(kind, set()) is not None


def refuse_untold(kind: type) -> Any:
    """Raises `TypeError` for the type that a document has with it, by which Litestar has met the document itself."""
    raise TypeError(
        f"{kind.__name__}: no Document and no Page can be sent in an answer whose type does not tell of it: "
        "say so in the annotation of what the handler returns, such as dict[str, Document[…]]"
    )


class ShownDTO(AbstractDTO[Any]):
    """A DTO without a model: it shows types as what is sent, and its subclasses say what is converted."""

    model_type = object

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False

    @classmethod
    def is_supported_model_type_field(cls, field_definition: FieldDefinition) -> bool:
        return has_answer(field_definition.annotation)

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Any:
        shown = FieldDefinition.from_annotation(_shown(field_definition.annotation))
        return schema_creator.for_field_definition(shown)


class AnswerDTO(ShownDTO):
    """Puts the stored bytes in place of documents and pages; one by itself is answered as by `answer_query`."""

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, *_: Any, **__: Any
    ) -> None:
        """Raises `WiringError` for a class with a document in it. Litestar calls this at the start."""
        if (found := _class_with_answer(field_definition.annotation, set())) is not None:
            name = handler_id.partition("::")[0]
            raise WiringError(
                [
                    f"{name}: {found.__name__} has a Document or a Page in it, which can't be sent as it is stored: "
                    "return a dict, a list or a tuple with it, or fill the class with what decode() gives"
                ]
            )

    def data_to_encodable_type(self, data: Any) -> Any:
        if isinstance(data, Response):
            return self._whole(data) if isinstance(data.content, Document | Page) else _with_stored(data)
        if isinstance(data, Document | Page) and isinstance(self.asgi_connection, Request):
            return self._whole(self.asgi_connection.route_handler.resolve_response_class()(data))
        return _stored(data)

    def _whole(self, response: Response[Any]) -> Response[Any]:
        """Returns the response with a document or a page in its final form, as middleware may compress or keep it."""
        scope, found = cast(RequestScope, self.asgi_connection.scope), response.content
        if isinstance(found, Document) and not found:
            raise NotFound(headers=answer_headers(found))
        handler = scope["route_handler"]
        is_read = scope["method"] == "GET" and (response.status_code or handler.status_code) == 200
        answer = answer_found(scope, found, [], is_conditional=is_read)
        response.content, response.media_type = answer.body, MediaType.JSON
        if answer.status == 304:
            response.content, response.status_code = None, 304
        said = {name.lower() for name in response.headers}
        said.update(header.name.lower() for header in handler.resolve_response_headers())
        for name, value in answer.text_headers().items():
            if name not in said and not name.startswith("content-"):
                response.headers[name] = value
        return response


def _with_stored(response: Response[Any]) -> Response[Any]:
    response.content = _stored(response.content)
    return response


def _stored(data: Any) -> Any:
    """Returns a value with stored bytes in place of documents and pages, as the encoder takes them."""
    match data:
        case Document() | Page():
            return None if data.body is None else msgspec.Raw(data.body)
        case Mapping():
            return {key: _stored(value) for key, value in data.items()}
        case list() | tuple() | set() | frozenset():
            return [_stored(one) for one in data]
        case _:
            return data


def _is_answer(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return origin is Document or origin is Page  # what is within Annotated may be equal to anything


def _is_with_answer(kind: Any) -> bool:
    return _is_answer(kind) or any(map(_is_with_answer, get_args(kind)))


def _class_with_answer(kind: Any, seen: set[type]) -> type | None:
    """Returns the class that has a document or a page in a field, within a type; None without such a class."""
    origin, parts = get_origin(kind) or kind, [*get_args(kind)]
    if isinstance(origin, type):
        if _is_answer(origin) or origin in seen:
            return None
        hints = _hints(origin)
        if hints and any(map(_is_with_answer, [*hints, *parts])) and not issubclass(origin, Response):
            return origin
        seen.add(origin)
        parts += hints
    found = (_class_with_answer(one, seen) for one in parts)
    return next((one for one in found if one is not None), None)


def _hints(kind: type) -> list[Any]:
    """Returns the types of the fields of a class."""
    if (fields := getattr(kind, "__pydantic_fields__", None)) is not None:
        return [field.annotation for field in fields.values()]
    try:
        return [*get_type_hints(kind).values()]
    except Exception:  # of annotations that are for type checkers alone
        return []


def _shown(kind: Any, *, is_within: bool = False) -> Any:
    """Returns the type of what is sent: that of the stored bytes. A row that is not there is null within a value."""
    origin, args = get_origin(kind) or kind, get_args(kind)
    if _is_answer(kind):
        (document,) = args or (dict[str, Any],)
        if origin is Page:
            return PageOf[document]  # type: ignore[valid-type]
        return Optional[document] if is_within else document  # noqa: UP045 - of a value
    if not args:
        return kind
    if isinstance(origin, type) and issubclass(origin, Response):
        return _shown(args[0])
    if origin in (Union, UnionType):
        return Union[tuple(_shown(one, is_within=is_within) for one in args)]  # noqa: UP007 - of values
    return origin[tuple(_shown(one, is_within=True) for one in args)]
