"""Endpoints as routes of Starlette."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from diptych.ext.starlette.problems import response_of
from diptych.http.endpoints.call import endpoint_call
from diptych.http.endpoints.compiled import Compiled, Endpoints
from diptych.http.endpoints.endpoint import Endpoint

ENDPOINT = "diptych_endpoint"
"""Attribute of the function of a route: the compiled endpoint that it answers for."""


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
        diptych = request.app.state.diptych
        answer = await endpoint_call(
            one, diptych, request.scope, request.receive, request.path_params, same_site=False
        )
        return response_of(answer)

    setattr(answer, ENDPOINT, one)
    answer.__name__ = one.endpoint.message.__name__
    return answer
