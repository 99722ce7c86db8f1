"""The route that is meant is found on the raw path, and the framework can read it one way only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.http import BadRequest, RawPath, encode_segment
from diptych.http.asgi import Receive, Scope, Send

PATTERNS = (
    "/",
    "/books",
    "/books/{title:str}",
    "/books/{title}/edit",
    "/books/{title:str}/delete",
    "/books/action/add",
    "/orders/{number:int}",
    "/orders/open",
    "/static/{file_path:path}",
    "/admin/*",
)


async def routed(raw_path: bytes | None, patterns: tuple[str, ...] = PATTERNS, **scope: Any) -> Scope:
    """The scope that the application behind `RawPath` is called with."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def unused(*_: object) -> Any:
        raise AssertionError

    sent = {"type": "http", "method": "GET", "path": "/as decoded by the server", **scope}
    if raw_path is not None:
        sent["raw_path"] = raw_path
    await RawPath(app, patterns)(sent, unused, unused)
    return seen[0]


@pytest.mark.parametrize(
    ("raw_path", "path", "params"),
    [
        (b"/", "/", {}),
        (b"/books", "/books", {}),
        (b"/b%6Foks", "/books", {}),
        (b"/books/Dune", "/books/=Dune", {"title": "Dune"}),
        (b"/books/AC%2FDC", "/books/=AC%2FDC", {"title": "AC/DC"}),
        (b"/books/x%2Fedit", "/books/=x%2Fedit", {"title": "x/edit"}),
        (b"/books/x/edit", "/books/=x/edit", {"title": "x"}),
        (b"/books/x%2Fedit/edit", "/books/=x%2Fedit/edit", {"title": "x/edit"}),
        (b"/books/action", "/books/=action", {"title": "action"}),
        (b"/books/add", "/books/=add", {"title": "add"}),
        (b"/books/edit", "/books/=edit", {"title": "edit"}),
        (b"/books/delete", "/books/=delete", {"title": "delete"}),
        (b"/books/add/edit", "/books/=add/edit", {"title": "add"}),
        (b"/books/edit/edit", "/books/=edit/edit", {"title": "edit"}),
        (b"/books/action/add", "/books/action/add", {}),
        (b"/books/action/%61dd", "/books/action/add", {}),
        (b"/books/action%2Fadd", "/books/=action%2Fadd", {"title": "action/add"}),
        (b"/books/action/edit", "/books/=action/edit", {"title": "action"}),
        (b"/books/%2E%2E", "/books/=..", {"title": ".."}),
        (b"/books/..%2F..", "/books/=..%2F..", {"title": "../.."}),
        (b"/books/%25", "/books/=%25", {"title": "%"}),
        (b"/books/%2525", "/books/=%2525", {"title": "%25"}),
        (b"/books/a+b", "/books/=a%2Bb", {"title": "a+b"}),
        (b"/books/=Dune", "/books/=%3DDune", {"title": "=Dune"}),
        (b"/books/%20", "/books/=%20", {"title": " "}),
        (b"/books/caf\xc3\xa9", "/books/=caf%C3%A9", {"title": "café"}),
        (b"/books/%F0%9F%93%9A", "/books/=%F0%9F%93%9A", {"title": "📚"}),
        (b"/books/Dune?x=1", "/books/=Dune", {"title": "Dune"}),
        (b"/orders/12", "/orders/12", {}),
        (b"/orders/%31%32", "/orders/12", {}),
        (b"/orders/open", "/orders/open", {}),
        (b"/static/css/a%20b.css", "/static/css/a b.css", {}),
        (b"/admin", "/admin", {}),
        (b"/admin//x/../y%2Fz", "/admin//x/../y/z", {}),
    ],
)
async def test_a_path_is_handed_on_as_the_route_that_is_meant(
    raw_path: bytes, path: str, params: dict[str, str]
) -> None:
    scope = await routed(raw_path)
    assert scope["path"] == path
    assert scope["diptych.path_params"] == params
    assert scope["raw_path"] == raw_path
    assert "diptych.path_error" not in scope


