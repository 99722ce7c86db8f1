"""`install` for FastAPI, and endpoints as a router."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi.encoders import ENCODERS_BY_TYPE, encoders_by_class_tuples
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from pydantic import PlainSerializer, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from diptych.app import Diptych
from diptych.ext.fastapi.errors import answer_invalid
from diptych.ext.fastapi.forms import faults_of_forms
from diptych.ext.fastapi.openapi import completed
from diptych.ext.starlette.endpoints import function_of, path_of
from diptych.ext.starlette.install import put_into
from diptych.ext.starlette.problems import answer_error
from diptych.http.asgi import ASGIApp
from diptych.http.endpoints.compiled import Endpoints
from diptych.http.endpoints.endpoint import Endpoint
from diptych.messages.kinds import AnyQuery
from diptych.messages.message import Message
from diptych.read.answers import Document, Page
from diptych.schemas import told


def _told_struct(struct: msgspec.Struct) -> Any:
    """Returns what an annotation of a route with the struct's class would have sent."""
    if any(isinstance(getattr(struct, name), Document | Page) for name in struct.__struct_fields__):
        raise TypeError(
            f"{type(struct).__name__} has a Document or a Page in a field: return a dict, or a model of pydantic"
        )
    return msgspec.to_builtins(struct)


def _fields_of(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


# FastAPI, for routes without an annotation, and pydantic, for `Any`, are told here of what no annotation tells them.
encoders_by_class_tuples[_told_struct] = (msgspec.Struct,)
ENCODERS_BY_TYPE.update({Document: told, Page: told})
_SERIALIZED: dict[type, Any] = {
    Document: Document,
    Page: Page,
    # In Python a struct stays what it is, and a message has its fields as a dataclass has: pydantic's own way.
    msgspec.Struct: Annotated[Any, PlainSerializer(_told_struct, when_used="json")],
    Message: Annotated[Any, PlainSerializer(_fields_of)],
}
for _kind, _shown in _SERIALIZED.items():
    setattr(_kind, "__pydantic_serializer__", TypeAdapter(_shown).serializer)  # noqa: B010 - unknown to mypy


def install(
    app: FastAPI,
    diptych: Diptych,
    endpoints: Iterable[Endpoint] = (),
    *,
    hot: Mapping[str, type[AnyQuery]] | None = None,
    same_site: bool = True,
    security_headers: Mapping[str, str | None] | None = None,
) -> None:
    """Puts ``diptych`` into an application of FastAPI, and ``endpoints`` as routes.

    As `diptych.ext.starlette.install`; besides, routes may return a `Document` or a `Page`, whose stored bytes are
    sent as they are, with `ETag` (and 304) and `Cache-Status`, or 404. A body that FastAPI refuses is a problem like
    any other. The OpenAPI document has the operations of the endpoints, and problems in place of FastAPI's errors.

    >>> import asyncio
    >>> import httpx
    >>> from diptych import Command, Diptych, Document, Query, Served
    >>> from diptych.ext.fastapi import install
    >>> from diptych.http import Endpoint
    >>> from fastapi import FastAPI
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> class AddBook(Command[None]):
    ...     title: str
    >>> class Handler:
    ...     async def get(self, query: GetBook) -> Document[dict]:
    ...         return Document(b'{"title":"%s"}' % query.title.encode(), Served("redis"), dict)
    ...     async def add(self, command: AddBook) -> None: ...
    >>> books = Diptych(models=Base, handlers=[Handler])
    >>> app = FastAPI()
    >>> install(app, books, [Endpoint("GET", "/books/{title}", GetBook)])
    >>> @app.post("/books")
    ... async def add(command: AddBook) -> Document[dict]:
    ...     await books.execute(command)
    ...     return await books.ask(GetBook(title=command.title))
    >>> async def main():
    ...     async with app.router.lifespan_context(app), httpx.AsyncClient(
    ...         transport=httpx.ASGITransport(app), base_url="http://books"
    ...     ) as client:
    ...         print((await client.post("/books", json={"title": "Dune"})).text)
    ...         print((await client.post("/books", json={"name": "Dune"})).json()["detail"])
    ...         print((await client.get("/books/AC%2FDC")).headers["cache-status"])
    >>> asyncio.run(main())
    {"title":"Dune"}
    2 fields are wrong; see errors
    diptych; hit
    """
    gate = put_into(app, diptych, hot=hot, same_site=same_site, security_headers=security_headers)
    gate.checks.append(partial(faults_of_forms, app))
    _replace(app, RequestValidationError, request_validation_exception_handler, answer_invalid)
    _replace(app, HTTPException, http_exception_handler, answer_error)
    _complete_documents(app)
    app.include_router(router(endpoints))


def router(endpoints: Iterable[Endpoint], **options: Any) -> APIRouter:
    """Returns endpoints as a router, for `app.include_router`; ``options`` are those of `APIRouter`.

    With `dependencies=[Depends(…)]` they have guards. Raises `WiringError` with all that is wrong with the endpoints.

    >>> from diptych import Document, Query
    >>> from diptych.ext.fastapi import router
    >>> from diptych.http import Endpoint
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> [route.path for route in router([Endpoint("GET", "/books/{title}", GetBook)]).routes]
    ['/books/{title}']
    """
    made = APIRouter(**options)
    for one in Endpoints(endpoints).compiled:
        made.add_api_route(
            path_of(one),
            function_of(one),
            methods=[one.method],
            status_code=one.status,
            response_class=Response,
            response_model=None,
        )
    return made


def _complete_documents(app: FastAPI) -> None:
    """Has the OpenAPI document completed, also one of a function that takes the place of `app.openapi` later."""
    done: list[dict[str, Any]] = [{}]

    def completing(own: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        def openapi() -> dict[str, Any]:
            document = own()
            if document is not done[0]:
                completed(document, app)
                done[0] = document
            return document

        return openapi

    first = completing(app.openapi)
    app.openapi = first  # type: ignore[method-assign]
    build = app.build_middleware_stack

    def built() -> ASGIApp:  # when the application starts
        if app.openapi is not first:
            app.openapi = completing(app.openapi)  # type: ignore[method-assign]
        return build()

    app.build_middleware_stack = built  # type: ignore[method-assign]


def _replace(app: FastAPI, kind: type[Exception], default: Any, handler: Any) -> None:
    """Puts our handler of errors in the place of FastAPI's, and leaves one of the application's own."""
    if app.exception_handlers.get(kind) is default:
        app.exception_handlers[kind] = handler
