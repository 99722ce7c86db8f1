"""Answers to browsers: pages, forms that are shown again, and redirects after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diptych.app import Diptych
from diptych.http.answers import Answer
from diptych.http.asgi import RequestScope, header_values
from diptych.http.bodies import Fields
from diptych.http.errors import Problem


@dataclass(frozen=True)
class EndpointRequest:
    """A request for an endpoint: its ASGI scope, the application, and what was sent.

    ``parameters`` are the texts of the path and the query string by name, without empty ones; of one that was sent
    more than once the first. ``fields`` are those of the body, as they were sent.

    >>> from diptych.http import EndpointRequest, Fields
    >>> scope = {"headers": [(b"cookie", b'theme=dark; flash="added"')]}
    >>> request = EndpointRequest(scope, None, {"title": "Dune"}, Fields({}, is_form=False))
    >>> request.cookies["flash"]
    'added'
    """

    scope: RequestScope
    diptych: Diptych
    parameters: Mapping[str, str]
    fields: Fields

    @property
    def cookies(self) -> dict[str, str]:
        """The values of the request's cookies by name."""
        pairs = (
            pair.strip().partition("=")
            for value in header_values(self.scope, b"cookie")
            for pair in value.split(";")
        )
        return {name: value.strip('"') for name, found, value in pairs if found}


class Html:
    """The pages of an endpoint, for clients that prefer HTML. A method that returns None leaves the answer as it is.

    Override what the endpoint needs:

    >>> from diptych.http import Answer, Html, encode_segment
    >>> class BookPage(Html):
    ...     async def found(self, request, message, found):
    ...         return Answer.page(f"<h1>{found.decode()['title']}</h1>")  # a template engine would escape it
    >>> class AddForm(Html):
    ...     async def done(self, request, message, result):
    ...         return Answer.see_other(f"/books/{encode_segment(message.title)}")
    """

    def query(self, message: Any) -> Any:
        """Returns the query for a page of HTML, such as a query that counts too."""
        return message

    def fields(self, sent: Fields) -> Fields:
        """Returns the fields of a form as the message has them."""
        return sent

    async def found(self, request: EndpointRequest, message: Any, found: Any) -> Answer | None:
        """Returns the page that shows what the query `message` has found."""

    async def done(self, request: EndpointRequest, message: Any, result: Any) -> Answer | None:
        """Returns the answer to a form, whose command `message` had this result; without it, 303 to the location."""

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer | None:
        """Returns the form again, with the sent values and their faults."""
