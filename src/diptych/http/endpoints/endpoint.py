"""The declaration of an endpoint: a method, a path, and the message that a request becomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from diptych.http.endpoints.html import Html


@dataclass(frozen=True)
class Endpoint:
    """A command or a query as HTTP: a request becomes the ``message``, and its result the answer.

    ``method`` is GET for queries; POST, PUT, PATCH or DELETE for commands. ``path`` is a template such as
    `/books/{title}` or `/orders/{id:int}`; its parameters are fields of the message. The other fields come from the
    query string (GET, DELETE) or from the body. Names behind a `?` are the fields that the query string may set,
    `/books?limit&after`; without it, all.

    - ``body``: the field that the whole body is; its type is a struct.
    - ``form``: forms (`application/x-www-form-urlencoded`) are read too, with several values for the fields in
      ``several``.
    - ``override``: the method that a form has to name in `_method`, if it names one. With ``override_required`` it
      has to.
    - ``status``: of success. By default 204 if the result's type is `bool` or None, else 200.
    - ``location``: the template of `Location`, of a 201 and of the 303 after a form. It may name fields of the
      result, fields of the message, and `{result}`.
    - ``answer``: makes what is sent as JSON, of the message and its result; without it the result is sent. Its
      annotation of what it returns is shown in OpenAPI.
    - ``missing``: the template of what is said where there is no such thing (404): if the result is None, False, or
      a `Document` without a body, and if no row can have what the path names.
    - ``html``: what browsers are answered with.
    - ``summary`` and ``tags`` are for OpenAPI. The summary is by default the first sentence of the docstring of the
      message.

    >>> from diptych import Command, Document, Query
    >>> from diptych.http import Endpoint
    >>> class AddBook(Command[int]):
    ...     title: str
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> endpoints = (
    ...     Endpoint("GET", "/books/{title}", GetBook, missing="there is no book “{title}”"),
    ...     Endpoint("POST", "/books", AddBook, status=201, location="/books/{title}"),
    ... )
    """

    method: str
    path: str
    message: type[Any]
    _: KW_ONLY
    body: str | None = None
    form: bool = False
    several: Collection[str] = ()
    override: str | None = None
    override_required: bool = False
    status: int | None = None
    location: str | None = None
    answer: Callable[[Any, Any], Any] | None = None
    missing: str | None = None
    html: Html | None = None
    summary: str | None = None
    tags: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.method} {self.path}"
