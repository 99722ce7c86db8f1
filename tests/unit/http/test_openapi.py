"""The OpenAPI document says what endpoints read and answer, and the page shows it."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

import msgspec
import openapi_spec_validator
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

from diptych import Command, Document, Page, Query, WiringError
from diptych.http import Endpoint, Html, endpoints_app, openapi_document
from diptych.http.endpoints.compiled import Endpoints
from diptych.http.openapi.answers import documentation
from diptych.http.openapi.document import Operations

Title = Annotated[str, Meta(min_length=1, max_length=60)]


class Review(Struct):
    stars: int


class BookDocument(Struct):
    """A book
    in lists.

    And what does not matter here.
    """

    title: str
    published: datetime.date | None
    reviews: list[Review] = []


class AddBook(Command[int]):
    """Adds a book.

    The result is its number.
    """

    title: Title
    stock: Annotated[int, Meta(ge=0, le=10)] = 0
    tags: list[str] = []  # noqa: RUF012


class Changes(Struct):
    title: Title | UnsetType = UNSET
    published: datetime.date | UnsetType | None = UNSET


class EditBook(Command[BookDocument | None]):
    title: str
    changes: Changes


class DeleteBook(Command[bool]):
    title: str
    if_stock: int | None = None


class AddReview(Command[Review]):
    title: str
    review: Review


class GetBook(Query[Document[BookDocument]]):
    title: str


class ListBooks(Query[Page[BookDocument]]):
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    after: str | None = None
    sort: Literal["title", "-title"] = "title"
    since: datetime.date | None = None
    secret: bool = False


class GetOrder(Query[Document[dict[str, Any]]]):
    id: int


class Shelf(Query[dict[str, int]]):
    name: str


def _number(command: AddBook, result: int) -> dict[str, int]:
    return {"number": result}


BOOK = "/books/{title}"
ENDPOINTS = (
    Endpoint("GET", "/books?limit&after&sort&since", ListBooks),
    Endpoint(
        "POST", "/books", AddBook, status=201, location=BOOK, answer=_number, form=True, several=["tags"]
    ),
    Endpoint("GET", BOOK, GetBook, html=Html(), summary="A book", tags=["reading"]),
    Endpoint("PATCH", BOOK, EditBook, body="changes", missing="none"),
    Endpoint(
        "POST",
        BOOK,
        EditBook,
        body="changes",
        missing="none",
        form=True,
        override="PATCH",
        override_required=True,
        location=BOOK,
    ),
    Endpoint("DELETE", BOOK, DeleteBook),
    Endpoint("POST", BOOK + "/reviews", AddReview, body="review", status=201, location=BOOK),
    Endpoint("GET", "/orders/{id:int}", GetOrder),
    Endpoint("GET", "/shelf", Shelf),
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document(ENDPOINTS, title="Books", version="1.2")


def schema_of(operation: dict[str, Any], kind: str = "application/json") -> Any:
    return operation["requestBody"]["content"][kind]["schema"]


def sent(operation: dict[str, Any], status: str) -> Any:
    return operation["responses"][status]["content"]["application/json"]["schema"]


def test_the_document_is_openapi(document: dict[str, Any]):
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1.")
    assert document["info"] == {"title": "Books", "version": "1.2"}
    assert msgspec.json.decode(msgspec.json.encode(document)) == document
    operations = [one for path in document["paths"].values() for one in path.values()]
    ids = [one["operationId"] for one in operations]
    assert ids == [
        *("ListBooks", "AddBook", "GetBook", "EditBook", "EditBookByPost", "DeleteBook"),
        *("AddReview", "GetOrder", "Shelf"),
    ]


def test_an_operation_is_described_by_its_message(document: dict[str, Any]):
    add, get = document["paths"]["/books"]["post"], document["paths"][BOOK]["get"]
    assert (add["summary"], add["description"]) == ("Adds a book.", "The result is its number.")
    assert (add["tags"], get["tags"], get["summary"]) == (["books"], ["reading"], "A book")


@pytest.mark.parametrize(
    ("docstring", "summary", "description"),
    [
        ("Adds a book. The result is its id.", "Adds a book.", "The result is its id."),
        (
            "Adds a book, of which\n    there is none yet.\n\n    Twice is 409.",
            "Adds a book, of which there is none yet.",
            "Twice is 409.",
        ),
        ("Costs 1.50 at most", "Costs 1.50 at most", None),
        ("", "Named", None),
    ],
)
def test_the_summary_is_the_first_sentence(docstring: str, summary: str, description: str | None):
    class Named(Command[None]):
        title: str

    Named.__doc__ = docstring
    document = openapi_document([Endpoint("POST", "/books", Named)], title="Books", version="1")
    told = document["paths"]["/books"]["post"]
    assert (told["summary"], told.get("description")) == (summary, description)


def test_parameters_have_their_bounds_and_defaults(document: dict[str, Any]):
    assert document["paths"]["/books"]["get"]["parameters"] == [
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
        },
        {"name": "after", "in": "query", "schema": {"type": "string"}},
        {"name": "sort", "in": "query", "schema": {"enum": ["-title", "title"], "default": "title"}},
        {"name": "since", "in": "query", "schema": {"type": "string", "format": "date"}},
    ]
    path = {"in": "path", "required": True}
    assert document["paths"]["/orders/{id}"]["get"]["parameters"] == [
        {**path, "name": "id", "schema": {"type": "integer"}}
    ]
    assert document["paths"][BOOK]["delete"]["parameters"] == [
        {**path, "name": "title", "schema": {"type": "string", "minLength": 1}},
        {"name": "if_stock", "in": "query", "schema": {"type": "integer"}},
    ]
    assert document["paths"]["/shelf"]["get"]["parameters"][0]["required"]


def test_bodies_are_the_fields_that_can_be_sent(document: dict[str, Any]):
    add = document["paths"]["/books"]["post"]
    assert schema_of(add) == {
        "title": "AddBook",
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 60},
            "stock": {"type": "integer", "minimum": 0, "maximum": 10, "default": 0},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["title"],
        "additionalProperties": False,
    }
    assert add["requestBody"]["required"]
    form = schema_of(add, "application/x-www-form-urlencoded")
    assert form["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
    edit = document["paths"][BOOK]["patch"]
    assert not edit["requestBody"]["required"]
    assert list(schema_of(edit)["properties"]) == ["title", "published"]
    assert "requestBody" not in document["paths"][BOOK]["delete"]


def test_a_form_that_names_its_method_has_no_other_kind(document: dict[str, Any]):
    by_form = document["paths"][BOOK]["post"]
    assert list(by_form["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
    form = schema_of(by_form, "application/x-www-form-urlencoded")
    assert (form["properties"]["_method"]["enum"], form["required"]) == (["PATCH"], ["_method"])
    assert "200" not in by_form["responses"]
    assert "Location" in by_form["responses"]["303"]["headers"]


def test_answers_are_documents_pages_and_values(document: dict[str, Any]):
    paths = document["paths"]
    book = {"$ref": "#/components/schemas/BookDocument"}
    assert sent(paths[BOOK]["get"], "200") == book
    assert sent(paths[BOOK]["patch"], "200") == book
    page = sent(paths["/books"]["get"], "200")
    assert page["properties"]["items"] == {"type": "array", "items": book}
    assert list(page["properties"]) == ["items", "next", "previous", "total"]
    assert sent(paths["/books"]["post"], "201")["additionalProperties"] == {"type": "integer"}
    assert "content" not in paths[BOOK]["delete"]["responses"]["204"]
    assert list(document["components"]["schemas"]) == ["BookDocument", "Problem", "Review"]
    assert document["components"]["schemas"]["BookDocument"]["description"] == "A book in lists."


def test_headers_and_problems_are_those_that_can_occur(document: dict[str, Any]):
    paths = document["paths"]
    get = paths[BOOK]["get"]["responses"]
    assert list(get["200"]["headers"]) == ["ETag", "Cache-Status"]
    assert "Diptych-Set-Aside" in paths["/books"]["get"]["responses"]["200"]["headers"]
    assert list(paths["/books"]["post"]["responses"]["201"]["headers"]) == ["Location"]
    assert list(get) == ["200", "304", "400", "404", "422", "500", "503"]
    assert list(paths["/books"]["get"]["responses"]) == ["200", "304", "400", "422", "503"]
    command = [*("400", "403", "404", "409", "413", "415", "422", "503")]
    assert list(paths[BOOK]["delete"]["responses"]) == ["204", *command]
    assert "404" not in paths["/books"]["post"]["responses"]
    assert "404" in paths["/orders/{id}"]["get"]["responses"]
    assert list(get["404"]["content"]) == ["application/problem+json", "text/html"]
    assert list(get["503"]["headers"]) == ["Retry-After"]


def test_links_lead_from_what_was_made_to_its_endpoints(document: dict[str, Any]):
    made = document["paths"]["/books"]["post"]["responses"]["201"]["links"]
    assert set(made) == {"GetBook", "EditBook", "EditBookByPost", "DeleteBook", "AddReview"}
    assert made["GetBook"]["parameters"] == {"title": "$request.body#/title"}
    below = document["paths"][BOOK + "/reviews"]["post"]["responses"]["201"]["links"]
    assert below["GetBook"]["parameters"] == {"title": "$request.path.title"}
    assert set(document["paths"][BOOK]["delete"]["responses"]["204"]["links"]) == {"GetBook"}


def test_a_framework_chooses_where_components_are():
    operations = Operations(Endpoints(ENDPOINTS).compiled, "#/definitions/{name}")
    refs = set(re.findall(r'"\$ref":"([^"]*)"', msgspec.json.encode([o for _, o in operations.of]).decode()))
    assert refs == {"#/definitions/BookDocument", "#/definitions/Problem", "#/definitions/Review"}
    assert "Review" in operations.components


def test_the_page_shows_everything_and_escapes_it():
    class Nasty(Query[Document[dict[str, Any]]]):
        """<script>alert(1)</script>"""

        name: Annotated[str, Meta(pattern="<b>")] = "<i>"

    endpoint = Endpoint("GET", "/x?name", Nasty, tags=["<u>"])
    answers = documentation(Endpoints([*ENDPOINTS, endpoint]).compiled, "<h1>", "<2>", "a & b")
    page = answers["/docs"].body.decode()
    for tag in ("<script", "<b>", "<i>", "<u>", "<h1><", "<2>", "& b"):
        assert tag not in page
    for text in ("&lt;script&gt;", "like &lt;b&gt;", "&lt;u&gt;", "a &amp; b", "at most 500", "BookDocument"):
        assert text in page
    assert re.findall(r'(?:src|href)="([^#"]*)"', page) == ["data:,", "docs.css", "openapi.json"]
    assert "style=" not in page
    anchors = set(re.findall(r'href="#([^"]*)"', page))
    assert anchors <= set(re.findall(r'id="([^"]*)"', page))


def test_the_paths_of_the_pages_are_not_endpoints():
    with pytest.raises(WiringError, match="/docs is the documentation's: give the endpoint another path"):
        endpoints_app(None, [Endpoint("GET", "/docs", Shelf)], title="x")  # type: ignore[arg-type]


class Card(Struct, tag="card"):
    number: str


class Cash(Struct, tag="cash"):
    amount: int


class Pay(Command[None]):
    order: int
    how: Card | Cash | None = None


def test_a_body_that_is_one_of_several_structs_has_all_of_them():
    endpoint = Endpoint("POST", "/orders/{order}/pay", Pay, body="how", form=True)
    document = openapi_document([endpoint], title="Shop", version="1")
    openapi_spec_validator.validate(document)
    body = document["paths"]["/orders/{order}/pay"]["post"]["requestBody"]
    refs = ["#/components/schemas/Card", "#/components/schemas/Cash"]
    for content in body["content"].values():
        assert [one["$ref"] for one in content["schema"]["anyOf"]] == refs
        assert content["schema"]["discriminator"]["mapping"] == {"card": refs[0], "cash": refs[1]}
    assert list(body["content"]) == ["application/json", "application/x-www-form-urlencoded"]
    assert set(document["components"]["schemas"]) == {"Card", "Cash", "Problem"}
    page = documentation(Endpoints([endpoint]).compiled, "Shop", "1", None)["/docs"].body.decode()
    assert "Card" in page
    assert "Cash" in page
