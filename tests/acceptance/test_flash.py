"""What the page after a form says, and the cookie that tells it."""

from __future__ import annotations

import base64

import httpx
import pytest

from tests.acceptance.serving import HTML, Catalogue

ADD = "/books/action/add"


def forged(kind: str, title: bytes) -> dict[str, str]:
    return {"Cookie": f"flash={kind}.{base64.urlsafe_b64encode(title).decode()}"}


def said(answer: httpx.Response) -> str | None:
    _, found, after = answer.text.partition('role="status">')
    return after.partition("</p>")[0].strip() if found else None


def test_the_cookie_is_short_lived_and_not_for_others(books: Catalogue) -> None:
    cookie = books.post(ADD, data={"title": "Dune", "author": "A"}).headers["set-cookie"].lower()
    for part in ("httponly", "samesite=lax", "path=/books", "max-age=60"):
        assert part in cookie
    assert "secure" not in cookie  # the page was not asked by TLS, so the cookie would not come back


@pytest.mark.parametrize("title", ["Dune", "😀" * 200, 'a;b="c", d', "<b>x</b>"])
def test_it_is_said_once_whatever_the_title(books: Catalogue, title: str) -> None:
    answer = books.post(ADD, data={"title": title, "author": "A"})
    assert len(answer.headers["set-cookie"]) < 1400
    shown = books.get(answer.headers["location"], headers=HTML)
    escaped = title.replace('"', "&#34;").replace("<", "&lt;").replace(">", "&gt;")
    assert said(shown) == f"<span>“<bdi>{escaped}</bdi>” was added.</span>"
    assert said(books.get(answer.headers["location"], headers=HTML)) is None


def test_json_in_between_does_not_use_it_up(books: Catalogue) -> None:
    books.post(ADD, data={"title": "Dune", "author": "A"})
    books.get("/books")
    assert "was added" in str(said(books.get("/books", headers=HTML)))


@pytest.mark.parametrize(
    "cookie",
    [
        forged("stolen", b"Dune"),
        forged("", b"Dune"),
        forged("added", b""),
        forged("added", b"\xff"),
        forged("added", b"x" * 201),
        forged("added", b"x" * 5_000),
        {"Cookie": "flash=added"},
        {"Cookie": "flash=added.*"},
        {"Cookie": "flash"},
    ],
)
def test_a_cookie_that_is_not_ours_says_nothing(books: Catalogue, cookie: dict[str, str]) -> None:
    answer = books.get("/books", headers={**HTML, **cookie})
    assert answer.status_code == 200
    assert said(answer) is None


def test_a_forged_title_is_escaped(books: Catalogue) -> None:
    answer = books.get("/books", headers={**HTML, **forged("added", b"<script>alert(1)</script>")})
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
