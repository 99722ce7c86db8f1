"""Declarations of endpoints that do not fit are refused when they are made, all at once, each with what to do."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from diptych import Command, Document, Event, Query, WiringError
from diptych.http import Endpoint
from diptych.http.endpoints.compiled import Endpoints


class Changes(msgspec.Struct):
    title: str | msgspec.UnsetType = msgspec.UNSET


class Added(msgspec.Struct):
    id: int


class Add(Command[Added]):
    title: str
    tags: list[str] = []  # noqa: RUF012


class AddAll(Command[list[Added]]):
    title: str


class Edit(Command[Added | None]):
    title: str
    changes: Changes


class Delete(Command[bool]):
    title: str


class Opaque(Command[object]):
    title: str


class Get(Query[Document[dict[str, Any]]]):
    title: Annotated[str, Meta(min_length=1)]
    language: str | None = None
    tags: list[str] | None = None


class Happened(Event):
    title: str


def faults(*endpoints: Endpoint) -> list[str]:
    with pytest.raises(WiringError) as raised:
        Endpoints(endpoints)
    return list(raised.value.problems)


def lacking(value: Any, *args: Any) -> list[str]:
    return [str(value), *args]


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        (Endpoint("GET", "/x", Happened), "is no command and no query"),
        (Endpoint("POST", "/x?language", Get), "its method is GET"),
        (Endpoint("GET", "/x/{title}", Delete), "its method is one of POST, PUT, PATCH, DELETE"),
        (Endpoint("POST", "x", Add), "a path begins with a slash"),
        (Endpoint("POST", "/x/", Add), "a path has no empty segments, and ends without a slash"),
        (Endpoint("POST", "/x//{title}", Add), "a path has no empty segments, and ends without a slash"),
        (Endpoint("GET", "/x/{title}/?language", Get), "ends without a slash"),
        (Endpoint("POST", "/x", Add, form=True, several="tags"), "write several=('tags',)"),
        (Endpoint("POST", "/x", Add, form=True, several=["tag"]), "several names 'tag', which no field"),
        (Endpoint("POST", "/x", Add, form=True, several=["title"]), "'title', and that field is one value"),
        (
            Endpoint("PATCH", "/x/{title}", Edit, form=True, body="changes", several=["tags"]),
            "several names 'tags', which no field of the form is",
        ),
        (Endpoint("POST", "/x", AddAll, status=201, location="/x/{id}"), "location names 'id'"),
        (Endpoint("POST", "/x", Add, status=201, location="/x/{title"), "has a brace that is not part of"),
        (Endpoint("POST", "/x/{name}", Add), "Add has no field 'name': its fields are tags, title"),
        (Endpoint("POST", "/x/{tags}", Add), "'tags' is of several values"),
        (Endpoint("POST", "/x/{title}/{title}", Add), "'title' is named more than once"),
        (Endpoint("POST", "/x/{title:path}", Add), "only parameters of text and of the type int"),
        (Endpoint("POST", "/x/{title:float}", Add), "only parameters of text and of the type int"),
        (Endpoint("POST", "/x/a{title}", Add), "reads like a parameter"),
        (Endpoint("POST", "/x?title", Add), "its fields come from the body"),
        (Endpoint("GET", "/x/{title}", Get), "'tags' is of several values"),
        (Endpoint("GET", "/x?language", Get), "the field 'title' has no default, and can't be sent"),
        (Endpoint("GET", "/x/{title}?page", Get), "Get has no field 'page'"),
        (Endpoint("DELETE", "/x/{title}", Delete, body="title"), "a DELETE has no body"),
        (Endpoint("PATCH", "/x/{title}", Edit, body="change"), "no field 'change' that could be its body"),
        (Endpoint("PATCH", "/x/{title}", Edit, body="title"), "no field 'title' that could be its body"),
        (Endpoint("POST", "/x/{title}", Add, body="tags"), "the type of 'tags' has to be a struct"),
        (Endpoint("PATCH", "/x", Edit, body="changes"), "'title' has no default, and is neither in the path"),
        (Endpoint("POST", "/x", Add, override="PATCH"), "override and several are of forms: set form=True"),
        (Endpoint("POST", "/x", Add, several=["tags"]), "override and several are of forms: set form=True"),
        (Endpoint("POST", "/x", Add, form=True, override_required=True), "needs the method"),
        (Endpoint("GET", "/x/{title}?", Get, form=True), "the form of a GET is its query string"),
        (Endpoint("POST", "/x", Add, status=404), "404 is no status of success: 200, 201, 202, 204"),
        (Endpoint("GET", "/x/{title}?", Get, status=201), "what a GET has found is sent with 200"),
        (Endpoint("POST", "/x", Add, status=204, answer=lacking), "a 204 has no body"),
        (Endpoint("POST", "/x", Opaque), "can't be sent as JSON"),
        (
            Endpoint("POST", "/x", Add, location="/x/{title}"),
            "a location is of what was made, with status=201",
        ),
        (
            Endpoint("POST", "/x", Add, status=201, location="/x/{name}"),
            "location names 'name'; what is known is id, result, tags, title",
        ),
        (Endpoint("DELETE", "/x/{title}", Delete, missing="no {name}"), "missing names 'name'"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused_with_what_to_do(endpoint: Endpoint, fault: str):
    assert any(fault in found and str(endpoint) in found for found in faults(endpoint)), faults(endpoint)


def test_every_fault_of_every_endpoint_is_told_at_once():
    wrong = (Endpoint("GET", "/a/{title}", Delete, status=404), Endpoint("POST", "/b/{name}", Add))
    assert len(faults(*wrong)) == 4


@pytest.mark.parametrize("other", ["/books/{name}", "/books/{title}?", "/books/{name:str}"])
def test_two_endpoints_of_one_method_and_path_are_refused(other: str):
    class ByName(Query[Document[dict[str, Any]]]):
        name: str = ""
        title: str = ""

    endpoints = Endpoint("GET", "/books/{title}?", Get), Endpoint("GET", other, ByName)
    (fault,) = faults(*endpoints)
    assert fault == (
        f"GET {other} (ByName) is also the address of Get: give one of them another path or method"
    )


def test_parameters_of_one_path_have_one_name():
    class DeleteByName(Command[bool]):
        name: str

    endpoints = Endpoint("GET", "/x/{title}?", Get), Endpoint("DELETE", "/x/{name}", DeleteByName)
    assert faults(*endpoints) == [
        "DELETE /x/{name} is the path of GET /x/{title}?: give its parameters the same names"
    ]


def test_what_fits_is_taken():
    endpoints = Endpoints(
        [
            Endpoint("GET", "/books/{title}?language", Get),
            Endpoint("POST", "/books", Add, status=201, location="/books/{title}/{id}"),
            Endpoint("PATCH", "/books/{title}", Edit, body="changes"),
            Endpoint("DELETE", "/books/{title}", Delete),
            Endpoint("POST", "/opaque", Opaque, answer=lacking),
        ]
    )
    assert sorted(endpoints.match(["books", "Dune"])) == ["DELETE", "GET", "PATCH"]
    assert endpoints.match(["nowhere"]) == {}


class Renamed(Command[Added], rename="camel"):
    book_title: str


class Inner(msgspec.Struct):
    title: str = msgspec.field(name="Title")


class WithRenamed(Command[Added]):
    inner: list[Inner]


def test_a_field_with_another_name_outside_is_refused():
    """JSON would have one name in the OpenAPI document, and the other one where it is read."""
    for message, name in ((Renamed, "Renamed.book_title"), (WithRenamed, "Inner.title")):
        [fault] = faults(Endpoint("POST", "/books", message))
        assert f"{message.__name__}: {name} has another name outside" in fault
