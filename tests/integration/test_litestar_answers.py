"""Documents and pages within what Litestar's handlers return: as they are sent, and as OpenAPI tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from litestar import Litestar, Response, get, post, websocket_listener
from litestar.config.compression import CompressionConfig
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.testing import TestClient
from msgspec import Struct
from openapi_spec_validator import validate
from pydantic import BaseModel, ConfigDict

from diptych import Diptych, Document, Page, WiringError
from diptych.ext.litestar import DiptychPlugin, asgi_app
from diptych.http import etag
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import AddBook, BookDocument, Books, GetBook, shelf

BookPages = NamedDependency[Books]
Found = Document[BookDocument]
T = TypeVar("T")


@get("/perhaps/{title:str}")
async def perhaps(title: FromPath[str], books: BookPages) -> Found | None:
    return await books.get(title) or None


@get("/either/{title:str}")
async def either(title: FromPath[str], books: BookPages) -> Found | Page[BookDocument]:
    return await books.get(title) if title != "all" else await books.page()


@get("/named/{title:str}")
async def named(title: FromPath[str], books: BookPages) -> dict[str, Found]:
    return {"book": await books.get(title)}


@get("/deep/{title:str}")
async def deep(title: FromPath[str], books: BookPages) -> Mapping[str, Sequence[Found | int]]:
    return {"books": [await books.get(title), 7]}


@get("/pair/{title:str}")
async def pair(title: FromPath[str], books: BookPages) -> tuple[Found, Page[BookDocument]]:
    return await books.get(title), await books.page()


@get("/several/{title:str}")
async def several(title: FromPath[str], books: BookPages) -> list[Found]:
    return await books.get_many([title, "Emma"])


@get("/response/{title:str}")
async def response(title: FromPath[str], books: BookPages) -> Response[Found]:
    return Response(await books.get(title), headers={"X-Own": "yes"})


@get("/responses/{title:str}")
async def responses(title: FromPath[str], books: BookPages) -> Response[list[Found]]:
    return Response([await books.get(title)], status_code=202)


@get("/many", cache_control=CacheControlHeader(max_age=9))
async def many(books: BookPages) -> list[Found]:
    return [await books.get("Emma")] * 50


@get("/kept/{title:str}", cache=True)
async def kept(title: FromPath[str], books: BookPages) -> Found:
    return await books.get(title)


@get("/all", cache_control=CacheControlHeader(max_age=9))
async def whole(books: BookPages) -> Page[BookDocument]:
    return await books.page()


@websocket_listener("/listened")
async def listened(data: str, diptych: NamedDependency[Diptych]) -> dict[str, Found]:
    return {"book": await diptych.ask(GetBook(title=data))}


@get("/other")
async def other() -> Annotated[dict[str, Annotated[int, sa.column("n")]], {"of": []}]:
    return {"n": 1}


@post("/response")
async def made(books: BookPages) -> Response[Found]:
    return Response(await books.get("Emma"), status_code=201)


HANDLERS = [
    perhaps,
    either,
    named,
    deep,
    pair,
    several,
    response,
    responses,
    many,
    kept,
    whole,
    listened,
    other,
    made,
]


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


@pytest.fixture
async def client(diptych: Diptych) -> AsyncIterator[httpx.AsyncClient]:
    async with running(asgi_app(Litestar(HANDLERS, plugins=[DiptychPlugin(diptych)]))) as client:
        await diptych.execute(AddBook(title="Emma", pages=7))
        yield client


EMMA = '{"id":1,"title":"Emma","pages":7}'
PAGE = f'{{"items":[{EMMA}],"next":null}}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("perhaps/Emma", EMMA),
        ("perhaps/nothing", "null"),
        ("either/Emma", EMMA),
        ("either/all", PAGE),
        ("named/Emma", f'{{"book":{EMMA}}}'),
        ("named/nothing", '{"book":null}'),
        ("deep/Emma", f'{{"books":[{EMMA},7]}}'),
        ("deep/nothing", '{"books":[null,7]}'),
        ("pair/Emma", f"[{EMMA},{PAGE}]"),
        ("several/nothing", f"[null,{EMMA}]"),
        ("response/Emma", EMMA),
        ("responses/Emma", f"[{EMMA}]"),
    ],
)
async def test_what_is_sent_is_stored_and_fits_its_schema(client: httpx.AsyncClient, path: str, body: str):
    answer = await client.get(f"/{path}")
    assert (answer.text, answer.headers["content-type"]) == (body, "application/json")
    document = (await client.get("/schema/openapi.json")).json()
    told = document["paths"][f"/{path.partition('/')[0]}/{{title}}"]["get"]["responses"]["200"]["content"]
    assert [*told] == ["application/json"]
    schema = {**told["application/json"]["schema"], "components": document["components"]}
    jsonschema.validate(answer.json(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"items": 5}, schema)


async def test_the_document_is_valid(client: httpx.AsyncClient):
    validate((await client.get("/schema/openapi.json")).json())


async def test_what_compresses_and_keeps_answers_has_the_stored_bytes(diptych: Diptych):
    compressed = CompressionConfig("gzip", minimum_size=1)
    site = Litestar(HANDLERS, plugins=[DiptychPlugin(diptych)], compression_config=compressed)
    async with running(asgi_app(site)) as client:
        await diptych.execute(AddBook(title="Emma", pages=7))
        answer = await client.get("/many")
        assert (answer.headers["content-encoding"], answer.json()) == ("gzip", [json.loads(EMMA)] * 50)
        for _ in range(2):
            answer = await client.get("/kept/Emma")
            assert (answer.headers["content-encoding"], answer.text) == ("gzip", EMMA)
            assert (answer.headers["etag"], answer.headers["cache-status"][:7]) == (
                etag(EMMA.encode()),
                "diptych",
            )
            assert (await client.get("/kept/nothing")).status_code == 404
        known = {"If-None-Match": answer.headers["etag"]}
        assert (await client.get("/response/Emma", headers=known)).status_code == 304


async def test_headers_that_the_handler_declares_come_first(client: httpx.AsyncClient):
    assert (await client.get("/all")).headers["cache-control"] == "max-age=9"
    assert (await client.get("/response/Emma")).headers["cache-control"] == "no-cache"


def test_a_listener_of_a_websocket_sends_documents(diptych: Diptych):
    client = TestClient(Litestar(HANDLERS, plugins=[DiptychPlugin(diptych)]))
    with client, client.websocket_connect("/listened") as socket:
        socket.send_text("nothing")
        assert socket.receive_json() == {"book": None}


async def test_other_types_are_answered_by_litestar(client: httpx.AsyncClient):
    assert (await client.get("/other")).json() == {"n": 1}


async def test_a_response_with_a_document_keeps_its_status_and_its_headers(client: httpx.AsyncClient):
    found = await client.get("/response/Emma")
    assert (found.status_code, found.headers["x-own"]) == (200, "yes")
    again = await client.get("/response/Emma", headers={"If-None-Match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.get("/response/nothing")).status_code == 404
    assert (await client.get("/responses/nothing")).status_code == 202
    assert (await client.post("/response")).status_code == 201


class InStruct(Struct):
    book: Found


class InModel(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    books: list[Found]


@dataclasses.dataclass
class InDataclass:
    book: Found | None


class InDict(TypedDict):
    book: Found


class InTuple(NamedTuple):
    book: Found


class Deeper(Struct):
    inner: dict[str, InStruct]
    again: Deeper | None = None


class Generally(Struct, Generic[T]):
    inner: T


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (InStruct, InStruct),
        (InModel, InModel),
        (InDataclass, InDataclass),
        (InDict, InDict),
        (InTuple, InTuple),
        (Deeper, InStruct),
        (Generally[Found], Generally),
    ],
)
@pytest.mark.parametrize("options", [{}, {"openapi_config": None}])
def test_a_class_with_documents_in_it_is_refused_at_start(
    diptych: Diptych, kind: Any, named: type, options: dict[str, Any]
):
    async def refused() -> Any: ...

    refused.__annotations__["return"] = list[kind]
    with pytest.raises(WiringError, match=f"refused: {named.__name__} has a Document or a Page in it"):
        Litestar([get("/refused")(refused)], plugins=[DiptychPlugin(diptych)], **options)


@get("/any")
async def anything(books: BookPages) -> Any:
    return {"book": await books.get("Emma")}


async def test_what_to_do_is_logged_where_a_type_does_not_tell_of_a_document(
    diptych: Diptych, capsys: pytest.CaptureFixture[str]
):
    async with running(asgi_app(Litestar([anything], plugins=[DiptychPlugin(diptych)]))) as client:
        assert (await client.get("/any")).status_code == 500
    assert "say so in the annotation of what the handler returns" in capsys.readouterr().err
