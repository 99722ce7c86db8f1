"""Filters, orders, totals and both directions of `GET /books`, in JSON and in HTML."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from demo_app.handlers.book_lists import LISTS
from tests.acceptance.serving import HTML, Catalogue, errors_of, errors_shown, values_shown

BOOKS = [
    ("Émile", "Jean-Jacques Rousseau", "1762-05-22"),
    ("emma", "Jane Austen", "1815-12-23"),
    ("EMIL und die Detektive", "Erich Kästner", "1929-10-15"),
    ("Persuasion", "Jane Austen", "1817-12-20"),
    ("Émaux et camées", "Théophile Gautier", None),
    ("Lady Susan", "Jane Austen", None),
]


@pytest.fixture
def shelf(both: Catalogue) -> Catalogue:
    for title, author, published in BOOKS:
        both.add(title, author, published_date=published)
    return both


def titles(shelf: Catalogue, **parameters: Any) -> list[str]:
    answer = shelf.get("/books", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-status"] == shelf.server.cache_status
    return [book["title"] for book in answer.json()["items"]]


def rows_of(page: httpx.Response) -> list[str]:
    return re.findall(r'<a class="text" dir="auto" href="/books/[^"]*">(.*?)</a>', page.text)


def test_a_title_is_found_by_its_beginning_in_any_case_with_or_without_accents(shelf: Catalogue) -> None:
    for beginning in ("Émi", "emi", "EMI", "E\u0301MI"):
        assert titles(shelf, title=beginning) == ["EMIL und die Detektive", "Émile"]
    assert titles(shelf, title="em") == ["Émaux et camées", "EMIL und die Detektive", "Émile", "emma"]
    assert titles(shelf, title="mile") == []
    assert titles(shelf, title="%") == titles(shelf, title="em_") == titles(shelf, title="x" * 300) == []


def test_a_changed_title_is_found_by_the_new_one_alone(shelf: Catalogue) -> None:
    shelf.patch("/books/emma/edit", json={"title": "Żemma"})
    assert "emma" not in titles(shelf, title="em")
    assert titles(shelf, title="ZEM") == ["Żemma"]
    shelf.delete("/books/%C5%BBemma/delete")
    assert titles(shelf, title="ZEM") == []


def test_the_orders(shelf: Catalogue) -> None:
    assert titles(shelf) == titles(shelf, sort="title") == sorted(title for title, _, _ in BOOKS)
    by_author = [title for title, _, _ in sorted(BOOKS, key=lambda book: (book[1], book[0]))]
    assert titles(shelf, sort="author") == by_author
    newest = ["EMIL und die Detektive", "Persuasion", "emma", "Émile", "Lady Susan", "Émaux et camées"]
    assert titles(shelf, sort="-published_date") == newest


def test_filters_together(shelf: Catalogue) -> None:
    assert titles(shelf, author="Jane Austen") == ["Lady Susan", "Persuasion", "emma"]
    assert titles(shelf, author="Jane Austen", sort="author") == ["Lady Susan", "Persuasion", "emma"]
    assert titles(shelf, author="Jane Austen", title="P") == ["Persuasion"]
    assert titles(shelf, author="Jane Austen", title="é", sort="author") == ["emma"]
    assert titles(shelf, author="jane austen") == titles(shelf, author="x" * 300) == []
    newest = {"sort": "-published_date"}
    assert titles(shelf, author="Jane Austen", **newest) == ["Persuasion", "emma", "Lady Susan"]
    assert titles(shelf, author="Jane Austen", published_to="1816-01-01", **newest) == ["emma"]
    span = {"published_from": "1762-05-22", "published_to": "1815-12-23"}
    assert titles(shelf, **span, **newest) == ["emma", "Émile"]
    assert titles(shelf, published_from="1816-01-01", **newest) == ["EMIL und die Detektive", "Persuasion"]
    assert titles(shelf, published_from="1900-01-01", published_to="1800-01-01", **newest) == []


def test_pages_forwards_and_backwards_with_totals(shelf: Catalogue) -> None:
    for filters in ({"title": "E"}, {"author": "Jane Austen", "sort": "-published_date"}, {"sort": "author"}):
        everything = titles(shelf, **filters)
        first = shelf.get("/books", params={**filters, "limit": 1}).json()
        assert first.keys() == {"items", "next"}
        seen, page = [first["items"][0]["title"]], first
        while page["next"]:
            page = shelf.get(
                "/books", params={**filters, "limit": 1, "after": page["next"], "count": 1}
            ).json()
            assert (page["total"], "previous" in page) == (len(everything), True)
            seen += [book["title"] for book in page["items"]]
        assert seen == everything
        while page.get("previous"):
            page = shelf.get("/books", params={**filters, "limit": 1, "before": page["previous"]}).json()
            assert "total" not in page
            seen.pop()
            assert page["items"][0]["title"] == seen[-1]
        assert len(seen) == 1


@pytest.mark.parametrize("name", ["limit", "after", "before", "author", "title", "published_from", "count"])
def test_an_empty_parameter_counts_as_absent(shelf: Catalogue, name: str) -> None:
    plain = shelf.get("/books").content
    assert shelf.get(f"/books?{name}=").content == plain
    assert shelf.get(f"/books?{name}=&sort=&published_to=").content == plain
    assert titles(shelf, title="em", author="", limit=2) == ["Émaux et camées", "EMIL und die Detektive"]


GIVEN = {
    "author": {"author": "x"},
    "title": {"title": "x"},
    "tag": {"tag": "x"},
    "published": {"published_to": "1900-01-01"},
}
TOGETHER = [
    ("author",),
    ("title",),
    ("published",),
    ("author", "title"),
    ("tag",),
    ("tag", "published"),
    None,
]


@pytest.mark.parametrize("names", TOGETHER)
def test_what_no_list_serves_is_refused_with_what_can_be_asked_for(shelf: Catalogue, names: Any) -> None:
    names = names or ("author", "title", "tag", "published")
    parameters = {key: value for name in names for key, value in GIVEN[name].items()}
    for sort, lists in LISTS.items():
        asked = {**parameters, "sort": sort}
        answer = shelf.get("/books", params=asked)
        page = shelf.get("/books", params=asked, headers=HTML)
        if names in lists:
            assert (answer.status_code, page.status_code) == (200, 200)
            continue
        assert (answer.status_code, page.status_code) == (422, 422)
        assert answer.headers["content-type"] == "application/problem+json"
        told = errors_of(answer)["sort"]
        assert f"can't be {sort} together with" in told
        assert "sort=-published_date alone, with author, with published_from/published_to" in told
        assert errors_shown(page.text) == {"sort": "Does not go with these filters."}
        by_dates = "by dates, or by author and dates, or by tag, or by tag and dates."
        assert f"Newest first: all books, or by author, or {by_dates}" in page.text
        assert "x" in values_shown(page.text).values() or {"author", "title"}.isdisjoint(names)
        assert ('name="tag" value="x"' in page.text) == ("tag" in names)


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ("sort=price", {"sort": "must be one of title, -published_date, author, -rating"}),
        ("published_from=1900", {"published_from": "must be a date such as 2024-12-31"}),
        ("published_to=31+Feb", {"published_to": "must be a date such as 2024-12-31"}),
        ("author=a&author=b", {"author": "was sent more than once"}),
        ("count=yes", {"count": "must be true or false"}),
        ("after=x&before=y", {"before": "can't be given together with after"}),
        ("before=x", {"before": "is not a cursor that this list has given"}),
        ("offset=3", {"offset": "is not a known field"}),
    ],
)
def test_faulty_parameters_are_named(books: Catalogue, query: str, faults: dict[str, str]) -> None:
    assert errors_of(books.get(f"/books?{query}")) == faults
    page = books.get(f"/books?{query}", headers=HTML)
    assert page.status_code == 422
    [(field, fault)] = faults.items()
    if field in ("sort", "published_from", "published_to", "author"):
        assert errors_shown(page.text)[field].lower() == f"{fault}."
    else:
        assert f"<code>{field}</code> {fault}".replace("'", "&#39;") in page.text
        assert 'type="hidden"' not in page.text


def test_a_cursor_holds_no_filter(shelf: Catalogue) -> None:
    cursor = shelf.get("/books", params={"author": "Jane Austen", "limit": 1}).json()["next"]
    assert titles(shelf, author="Erich Kästner", after=cursor) == []
    assert titles(shelf, author="Erich Kästner", before=cursor) == ["EMIL und die Detektive"]


@pytest.mark.parametrize("query", ["author=Jane+Austen&count=1", "title=emma", "sort=author&limit=2"])
def test_caches_of_filtered_lists(shelf: Catalogue, query: str) -> None:
    answer = shelf.get(f"/books?{query}")
    same = shelf.get(f"/books?{query}", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["cache-status"] == shelf.server.cache_status
    head = shelf.head(f"/books?{query}")
    assert {**head.headers, "date": ""} == {**answer.headers, "date": ""}


def test_the_page_shows_totals_and_links_that_keep_the_filters(shelf: Catalogue) -> None:
    asked = {"author": "Jane Austen", "sort": "-published_date", "limit": "1"}
    page = shelf.get("/books", params=asked, headers=HTML)
    assert rows_of(page) == ["Persuasion"]
    assert "3 books found, newest first" in page.text
    assert values_shown(page.text) | {"title": ""} == {
        **{"title": "", "author": "Jane Austen", "published_from": "", "published_to": ""}
    }
    assert '<option value="-published_date" selected>' in page.text
    assert 'rel="prev"' not in page.text
    [onwards] = re.findall(r'href="([^"]*)" rel="next"', page.text)
    second = shelf.get(onwards.replace("&amp;", "&"), headers=HTML)
    assert rows_of(second) == ["emma"]
    [back] = re.findall(r'href="([^"]*)" rel="prev"', second.text)
    assert rows_of(shelf.get(back.replace("&amp;", "&"), headers=HTML)) == ["Persuasion"]
    [start] = re.findall(r'href="([^"]*)" rel="first"', second.text)
    assert httpx.URL(start.replace("&amp;", "&")).params == httpx.QueryParams(asked)


def test_an_empty_page_says_why(shelf: Catalogue) -> None:
    assert "No books match." in shelf.get("/books", params={"title": "zzz"}, headers=HTML).text
    assert "0 books found" in shelf.get("/books", params={"author": "x"}, headers=HTML).text
    assert "No books match." not in shelf.emptied().get("/books", headers=HTML).text


def test_a_filter_is_escaped_wherever_it_is_shown(shelf: Catalogue) -> None:
    hostile = '"><script>alert(1)</script>'
    for parameters in ({"title": hostile}, {"author": hostile}, {"published_to": hostile}, {"sort": hostile}):
        for more in ({}, {"limit": hostile}):
            page = shelf.get("/books", params={**parameters, **more}, headers=HTML)
            assert "<script" not in page.text
