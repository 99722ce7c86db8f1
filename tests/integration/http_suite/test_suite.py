"""The same requests to the same endpoints under FastAPI, Starlette, Litestar and plain ASGI: the same answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from diptych import Diptych
from tests.catalogue import eventually
from tests.integration.http_suite.applications import APPLICATIONS, running
from tests.integration.http_suite.site import shelf
from tests.servers import RedisServer

EMMA = {"title": "Emma", "pages": 500}


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


@pytest.fixture(params=APPLICATIONS)
async def client(request: pytest.FixtureRequest, diptych: Diptych) -> AsyncIterator[httpx.AsyncClient]:
    async with running(APPLICATIONS[request.param](diptych)) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    return found


async def test_a_book_is_added_found_changed_and_deleted(client: httpx.AsyncClient):
    added = await client.post("/books", json=EMMA)
    assert (added.status_code, added.json(), added.headers["location"]) == (201, 1, "/books/Emma")
    found = await client.get("/books/Emma")
    assert (found.status_code, found.content) == (200, b'{"id":1,"title":"Emma","pages":500}')
    assert found.headers["content-type"] == "application/json"
    assert found.headers["cache-status"] == "diptych; fwd=bypass; detail=no-redis"
    assert (found.headers["vary"], found.headers["cache-control"]) == ("Accept", "no-cache")
    changed = await client.patch("/books/Emma", json={"pages": 501})
    assert (changed.status_code, changed.content) == (204, b"")
    assert (await client.get("/by-number/1")).json()["pages"] == 501
    assert (await client.get("/books")).json()["items"] == [{"id": 1, "title": "Emma", "pages": 501}]
    counted = await client.get("/count")
    assert (counted.status_code, counted.json()) == (200, 1)
    assert "etag" in counted.headers
    assert (await client.delete("/books/Emma")).status_code == 204
    assert problem(await client.get("/books/Emma"), 404)["detail"] == "there is no book “Emma”"
    problem(await client.delete("/books/Emma"), 404)
    assert problem(await client.patch("/books/Emma", json={"pages": 1}), 404)["title"] == "Not Found"


async def test_what_the_client_has_is_not_sent_again(client: httpx.AsyncClient):
    await client.post("/books", json=EMMA)
    for path in ("/books/Emma", "/books", "/count"):
        tag = (await client.get(path)).headers["etag"]
        again = await client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


async def test_every_faulty_field_is_named_with_its_place(client: httpx.AsyncClient):
    answer = await client.post("/books", json={"title": "", "pages": -1, "colour": "red"})
    assert problem(answer, 422) == {
        "type": "urn:diptych:problem:invalid-fields",
        "title": "Some fields are wrong",
        "status": 422,
        "detail": "3 fields are wrong; see errors",
        "errors": [
            {"field": "colour", "detail": "is not a known field", "pointer": "#/colour"},
            {"field": "title", "detail": "must not be empty", "pointer": "#/title"},
            {"field": "pages", "detail": "must be at least 0", "pointer": "#/pages"},
        ],
    }
    answer = await client.get("/books", params={"limit": "many", "colour": "red"})
    assert [(one["field"], one["parameter"]) for one in problem(answer, 422)["errors"]] == [
        ("colour", "colour"),
        ("limit", "limit"),
    ]
    answer = await client.patch("/books/Emma", json={"pages": "x"})
    assert problem(answer, 422)["errors"][0]["pointer"] == "#/pages"
    taken = await client.post("/books", json=EMMA), await client.post("/books", json=EMMA)
    assert problem(taken[1], 409)["columns"] == ["title"]


async def test_the_place_of_a_name_with_dots_is_one_step(client: httpx.AsyncClient):
    sent = {"title": "x", "title.x": 1, "": 2, "a/b~c": 3}
    answer = await client.post("/books", json=sent)
    assert [(one["field"], one["pointer"]) for one in problem(answer, 422)["errors"]] == [
        ("title.x", "#/title.x"),
        ("", "#/"),
        ("a/b~c", "#/a~1b~0c"),
    ]
    answer = await client.get("/books?limit=1&limit.x=2&=3&after.b.c=4")
    assert [(one["field"], one["parameter"]) for one in problem(answer, 422)["errors"]] == [
        ("limit.x", "limit.x"),
        ("", ""),
        ("after.b.c", "after.b.c"),
    ]
    answer = await client.patch("/books/Emma", json={"pages": 1, "changes.pages": 2})
    assert [one["pointer"] for one in problem(answer, 422)["errors"]] == ["#/changes.pages"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"title": "a", "title": "b"}', "application/json", 400),
        (b"[]", "application/json", 422),
        (b"\xff", "application/json", 400),
        (b"title=Emma", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b"{}", "application/json; charset=utf-16", 415),
        (b'{"title": "%s"}' % (b"x" * 2_000_000), "application/json", 413),
        (b"", "application/json", 400),
    ],
)
async def test_a_body_that_can_not_be_read_is_refused(
    client: httpx.AsyncClient, body: bytes, kind: str, status: int
):
    answer = await client.post("/books", content=body, headers={"Content-Type": kind})
    problem(answer, status)
    if status == 415:
        assert answer.headers["accept"] == "application/json"


async def test_a_path_is_routed_as_it_was_sent(client: httpx.AsyncClient):
    for title, path in (("AC/DC", "/books/AC%2FDC"), ("a b%", "/books/a%20b%25"), ("é=", "/books/%C3%A9=")):
        added = await client.post("/books", json={"title": title})
        assert added.headers["location"] == path.replace("=", "%3D")
        assert (await client.get(path)).json()["title"] == title
        assert (await client.delete(path)).status_code == 204
    for path in ("/books/AC/DC", "/books/x%2Fy/z", "/nothing", "/%2Fbooks", "/books/Emma/"):
        assert problem(await client.get(path), 404)["detail"] == "there is nothing at this address", path
    for path in ("/books/%FF", "/books/%zz", "/books/%00"):
        problem(await client.get(path), 400)


async def test_a_number_in_a_path_has_one_form(client: httpx.AsyncClient):
    await client.post("/books", json=EMMA)
    assert (await client.get("/by-number/1")).status_code == 200
    for number in ("01", "1.0", "x", "99999999999999999999", "7", "-1"):
        problem(await client.get(f"/by-number/{number}"), 404)


async def test_methods_of_a_path(client: httpx.AsyncClient):
    answer = await client.put("/books/Emma", json={})
    problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    options = await client.options("/books/Emma")
    assert (options.status_code, options.content) == (204, b"")
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    assert options.headers["accept-patch"] == "application/json"
    assert (await client.options("/books")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    problem(await client.options("/nothing"), 404)


async def test_head_is_get_without_its_body(client: httpx.AsyncClient):
    await client.post("/books", json=EMMA)
    for path, status in (("/books/Emma", 200), ("/books", 200), ("/books/Dune", 404)):
        found, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (status, b"")
        assert dict(head.headers) == dict(found.headers)


async def test_an_unforeseen_error_shows_nothing_of_itself(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
):
    answer = await client.post("/failures", json={})
    assert problem(answer, 500)["detail"] == "the server could not answer; the error was logged"
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text


async def test_other_sites_pages_change_nothing(client: httpx.AsyncClient):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        problem(await client.post("/books", json=EMMA, headers=headers), 403)
    own = await client.post("/books", json=EMMA, headers={"Origin": "http://books.example"})
    assert own.status_code == 201


async def test_request_and_actor_are_in_the_log(client: httpx.AsyncClient, diptych: Diptych):
    await client.post("/books", json=EMMA, headers={"X-Request-ID": "request-7", "X-User": "jane"})
    async with diptych.orm.session() as session:
        rows = await session.execute(sa.text("SELECT correlation_id, actor FROM diptych_log"))
        assert rows.all() == [("request-7", "jane")]


async def test_data_has_the_security_headers_of_data(client: httpx.AsyncClient):
    for path in ("/books", "/nothing"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "content-security-policy" not in headers


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_queries_are_answered_from_redis(kind: str, tmp_path: Path, valkey: RedisServer):
    diptych = shelf(f"sqlite:///{tmp_path / 'books.db'}", valkey.url)
    async with running(APPLICATIONS[kind](diptych)) as client:
        await client.post("/books", json=EMMA)

        async def hits() -> bool:
            return (await client.get("/books/Emma")).headers["cache-status"] == "diptych; hit"

        await eventually(hits, "Redis answers")
        assert (await client.patch("/books/Emma", json={"pages": 7})).status_code == 204
        found = await client.get("/books/Emma")
        assert (found.json()["pages"], found.headers["cache-status"]) == (7, "diptych; hit")


async def test_each_application_answers_alike(tmp_path: Path):
    """Status, body and headers of a run of requests, one application beside the other."""
    told = {}
    for kind, make in APPLICATIONS.items():
        async with running(make(shelf(f"sqlite:///{tmp_path / kind}.db"))) as client:
            answers = [
                await client.post("/books", json=EMMA),
                await client.post("/books", json={"title": "AC/DC"}),
                await client.get("/books/AC%2FDC"),
                await client.get("/books?limit=1"),
                await client.get("/books?limit=x"),
                await client.get("/books/Dune"),
                await client.head("/books/Emma"),
                await client.put("/books/Emma"),
                await client.patch("/books/Emma", json={"pages": None}),
                await client.post("/failures", json={}),
                await client.options("/books"),
            ]
        told[kind] = [
            (one.request.method, str(one.url), one.status_code, one.text, sorted(one.headers.items()))
            for one in answers
        ]
    for kind, found in told.items():
        for mine, its in zip(told["asgi"], found, strict=True):
            assert mine == its, kind
    assert json.loads(told["asgi"][2][3])["title"] == "AC/DC"
