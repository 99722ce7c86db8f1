"""Endpoints as routes of Starlette."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from diptych.ext.starlette.problems import response_of
from diptych.http.asgi import Message, Receive
from diptych.http.endpoints.call import endpoint_call
from diptych.http.endpoints.compiled import Compiled, Endpoints
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.errors import NotFound

ENDPOINT = "diptych_endpoint"
"""Attribute of the function of a route: the compiled endpoint that it answers for."""


AS_DECODED = "diptych.as_decoded"
"""Scope key: there if no route has the path as it was sent, and the framework decodes it. Otherwise absent."""


def routes(endpoints: Iterable[Endpoint]) -> list[Route]:
    """Returns endpoints as routes, for `Starlette(routes=…)` or a `Mount`; `install` gives them their `Diptych`.

    Raises `WiringError` with all that is wrong with the endpoints.

    >>> from diptych import Document, Query
    >>> from diptych.ext.starlette import routes
    >>> from diptych.http import Endpoint
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> [route.path for route in routes([Endpoint("GET", "/books/{title}", GetBook)])]
    ['/books/{title}']
    """
    return [
        Route(path_of(one), function_of(one), methods=[one.method], include_in_schema=False)
        for one in Endpoints(endpoints).compiled
    ]


def path_of(one: Compiled) -> str:
    """Returns the path of an endpoint's route. Its parameters are texts: the endpoint says which are numbers."""
    return re.sub(r":\w+\}", "}", one.template)


def function_of(one: Compiled) -> Callable[[Request], Awaitable[Response]]:
    """Returns the function that answers for an endpoint."""

    async def answer(request: Request) -> Response:
        if AS_DECODED in request.scope:
            raise NotFound()
        diptych = request.app.state.diptych
        answer = await endpoint_call(
            one, diptych, request.scope, _receive_of(request), request.path_params, same_site=False
        )
        return response_of(answer)

    setattr(answer, ENDPOINT, one)
    answer.__name__ = one.endpoint.message.__name__
    return answer


def _receive_of(request: Request) -> Receive:
    """Returns a `receive` with the body of a request, which a dependency may have read before.

    What the server sends is then used up, and waiting for it would never end: the framework has the body.
    """
    form = getattr(request, "_form", None)
    if form is not None and not hasattr(
        request, "_body"
    ):  # read as a form, of which only the fields are left
        sent = urlencode([pair for pair in form.multi_items() if isinstance(pair[1], str)]).encode()
        return _sending(sent)
    stream = request.stream()

    async def receive() -> Message:
        try:
            chunk = await anext(stream, None)
        except ClientDisconnect:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return receive


def _sending(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return receive