@pytest.mark.parametrize(
    "raw_path",
    [
        b"/books%2FDune",
        b"/books//edit",
        b"/books//",
        b"/books/",
        b"/books/Dune/",
        b"//books",
        b"/books/action/",
        b"/books/Dune/edit/more",
        b"/books/../books/Dune",
        b"/nothing",
        b"/orders/1%2F2",
        b"/staticfile",
        b"/static",
        b"/static/",
        b"/static/../secret",
        b"/static/%2E%2E/secret",
        b"/static/x%2F..%2F..%2Fsecret",
        b"/static/..%5Csecret",
        b"/static//etc/passwd",
        b"/static/%2Fetc/passwd",
        b"*",
        b"",
    ],
)
async def test_what_matches_no_route_becomes_deeper_than_any(raw_path: bytes) -> None:
    scope = await routed(raw_path)
    assert scope["diptych.path_params"] is None
    assert scope["path"] == "/=/=/=/="  # the deepest template has three segments


@pytest.mark.parametrize(
    "raw_path",
    [b"/books/%FF", b"/books/\xff", b"/books/%", b"/books/%4", b"/books/%zz", b"/x%00", b"/%C3%28"],
)
async def test_a_malformed_path_is_a_bad_request(raw_path: bytes) -> None:
    scope = await routed(raw_path)
    assert isinstance(scope["diptych.path_error"], BadRequest)
    assert scope["diptych.path_params"] is None


async def test_without_a_raw_path_the_decoded_one_is_taken() -> None:
    assert (await routed(None, path="/books/50% off"))["diptych.path_params"] == {"title": "50% off"}
    assert isinstance((await routed(None, path="/books/\udcff"))["diptych.path_error"], BadRequest)


async def test_a_prefix_of_the_server_is_put_aside_and_back() -> None:
    scope = await routed(b"/shop%20a/books/AC%2FDC", root_path="/shop a")
    assert (scope["path"], scope["diptych.path_params"]) == ("/shop a/books/=AC%2FDC", {"title": "AC/DC"})
    assert (await routed(b"/shop%20a%2Fbooks", root_path="/shop a"))["diptych.path_params"] is None
    assert (await routed(b"/books", root_path="/shop a"))["diptych.path_params"] is None


async def test_one_route_may_name_its_parameter_in_two_ways() -> None:
    scope = await routed(b"/books/a%2Fb", ("/books/{title}", "/books/{name:str}"))
    assert scope["diptych.path_params"] == {"title": "a/b", "name": "a/b"}


async def test_the_lifespan_passes_through() -> None:
    assert await routed(None, type="lifespan") == {
        "type": "lifespan",
        "method": "GET",
        "path": "/as decoded by the server",
    }


@pytest.mark.parametrize("pattern", ["/books/=x", "/books/v{title}"])
def test_templates_that_cannot_be_told_from_parameters_are_refused(pattern: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ValueError, match="reads like a parameter"):
        RawPath(app, [pattern])


titles = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.lists(
        st.sampled_from(["action", "add", "edit", "/", "%2F", "%", ".", "..", "=", "?"]), min_size=1
    ).map("".join),
)


@given(titles, titles)
async def test_every_text_comes_back_and_no_two_share_a_path(one: str, other: str) -> None:
    scopes = []
    for title in (one, other):
        for page in ("", "/edit", "/delete"):
            scope = await routed(f"/books/{encode_segment(title)}{page}".encode())
            assert scope["diptych.path_params"] == {"title": title}
            scopes.append(scope["path"])
    assert len(set(scopes)) == (3 if one == other else 6)
    assert "/books/action/add" not in scopes


@given(st.binary())
async def test_no_path_breaks_the_router(raw_path: bytes) -> None:
    scope = await routed(b"/books/" + raw_path)
    assert scope["path"].startswith("/")


async def test_a_long_path_is_matched_in_no_time() -> None:
    patterns = tuple("/" + "/".join(f"{{p{j}}}" if i >> j & 1 else "a" for j in range(8)) for i in range(256))
    scope = await routed(b"/a" * 100_000, patterns)
    assert scope["diptych.path_params"] is None
