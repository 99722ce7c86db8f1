"""Endpoints made ready for requests, and what is wrong with their declarations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from diptych.errors import WiringError
from diptych.http.bodies import FORM, JSON
from diptych.http.endpoints.checks import faults_of
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.errors import FieldError, pointer_to
from diptych.http.paths import WHOLE_NUMBER, RouteTable, template_segments
from diptych.messages.kinds import COMMANDS, result_type
from diptych.messages.plans import Field, fields_of
from diptych.read.answers import Document


class Compiled(NamedTuple):
    """An endpoint, made ready for requests.

    ``template`` is its path alone, ``in_path`` has the positions and names of its parameters (-1 is the position of
    those of a prefix that a framework has put in front), and ``numbers`` the names of those that are whole numbers.
    ``in_query_string`` and ``in_body`` are the names of the other fields that may be sent (of none, where the
    endpoint has a ``body``). ``result`` is the type of the message's result, ``status`` that of success, and
    ``can_miss`` tells whether there may be no such thing.
    """

    endpoint: Endpoint
    template: str
    fields: Mapping[str, Field]
    in_path: tuple[tuple[int, str], ...]
    numbers: tuple[str, ...]
    in_query_string: tuple[str, ...]
    in_body: tuple[str, ...]
    is_query: bool
    result: Any
    status: int
    can_miss: bool

    @property
    def method(self) -> str:
        """The method of the requests."""
        return self.endpoint.method

    @property
    def media_types(self) -> tuple[str, ...]:
        """The media types of bodies that are read."""
        return (JSON, FORM) if self.endpoint.form else (JSON,)

    def parameters_of(self, segments: Sequence[str]) -> dict[str, str]:
        """Returns the parameters in the decoded segments of a path."""
        return {name: segments[at] for at, name in self.in_path}

    @property
    def places(self) -> dict[str, FieldError]:
        """Where requests have the fields, by the attributes of the message, or of the struct that the body is."""
        in_parameters = {name for _, name in self.in_path}.union(self.in_query_string)
        in_body = [field for name, field in self.fields.items() if name in self.in_body]
        whole = self.endpoint.body and self.fields[self.endpoint.body].plan.struct
        if whole:
            in_body = [*fields_of(whole)]
        parameters = [field for name, field in self.fields.items() if name in in_parameters]
        return {
            **{one.attribute: FieldError(one.name, "", parameter=one.name) for one in parameters},
            **{one.attribute: FieldError(one.name, "", pointer=pointer_to(one.name)) for one in in_body},
        }

    def placed(self, parameters: Collection[str]) -> Compiled:
        """Returns the endpoint at a path with these ``parameters``: its own, and those of a prefix.

        A field that a prefix has the name of is set by the path alone: another value that is sent in the query
        string, or contradicts it in the body, is refused.
        """
        if len(parameters) == len(self.in_path):
            return self
        known = {name for _, name in self.in_path}
        more = tuple((-1, name) for name in self.fields if name in parameters and name not in known)
        return self._replace(
            in_path=self.in_path + more,
            in_query_string=tuple(name for name in self.in_query_string if name not in parameters),
            in_body=tuple(name for name in self.in_body if name not in parameters),
        )


class Endpoints:
    """Endpoints that are checked, to be found by their paths. Raises `WiringError` with all that is wrong."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        declared = tuple(endpoints)
        problems = [problem for endpoint in declared for problem in faults_of(endpoint)]
        if not problems:
            self.compiled = tuple(map(compiled, declared))
            problems = list(_doubled(self.compiled))
        if problems:
            raise WiringError(problems)
        self._routes = RouteTable(((one.template, one) for one in self.compiled), takes=WHOLE_NUMBER)

    @property
    def templates(self) -> list[str]:
        """The path templates, each once."""
        return list(dict.fromkeys(one.template for one in self.compiled))

    def match(self, segments: Sequence[str]) -> dict[str, Compiled]:
        """Returns the endpoints of the path with these decoded segments by methods; none without such a path."""
        return {one.method: one for one in self._routes.match(segments)}


def compiled(endpoint: Endpoint) -> Compiled:
    """Returns an endpoint without faults, made ready for requests."""
    template, is_limited, named = endpoint.path.partition("?")
    segments = template_segments(template)
    in_path = tuple((at, segment.name) for at, segment in enumerate(segments) if segment.name)
    fields = {field.name: field for field in fields_of(endpoint.message)}
    others = [name for name in fields if name not in {name for _, name in in_path} | {endpoint.body}]
    from_query_string = endpoint.method in ("GET", "DELETE")
    if is_limited:
        others = [name for name in named.split("&") if name]
    result = result_type(endpoint.message)
    origin = getattr(result, "__origin__", result)
    can_miss = type(None) in get_args(result) or result in (Any, bool) or origin is Document
    return Compiled(
        endpoint=endpoint,
        template=template,
        fields=fields,
        in_path=in_path,
        numbers=tuple(segment.name for segment in segments if segment.kind == "typed"),
        in_query_string=tuple(others) if from_query_string else (),
        in_body=() if from_query_string else tuple(others),
        is_query=not issubclass(endpoint.message, COMMANDS),
        result=result,
        status=endpoint.status or (204 if result in (bool, None, type(None)) else 200),
        can_miss=can_miss,
    )


def accept_patch(one: Compiled) -> list[tuple[bytes, bytes]]:
    """Returns the header that an answer to OPTIONS has of an endpoint for PATCH; none of others."""
    if one.method != "PATCH":
        return []
    return [(b"accept-patch", ", ".join(one.media_types).encode("ascii"))]


def sent_type(one: Compiled) -> Any:
    """Returns the type of what an endpoint sends as JSON."""
    if one.endpoint.answer is None:
        return one.result
    return get_type_hints(one.endpoint.answer, include_extras=True).get("return", Any)


def _doubled(endpoints: Iterable[Compiled]) -> Iterable[str]:
    seen: dict[tuple[str, str], Compiled] = {}
    names: dict[str, Compiled] = {}
    for one in endpoints:
        segments = template_segments(one.template)
        shape = "/".join(s.text if s.kind == "fixed" else f"{{:{s.kind}}}" for s in segments)
        first, other = seen.setdefault((one.method, shape), one), names.setdefault(shape, one)
        if first is not one:
            yield (
                f"{one.endpoint} ({one.endpoint.message.__name__}) is also the address of "
                f"{first.endpoint.message.__name__}: give one of them another path or method"
            )
        elif other.in_path != one.in_path:
            yield f"{one.endpoint} is the path of {other.endpoint}: give its parameters the same names"
