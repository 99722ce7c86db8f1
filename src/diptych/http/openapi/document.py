"""The OpenAPI document of endpoints."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, count
from typing import Any

from diptych.http.endpoints.compiled import Compiled, Endpoints
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.openapi.links import links_of
from diptych.http.openapi.operations import operation_of
from diptych.http.openapi.schemas import Schemas

REF_TEMPLATE = "#/components/schemas/{name}"


class Operations:
    """The operations of compiled endpoints, in their order, and the components that these refer to.

    For frameworks that put them into a document of their own; ``ref_template`` says where its components are, and
    ``taken`` has the ids of the operations that it has besides.
    """

    def __init__(
        self,
        endpoints: Sequence[Compiled],
        ref_template: str = REF_TEMPLATE,
        *,
        taken: Collection[str] = (),
    ) -> None:
        schemas = Schemas(endpoints, ref_template)
        # An endpoint may be there several times, below several prefixes.
        named = list(zip(endpoints, _ids(endpoints, taken), strict=True))
        self.of: list[tuple[Compiled, dict[str, Any]]] = []
        for one, operation_id in named:
            operation = operation_of(one, schemas, operation_id)
            if links := links_of(one, named):
                operation["responses"][str(one.status)]["links"] = links
            self.of.append((one, operation))
        self.components = schemas.components([operation for _, operation in self.of])


def openapi_document(
    endpoints: Iterable[Endpoint], *, title: str, version: str, description: str | None = None
) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of the ``endpoints``, ready for JSON.

    It has their parameters and bodies with bounds and defaults, from their messages; what they answer, from results
    and documents of read models; and every problem that they may answer with. Raises `WiringError` as `endpoints_app`
    does.

    >>> from diptych import Document, Query
    >>> from diptych.http import Endpoint, openapi_document
    >>> class GetBook(Query[Document[dict]]):
    ...     "Asks for the book of this title."
    ...     title: str
    >>> document = openapi_document([Endpoint("GET", "/books/{title}", GetBook)], title="Books", version="1")
    >>> operation = document["paths"]["/books/{title}"]["get"]
    >>> operation["summary"], list(operation["responses"])
    ('Asks for the book of this title.', ['200', '304', '400', '404', '422', '500', '503'])
    """
    return document_of(Endpoints(endpoints).compiled, title, version, description)


def document_of(
    endpoints: Sequence[Compiled], title: str, version: str, description: str | None = None
) -> dict[str, Any]:
    """Returns the document of compiled endpoints."""
    operations = Operations(endpoints)
    paths: dict[str, Any] = {}
    for one, operation in operations.of:
        paths.setdefault(re.sub(r":\w+\}", "}", one.template), {})[one.method.lower()] = operation
    info = {"title": title, "version": version} | ({"description": description} if description else {})
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {"schemas": operations.components},
    }


def _ids(endpoints: Iterable[Compiled], taken: Collection[str]) -> list[str]:
    """Returns the id of each operation: its message, with the method or a number where that is ``taken``."""
    found: list[str] = []
    for one in endpoints:
        name = one.endpoint.message.__name__
        names = chain((name, f"{name}By{one.method.capitalize()}"), (f"{name}{n}" for n in count(2)))
        found.append(next(each for each in names if each not in taken and each not in found))
    return found
