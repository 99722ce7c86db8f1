"""Forms are decoded strictly, may name their method, and are refused when another site's page sends them."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.errors import InvalidMessage
from diptych.http import BadRequest, CrossSite, Fields, check_same_site, method_override, parse_form


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"&&", {}),
        (b"&" * 100 + b"title=X&&author=Y&", {"title": "X", "author": "Y"}),
        (b"title=Dune", {"title": "Dune"}),
        (b"title=Dune&", {"title": "Dune"}),
        (b"title=a+b%2Bc%26d%3De", {"title": "a b+c&d=e"}),
        (b"title=a=b", {"title": "a=b"}),
        (b"title=&author", {"title": None, "author": None}),
        (b"title=+", {"title": " "}),
        (b"%74itle=%F0%9F%93%9A", {"title": "📚"}),
        (b"title=\xf0\x9f\x93\x9a", {"title": "📚"}),
        (b"=x", {"": "x"}),
    ],
)
def test_a_form_is_decoded(body: bytes, fields: dict[str, str | None]) -> None:
    assert parse_form(body) == fields


@pytest.mark.parametrize("body", [b"a=%FF", b"a=\xff", b"a=%", b"a=%4", b"%zz=1", b"a=%ED%A0%80"])
def test_a_malformed_form_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_form(body)


def test_the_number_of_fields_is_bounded() -> None:
    body = urlencode({f"f{n}": n for n in range(200)}).encode()
    assert len(parse_form(body)) == 200
    with pytest.raises(BadRequest):
        parse_form(body + b"&one=more")


@pytest.mark.parametrize("body", [b"&" * 200 + b"title=X&author=Y", b"title=X" + b"&" * 200])
def test_empty_parts_count_too(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_form(body)


def test_fields_sent_more_than_once_are_all_named() -> None:
    with pytest.raises(InvalidMessage) as refused:
        parse_form(b"a=1&b=2&a=1&c=3&c=4&c=5")
    assert refused.value.faults == (("a", "was sent more than once"), ("c", "was sent more than once"))


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1)))
def test_what_a_browser_encodes_comes_back(fields: dict[str, str]) -> None:
    assert parse_form(urlencode(fields).encode()) == fields


def test_a_form_may_name_its_method() -> None:
    fields = Fields({"_method": "delete", "title": "x"}, is_form=True)
    assert method_override(fields) == ("DELETE", Fields({"title": "x"}, is_form=True))
    assert fields.values == {"_method": "delete", "title": "x"}


@pytest.mark.parametrize(
    "fields", [Fields({"a": "b"}, is_form=True), Fields({"_method": "PATCH"}, is_form=False)]
)
def test_nothing_else_names_a_method(fields: Fields) -> None:
    assert method_override(fields) == (None, fields)


@pytest.mark.parametrize("method", ["PUT", "GET", None, "PATCH DELETE"])
def test_a_method_that_a_form_may_not_name_is_a_fault(method: str | None) -> None:
    with pytest.raises(InvalidMessage) as refused:
        method_override(Fields({"_method": method}, is_form=True))
    assert refused.value.faults == (("_method", "must be PATCH or DELETE"),)


def check(method: str, *headers: tuple[str, str]) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers]
    check_same_site({"type": "http", "method": method, "headers": sent})


SERVED: list[list[tuple[str, str]]] = [
    [],
    [("host", "books.example")],
    [("sec-fetch-site", "same-origin")],
    [("sec-fetch-site", "none")],
    [
        ("sec-fetch-site", "same-origin"),
        ("origin", "https://proxy-changed-the-host.example"),
        ("host", "inner"),
    ],
    [("origin", "http://books.example"), ("host", "books.example")],
    [("origin", "https://books.example"), ("host", "books.example")],
    [("origin", "https://books.example"), ("host", "books.example:443")],
    [("origin", "http://books.example:80"), ("host", "Books.Example")],
    [("origin", "HTTP://BOOKS.example"), ("host", "books.example:80")],
    [("origin", "http://127.0.0.1:8000"), ("host", "127.0.0.1:8000")],
    [("origin", "http://[::1]:8000"), ("host", "[::1]:8000")],
]
REFUSED: list[list[tuple[str, str]]] = [
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site")],
    [("sec-fetch-site", "")],
    [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "cross-site"), ("origin", "http://books.example"), ("host", "books.example")],
    [("origin", "null"), ("host", "books.example")],
    [("origin", ""), ("host", "")],
    [("origin", "http://evil.example"), ("host", "books.example")],
    [("origin", "http://sub.books.example"), ("host", "books.example")],
    [("origin", "http://books.example:8000"), ("host", "books.example")],
    [("origin", "http://books.example:443"), ("host", "books.example")],
    [("origin", "http://books.example"), ("host", "books.example:8000")],
    [("origin", "http://books.example:99999"), ("host", "books.example")],
    [("origin", "http://books.example"), ("host", "books.example:x")],
    [("origin", "http://[::1"), ("host", "[::1")],
    [("origin", "http://"), ("host", "")],
    [("origin", "file://"), ("host", "books.example")],
    [("origin", "chrome-extension://books.example"), ("host", "books.example")],
    [("origin", "http://books.example")],
    [("origin", "http://books.example"), ("origin", "http://evil.example"), ("host", "books.example")],
]


@pytest.mark.parametrize("headers", SERVED)
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT", "FANCY"])
def test_pages_of_this_site_and_clients_that_are_no_browsers_are_served(
    method: str, headers: list[tuple[str, str]]
) -> None:
    check(method, *headers)


@pytest.mark.parametrize("headers", REFUSED)
def test_pages_of_other_sites_are_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(CrossSite):
        check("POST", *headers)


@pytest.mark.parametrize("headers", REFUSED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_links_from_other_sites_are_served(method: str, headers: list[tuple[str, str]]) -> None:
    check(method, *headers)
