"""Bodies and parameters of Litestar's handlers: what is made of them, and where their faults are said to be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from litestar import Litestar, delete, get, post
from litestar.di import NamedDependency
from litestar.params import (
    FromQuery,
    HeaderParameter,
    JSONBody,
    MsgPackBody,
    MultipartBody,
    QueryParameter,
    URLEncodedBody,
)
from msgspec import Struct
from pydantic import BaseModel, Field

from diptych import Diptych, Page, WiringError
from diptych.ext.litestar import DiptychPlugin, asgi_app
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import (
    AddBook,
    BookDocument,
    Changes,
    DeleteBook,
    EditBook,
    ListBooks,
    shelf,
)

Shelf = NamedDependency[Diptych]


class Note(Struct):
    n: int
    data: int = 0
    tags: list[str] = []


class Model(BaseModel):
    n: int = Field(ge=1)


@post("/several")
async def several(data: JSONBody[list[AddBook]]) -> list[str]:
    return [one.title for one in data]


@post("/perhaps")
async def perhaps(data: JSONBody[AddBook | None]) -> str:
    return "none" if data is None else data.title


@post("/notes")
async def note(data: JSONBody[Note], weight: FromQuery[int] = 0) -> int:
    return data.n


@post("/models")
async def model(data: JSONBody[Model]) -> int:
    return data.n


@get("/parameters")
async def parameters(
    count: FromQuery[int],
    size: Annotated[int, QueryParameter(name="page-size", ge=2)] = 2,
    tenant: Annotated[str, HeaderParameter(name="X-Tenant", min_length=2)] = "us",
) -> int:
    return count + size


@get("/by-hand")
async def by_hand(
    diptych: Shelf, limit: FromQuery[int], after: FromQuery[str | None] = None
) -> Page[BookDocument]:
    return await diptych.ask(ListBooks(limit=limit, after=after))


@delete("/by-hand", status_code=200)
async def delete_by_hand(diptych: Shelf, title: FromQuery[str]) -> bool:
    return await diptych.execute(EditBook(title=title, changes=Changes(pages=0)))


@delete("/with-body", status_code=200)
async def delete_with_body(data: JSONBody[AddBook]) -> None: ...


@post("/form")
async def form(data: URLEncodedBody[AddBook]) -> str:
    return f"{data.title} {data.pages}"


@post("/perhaps-form")
async def perhaps_form(data: URLEncodedBody[AddBook | None]) -> str:
    return "none" if data is None else f"{data.title} {data.pages}"


HANDLERS = [
    form,
    perhaps_form,
    several,
    perhaps,
    note,
    model,
    parameters,
    by_hand,
    delete_by_hand,
    delete_with_body,
]


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


@pytest.fixture
async def client(diptych: Diptych) -> AsyncIterator[httpx.AsyncClient]:
    async with running(asgi_app(Litestar(HANDLERS, plugins=[DiptychPlugin(diptych)]))) as client:
        yield client


def faults(answer: httpx.Response) -> list[tuple[str, str, str]]:
    """The place of each fault, its name there and the fault in words."""
    assert answer.status_code == 422, answer.text
    found = answer.json()["errors"]
    assert all(("pointer" in one) != ("parameter" in one) for one in found), found
    places = (("pointer" if "pointer" in one else "parameter", one) for one in found)
    return [(place, one[place], one["detail"]) for place, one in places]


async def test_messages_in_a_list_are_made_by_build(client: httpx.AsyncClient):
    books = [{"title": "Emma"}, {"title": "Dune", "pages": 7}]
    assert (await client.post("/several", json=books)).json() == ["Emma", "Dune"]
    refused = await client.post("/several", json=[books[0], {"title": "", "colour": "red"}, 5])
    assert faults(refused) == [
        ("pointer", "#/1/colour", "is not a known field"),
        ("pointer", "#/1/title", "must not be empty"),
        ("pointer", "#/2", "must be a JSON object"),
    ]
    assert faults(await client.post("/several", json={})) == [("pointer", "#", "must be a list")]
    document = (await client.get("/schema/openapi.json")).json()
    sent = document["paths"]["/several"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert (sent["type"], sent["items"]) == ("array", {"$ref": "#/components/schemas/AddBook"})


async def test_a_message_may_be_left_out(client: httpx.AsyncClient):
    assert (await client.post("/perhaps", json={"title": "Emma"})).text == "Emma"
    assert (await client.post("/perhaps", json=None)).status_code == 400  # httpx sends no body
    json_type = {"Content-Type": "application/json"}
    assert (await client.post("/perhaps", content=b"null", headers=json_type)).text == "none"
    assert faults(await client.post("/perhaps", json={})) == [("pointer", "#/title", "is missing")]


@post("/either")
async def either(data: JSONBody[AddBook | DeleteBook]) -> None: ...


@post("/named")
async def named(data: JSONBody[dict[str, AddBook]]) -> None: ...


@pytest.mark.parametrize("handler", [either, named])
def test_other_types_of_messages_are_refused_at_start(diptych: Diptych, handler: Any):
    with pytest.raises(WiringError, match=f"{handler.fn.__name__}: .* a message, a list of messages"):
        Litestar([handler], plugins=[DiptychPlugin(diptych)])


async def test_a_message_is_made_of_a_form_as_by_an_endpoint(client: httpx.AsyncClient):
    for path in ("/form", "/perhaps-form"):
        assert (await client.post(path, data={"title": "Emma", "pages": "5"})).text == "Emma 5"
        assert faults(await client.post(path, data={"title": "", "pages": "x", "colour": "red"})) == [
            ("pointer", "#/colour", "is not a known field"),
            ("pointer", "#/title", "must not be empty"),
            ("pointer", "#/pages", "must be a whole number"),
        ]
        assert faults(await client.post(path, data={"title": ["Emma", "Dune"]})) == [
            ("pointer", "#/title", "was sent more than once")
        ]
        form_type = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await client.post(path, content=b"title=%zz", headers=form_type)).status_code == 400
        assert (await client.post(path, json={"title": "Emma"})).status_code == 415
    assert faults(await client.post("/form")) == [("pointer", "#/title", "is missing")]
    assert (await client.post("/perhaps-form")).text == "none"


@post("/parts")
async def parts(data: MultipartBody[AddBook]) -> None: ...


@post("/packed")
async def packed(data: MsgPackBody[AddBook]) -> None: ...


@post("/form-of-several")
async def form_of_several(data: URLEncodedBody[list[AddBook] | None]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "remedy"),
    [
        (parts, r"no message is made of multipart/form-data: .* Endpoint\(form=True\)"),
        (packed, "no message is made of application/(x-)?(vnd.)?msgpack: .* by build"),
        (form_of_several, "a form has the fields of one message"),
    ],
)
def test_bodies_that_no_message_is_made_of_are_refused_at_start(handler: Any, remedy: str, diptych: Diptych):
    with pytest.raises(WiringError, match=f"{handler.fn.__name__}: {remedy}"):
        Litestar([handler], plugins=[DiptychPlugin(diptych)])


async def test_faults_of_parameters_name_the_parameter(client: httpx.AsyncClient):
    assert faults(await client.get("/parameters")) == [("parameter", "count", "is missing")]
    refused = await client.get("/parameters?count=x&page-size=1", headers={"X-Tenant": "a"})
    assert faults(refused) == [
        ("parameter", "count", "must be a whole number"),
        ("parameter", "page-size", "must be at least 2"),
        ("parameter", "X-Tenant", "must have at least 2 characters"),
    ]
    refused = await client.post("/notes?weight=x", json={"n": "x"})
    assert faults(refused) == [
        ("pointer", "#/n", "must be a whole number"),
        ("parameter", "weight", "must be a whole number"),
    ]


async def test_faults_of_a_message_that_a_handler_makes_of_parameters_name_them(client: httpx.AsyncClient):
    assert faults(await client.get("/by-hand?limit=0")) == [("parameter", "limit", "must be at least 1")]
    (fault,) = faults(await client.get("/by-hand?limit=1&after=x"))
    assert fault[:2] == ("parameter", "after")
    refused = await client.delete("/by-hand?title=")
    assert faults(refused) == [("parameter", "title", "must not be empty")]
    answer = await client.request("DELETE", "/with-body", json={"title": ""})
    assert faults(answer) == [("pointer", "#/title", "must not be empty")]


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        ("/notes", b"[]", ("#", "must be an object")),
        ("/notes", b'{"n":1,"data":"x"}', ("#/data", "must be a whole number")),
        ("/notes", b'{"n":1,"tags":["a",1]}', ("#/tags/1", "must be text")),
        ("/notes", b"{}", ("#", "lacks the field n")),
        ("/models", b'{"n":0}', ("#/n", "must be greater than or equal to 1")),
        ("/models", b"{}", ("#/n", "is missing")),
        ("/models", b"[]", ("#", "must be a valid dictionary or instance of Model")),
        ("/several", b"5", ("#", "must be a list")),
    ],
)
async def test_a_fault_of_a_body_is_where_the_pointer_says(
    client: httpx.AsyncClient, path: str, body: bytes, fault: tuple[str, str]
):
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert faults(answer) == [("pointer", *fault)]


@pytest.mark.parametrize("path", ["/notes", "/models", "/several"])
async def test_a_body_that_is_not_there_is_a_bad_request(client: httpx.AsyncClient, path: str):
    answer = await client.post(path, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "the body is empty")


@pytest.mark.parametrize("path", ["/several", "/notes", "/models"])
async def test_a_body_that_is_nested_too_deeply_is_a_bad_request(client: httpx.AsyncClient, path: str):
    sent = b'{"n":' + b"[" * 5000 + b"]" * 5000 + b"}"
    refused = await client.post(path, content=sent, headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["detail"]) == (400, "the JSON is nested too deeply")
