"""Every title that is allowed can be added, found, renamed and deleted, in JSON and by forms."""

from __future__ import annotations

import html

import pytest

from tests.acceptance.serving import HTML, Catalogue, path_of, values_shown
from tests.acceptance.titles import TITLES


@pytest.mark.parametrize("title", TITLES)
def test_a_title_in_json(both: Catalogue, title: str) -> None:
    added = both.add(title)
    assert added.headers["location"] == path_of(title)
    assert both.get(path_of(title)).json()["title"] == title
    assert both.get(path_of(title)).headers["cache-status"] == both.server.cache_status
    assert [book["title"] for book in both.get("/books").json()["items"]] == [title]
    assert both.patch(f"{path_of(title)}/edit", json={"title": "plain"}).status_code == 200
    assert both.get(path_of(title)).status_code == 404
    assert both.patch("/books/plain/edit", json={"title": title}).json()["title"] == title
    assert both.delete(f"{path_of(title)}/delete").status_code == 204
    assert both.get(path_of(title)).status_code == 404


@pytest.mark.parametrize("title", TITLES)
def test_a_title_in_forms(books: Catalogue, title: str) -> None:
    added = books.post("/books/action/add", data={"title": title, "author": title}, headers=HTML)
    assert (added.status_code, added.headers["location"]) == (303, path_of(title))
    shown = html.escape(title, quote=False)
    assert shown in _unquoted(books.get(path_of(title), headers=HTML).text)
    assert f'href="{path_of(title)}"' in books.get("/books", headers=HTML).text
    form = values_shown(books.get(f"{path_of(title)}/edit", headers=HTML).text)
    assert html.unescape(form["title"]) == title
    renamed = books.post(f"{path_of(title)}/edit", data={"_method": "PATCH", "title": "plain"}, headers=HTML)
    assert renamed.headers["location"] == "/books/plain"
    renamed = books.post("/books/plain/edit", data={"_method": "PATCH", "title": title}, headers=HTML)
    assert renamed.headers["location"] == path_of(title)
    deleted = books.post(f"{path_of(title)}/delete", data={"_method": "DELETE"}, headers=HTML)
    assert (deleted.status_code, deleted.headers["location"]) == (303, "/books")
    assert books.get("/books").json()["items"] == []


def test_neither_of_two_alike_titles_is_taken_for_the_other(both: Catalogue) -> None:
    alike = [
        "x",
        "x/edit",
        "x%2Fedit",
        "x/delete",
        "action",
        "action/add",
        "X",
        "é",
        "e\u0301",
        "a b",
        "a+b",
        " x",
    ]
    for title in alike:
        both.add(title, author=f"of {title}")
    for title in alike:
        assert both.get(path_of(title)).json()["author"] == f"of {title}"
    assert both.get("/books/x/edit").json()["title"] == "x"
    assert both.get("/books/action/edit").json()["title"] == "action"
    assert both.delete("/books/x%2Fdelete/delete").status_code == 204
    assert both.get("/books/x").status_code == 200
    assert "Add a book" in both.get("/books/action/add", headers=HTML).text


def test_a_title_longer_than_any_is_404_and_shown_in_part(books: Catalogue) -> None:
    answer = books.get(path_of("x" * 1000))
    assert answer.status_code == 404
    assert len(answer.json()["detail"]) < 200


def _unquoted(page: str) -> str:
    return page.replace("&#34;", '"').replace("&#39;", "'")
