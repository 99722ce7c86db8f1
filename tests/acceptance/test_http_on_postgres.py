"""The catalogue within this process, on PostgreSQL and Valkey: the core of its HTTP once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from demo_app.app import create_app
from diptych import ConfigService
from tests.acceptance.serving import FROM_REDIS, FROM_SQL, errors_of, path_of
from tests.acceptance.titles import TITLES
from tests.servers import RedisServer

Event = MutableMapping[str, Any]


@asynccontextmanager
async def served(app: Callable[..., Awaitable[None]]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` while its lifespan lasts."""
    to_app: asyncio.Queue[Event] = asyncio.Queue()
    from_app: asyncio.Queue[Event] = asyncio.Queue()
    lifespan = asyncio.ensure_future(app({"type": "lifespan", "asgi": {}}, to_app.get, from_app.put))
    to_app.put_nowait({"type": "lifespan.startup"})
    assert await from_app.get() == {"type": "lifespan.startup.complete"}
    try:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://books.test") as client:
            yield client
    finally:
        to_app.put_nowait({"type": "lifespan.shutdown"})
        assert await from_app.get() == {"type": "lifespan.shutdown.complete"}
        await lifespan


@pytest.fixture(params=[FROM_SQL, FROM_REDIS], ids=["sql", "redis"])
async def books(
    request: pytest.FixtureRequest, postgres_url: str, valkey: RedisServer
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the empty catalogue on PostgreSQL, whose answers come from SQL or from Valkey."""
    redis = valkey.url if request.param == FROM_REDIS else None
    config = ConfigService(environ={}, DATABASE_URL=postgres_url, REDIS_URL=redis)
    async with served(create_app(config)) as client:
        async with asyncio.timeout(20):
            while (await client.get("/books")).headers["cache-status"] != request.param:
                pass
        yield client


async def test_the_core_of_http(books: httpx.AsyncClient) -> None:
    book = {"title": "AC/DC", "author": "Murray Engleheart", "published_date": "2006-11-01"}
    added = await books.post("/books/action/add", json={**book, "isbn": "0061136506"})
    assert (added.status_code, added.headers["location"]) == (201, "/books/AC%2FDC")
    assert (await books.get("/books/AC%2FDC")).json() == {**added.json(), "reviews": []}
    again = await books.post("/books/action/add", json={"title": "x", "author": "y", "isbn": "0-06113650-6"})
    assert (again.status_code, again.json()["columns"]) == (409, ["isbn"])
    faulty = await books.post("/books/action/add", json={"title": " ", "stock_quantity": -1})
    assert (faulty.status_code, sorted(errors_of(faulty))) == (422, ["author", "stock_quantity", "title"])
    edited = await books.patch("/books/AC%2FDC/edit", json={"title": "Back in Black", "isbn": None})
    assert edited.json() == {**added.json(), "title": "Back in Black", "isbn": None}
    form = {"_method": "PATCH", "stock_quantity": "4"}
    assert (await books.post("/books/Back%20in%20Black/edit", data=form)).status_code == 303
    assert (await books.get("/books/Back%20in%20Black")).json()["stock_quantity"] == 4
    assert (await books.delete("/books/Back%20in%20Black/delete")).status_code == 204
    assert (await books.get("/books/Back%20in%20Black")).status_code == 404


async def test_reviews_and_tags(books: httpx.AsyncClient) -> None:
    stars = {"x/reviews": [5, 4, 4], "a/tags/b": [], "tags": [1, 5]}
    for title, given in stars.items():
        await books.post("/books/action/add", json={"title": title, "author": "A"})
        for each in given:
            added = await books.post(f"{path_of(title)}/reviews", json={"stars": each, "text": f"{each} ☆"})
            assert added.status_code == 201
        tagged = await books.put(f"{path_of(title)}/tags", json={"tags": ["É", "sf", title]})
        assert tagged.json()["tags"] == sorted(["É", "sf", title])
    assert tagged.json()["rating"] == 3.0
    one = (await books.get("/books/x%2Freviews")).json()
    assert (one["review_count"], one["rating"], one["tags"]) == (3, 4.33, ["sf", "x/reviews", "É"])
    assert [review["stars"] for review in one["reviews"]] == [4, 4, 5]
    renamed = await books.patch("/tags/sf", json={"name": "ŠF"})
    assert renamed.json() == {"name": "ŠF", "books": 3}
    assert (await books.patch("/tags/%C5%A0F", json={"name": "tags"})).status_code == 409
    for sort, wanted in (("title", sorted(stars)), ("-rating", ["x/reviews", "tags", "a/tags/b"])):
        page = await books.get("/books", params={"tag": "ŠF", "sort": sort})
        assert [book["title"] for book in page.json()["items"]] == wanted
        assert all("ŠF" in book["tags"] for book in page.json()["items"])
    assert (await books.delete(f"/books/x%2Freviews/reviews/{one['reviews'][0]['id']}")).status_code == 204
    assert (await books.get("/books/x%2Freviews")).json()["rating"] == 4.5
    assert (await books.delete("/books/x%2Freviews/delete")).status_code == 204
    found = (await books.get("/tags")).json()["items"]
    assert [(tag["name"], tag["books"]) for tag in found] == [
        ("É", 2),
        ("ŠF", 2),
        ("a/tags/b", 1),
        ("tags", 1),
    ]


async def test_tags_of_one_book_set_at_once(books: httpx.AsyncClient) -> None:
    """Each command sets all of them or waits for another: the last one's tags are there, and no others."""
    await books.post("/books/action/add", json={"title": "Dune", "author": "A"})
    sets = [[f"{n}", "all", f"{n % 2} of 2"] for n in range(6)]
    answers = await asyncio.gather(*(books.put("/books/Dune/tags", json={"tags": each}) for each in sets))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [answer.json()["tags"] for answer in answers] == list(map(sorted, sets))
    last = (await books.get("/books/Dune")).json()["tags"]
    assert last in list(map(sorted, sets))
    assert {tag["name"] for tag in (await books.get("/tags")).json()["items"]} == set(last)


async def test_titles_are_kept_and_ordered_by_code_point(books: httpx.AsyncClient) -> None:
    for title in TITLES:
        answer = await books.post("/books/action/add", json={"title": title, "author": "A"})
        assert answer.status_code == 201, answer.text
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = (await books.get("/books", params={"limit": 9} | ({"after": after} if after else {}))).json()
        found += [book["title"] for book in page["items"]]
        after = page["next"]
    assert found == sorted(TITLES)
    for title in TITLES:
        assert (await books.get(path_of(title))).json()["title"] == title
