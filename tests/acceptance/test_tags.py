"""Tags of books, and the tags themselves, in JSON and by forms."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.acceptance.serving import HTML, Catalogue, errors_of, errors_shown, path_of, values_shown
from tests.acceptance.titles import TITLES


def put(books: Catalogue, title: str, *names: str) -> Any:
    """Sets the tags of a book; returns the book."""
    answer = books.put(f"{path_of(title)}/tags", json={"tags": names})
    assert answer.status_code == 200, answer.text
    return answer.json()


def tag_path(name: str) -> str:
    return f"/tags/{quote(name, safe='')}"


def tags(books: Catalogue, **parameters: Any) -> list[tuple[str, int]]:
    answer = books.get("/tags", params=parameters)
    assert answer.headers["cache-status"] == books.server.cache_status
    return [(tag["name"], tag["books"]) for tag in answer.json()["items"]]


def titles(books: Catalogue, **parameters: Any) -> list[str]:
    answer = books.get("/books", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-status"] == books.server.cache_status
    return [book["title"] for book in answer.json()["items"]]


def tags_of(books: Catalogue, title: str) -> list[str]:
    """The tags of a book in its document and in lists, which must be the same."""
    answer = books.get(path_of(title))
    assert answer.headers["cache-status"] == books.server.cache_status
    [listed] = [book for book in books.get("/books?limit=500").json()["items"] if book["title"] == title]
    assert listed["tags"] == answer.json()["tags"]
    names: list[str] = listed["tags"]
    return names


def test_without_books_there_are_no_tags(both: Catalogue) -> None:
    assert both.get("/tags").content == b'{"items":[],"next":null}'
    assert "There are no tags yet." in both.get("/tags", headers=HTML).text


def test_the_tags_of_a_book_are_set_and_sorted_by_code_point(both: Catalogue) -> None:
    added = both.add("Dune").json()
    book = put(both, "Dune", "sf", "classic", "É", "SF")
    assert book == {**added, "tags": ["SF", "classic", "sf", "É"]}
    assert tags_of(both, "Dune") == book["tags"]
    assert put(both, "Dune", "sf", "new")["tags"] == tags_of(both, "Dune") == ["new", "sf"]
    assert put(both, "Dune", "sf", "new")["tags"] == tags_of(both, "Dune") == ["new", "sf"]
    assert put(both, "Dune")["tags"] == tags_of(both, "Dune") == []


def test_tags_are_counted_and_go_with_their_last_book(both: Catalogue) -> None:
    for title, names in (("a", ["x", "y"]), ("b", ["y", "z"]), ("c", ["y", "z", "w"])):
        both.add(title)
        put(both, title, *names)
    assert tags(both) == [("y", 3), ("z", 2), ("w", 1), ("x", 1)]
    both.delete("/books/c/delete")
    assert tags(both) == [("y", 2), ("x", 1), ("z", 1)]
    put(both, "a", "z")
    assert tags(both) == [("z", 2), ("y", 1)]
    assert both.patch("/tags/y", json={"name": "x"}).json() == {"name": "x", "books": 1}


def test_tags_are_paged(both: Catalogue) -> None:
    for number in range(5):
        both.add(f"book {number}")
        put(both, f"book {number}", *(f"tag {n}" for n in range(number + 1)))
    whole = [(f"tag {n}", 5 - n) for n in range(5)]
    first = both.get("/tags", params={"limit": 2, "count": 1}).json()
    assert first["total"] == 5
    assert tags(both, limit=2, after=first["next"]) == whole[2:4]
    second = both.get("/tags", params={"limit": 2, "after": first["next"]}).json()
    assert tags(both, limit=2, before=second["previous"]) == whole[:2]
    page = both.get("/tags?limit=2", headers=HTML)
    assert "5 tags, those of most books first" in page.text
    [onwards] = re.findall(r'href="([^"]*)" rel="next"', page.text)
    following = both.get(onwards.replace("&amp;", "&"), headers=HTML).text
    assert ("tag 2" in following, "limit=2" in onwards, 'rel="prev"' in following) == (True, True, True)


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("after=x", "after"), ("sort=name", "sort"), ("limit=1&limit=2", "limit")],
)
def test_a_faulty_parameter_of_the_tags_is_422(books: Catalogue, query: str, field: str) -> None:
    assert list(errors_of(books.get(f"/tags?{query}"))) == [field]
    assert books.get(f"/tags?{query}", headers=HTML).status_code == 422


FAULTY = [
    (None, {"tags": "must be a list"}),
    ("sf", {"tags": "must be a list"}),
    ({"a": "b"}, {"tags": "must be a list"}),
    (["a", ""], {"tags.1": "must not be empty"}),
    (["\u3000"], {"tags.0": "must not be blank"}),
    (["a\nb"], {"tags.0": "must not contain control characters"}),
    ([".."], {"tags.0": 'must not be just "." or "..", which no URL can carry'}),
    (["x" * 201], {"tags.0": "must have at most 200 characters"}),
    (["x" * 500_000], {"tags.0": "must have at most 200 characters"}),
    ([5, None, True], {f"tags.{n}": "must be text" for n in range(3)}),
    ([f"{n}" for n in range(21)], {"tags": "must have at most 20 items"}),
    (["a", "b", "a"], {"tags": "must not have the same name twice: “a”"}),
]


@pytest.mark.parametrize(("sent", "faults"), FAULTY)
def test_faulty_tags_are_422_and_named(books: Catalogue, sent: Any, faults: dict[str, str]) -> None:
    books.add("Dune")
    put(books, "Dune", "sf")
    answer = books.put("/books/Dune/tags", json={"tags": sent})
    assert (answer.status_code, errors_of(answer)) == (422, faults)
    assert tags_of(books, "Dune") == ["sf"]


@pytest.mark.parametrize("sent", [{}, {"tags": [], "keep": ["a"]}, {"tags": [], "title": "x"}, {"tag": "a"}])
def test_other_fields_are_422(books: Catalogue, sent: dict[str, Any]) -> None:
    books.add("Dune")
    assert books.put("/books/Dune/tags", json=sent).status_code == 422


def test_names_are_compared_as_titles_are_by_code_point(both: Catalogue) -> None:
    both.add("Dune")
    alike = ["é", "e\u0301", "sf", "SF", " sf", "sf ", "s\u200bf"]
    assert put(both, "Dune", *alike)["tags"] == sorted(alike)
    for name in alike:
        assert titles(both, tag=name) == ["Dune"]
    assert titles(both, tag="Sf") == titles(both, tag="x" * 5000) == []


def test_twenty_tags_are_not_too_many(books: Catalogue) -> None:
    books.add("Dune")
    names = [f"{n:02}" + "x" * 198 for n in range(20)]
    assert put(books, "Dune", *names)["tags"] == tags_of(books, "Dune") == names


def test_tags_of_no_book_are_404(both: Catalogue) -> None:
    assert both.put("/books/None/tags", json={"tags": ["a"]}).status_code == 404
    assert both.post("/books/None/tags", data={"tags": "a"}, headers=HTML).status_code == 404
    assert both.post("/books/None/tags", data={"tags": "a,a"}, headers=HTML).status_code == 404
    assert tags(both) == []


def test_books_with_a_tag_in_each_order(both: Catalogue) -> None:
    shelf = (("c", "2001-01-01", 3), ("a", None, 5), ("b", "2003-01-01", None), ("d", "2002-01-01", 4))
    for title, published, stars in shelf:
        both.add(title, published_date=published)
        if stars:
            both.post(f"/books/{title}/reviews", json={"stars": stars, "text": "x"})
        if title != "d":
            put(both, title, "sf", "other")
    assert titles(both, tag="sf") == titles(both, tag="sf", sort="title") == ["a", "b", "c"]
    assert titles(both, tag="sf", sort="-published_date") == ["b", "c", "a"]
    assert titles(both, tag="sf", sort="-published_date", published_to="2002-12-31") == ["c"]
    assert titles(both, tag="sf", sort="-rating") == ["a", "c", "b"]
    assert titles(both, tag="none") == []
    page = both.get("/books", params={"tag": "sf", "limit": 2, "count": 1}).json()
    assert page["total"] == 3
    assert titles(both, tag="sf", limit=2, after=page["next"]) == ["c"]
    assert errors_of(both.get("/books?tag=sf&tag=other")) == {"tag": "was sent more than once"}
    assert both.get("/books?tag=").content == both.get("/books").content


@pytest.mark.parametrize("more", [{"author": "x"}, {"title": "x"}, {"sort": "author"}])
def test_what_does_not_go_with_a_tag_is_422(both: Catalogue, more: dict[str, str]) -> None:
    answer = both.get("/books", params={"tag": "sf", **more})
    assert answer.status_code == 422
    assert "sort=-rating alone, with tag" in errors_of(answer)["sort"]
    page = both.get("/books", params={"tag": "sf", **more}, headers=HTML)
    assert "Best rated: all books, or by tag." in page.text


def test_a_tag_is_renamed_in_every_book_at_the_acknowledgement(both: Catalogue) -> None:
    for number in range(30):
        both.add(f"book {number:02}")
        put(both, f"book {number:02}", "sf", "z")
    whole = titles(both)
    for name in ("a/b", "aa", "sf"):
        before = tags(both)[0][0]
        answer = both.patch(tag_path(before), json={"name": name})
        assert (answer.status_code, answer.json()) == (200, {"name": name, "books": 30})
        assert titles(both, tag=name) == whole
        assert titles(both, tag=before) == []
        assert tags(both) == [(name, 30), ("z", 30)]
        for title in whole:
            assert both.get(path_of(title)).json()["tags"] == [name, "z"]
        assert {tuple(book["tags"]) for book in both.get("/books").json()["items"]} == {(name, "z")}


def test_the_name_of_another_tag_is_409(both: Catalogue) -> None:
    both.add("Dune")
    put(both, "Dune", "sf", "classic")
    answer = both.patch("/tags/sf", json={"name": "classic"})
    assert (answer.status_code, answer.json()["columns"]) == (409, ["name"])
    assert errors_of(answer) == {"name": "is already taken"}
    assert tags_of(both, "Dune") == ["classic", "sf"]
    assert both.patch("/tags/sf", json={"name": "sf"}).status_code == 200
    page = both.post("/tags/sf/edit", data={"_method": "PATCH", "name": "classic"}, headers=HTML)
    assert (page.status_code, errors_shown(page.text)) == (409, {"name": "Is already taken."})
    assert values_shown(page.text) == {"name": "classic"}


@pytest.mark.parametrize(
    ("sent", "faults"),
    [
        ({}, {"name": "is missing"}),
        ({"name": ""}, {"name": "must not be empty"}),
        ({"name": " "}, {"name": "must not be blank"}),
        ({"name": "x" * 201}, {"name": "must have at most 200 characters"}),
        ({"name": None}, {"name": "must be text"}),
        ({"name": "a", "books": 3}, {"books": "is not a known field"}),
    ],
)
def test_a_faulty_new_name_is_422(books: Catalogue, sent: dict[str, Any], faults: dict[str, str]) -> None:
    books.add("Dune")
    put(books, "Dune", "sf")
    assert errors_of(books.patch("/tags/sf", json=sent)) == faults
    assert tags(books) == [("sf", 1)]


def test_a_tag_that_is_not_there_is_404(both: Catalogue) -> None:
    answer = both.patch("/tags/none", json={"name": "x"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no tag “none”")
    assert both.post("/tags/none/edit", data={"name": "x"}, headers=HTML).status_code == 404
    assert both.get("/tags/none/edit").status_code == 404
    assert both.get("/tags/none/edit", headers=HTML).status_code == 404


def test_a_tag_is_renamed_by_a_form(both: Catalogue) -> None:
    both.add("Dune")
    put(both, "Dune", "s/f")
    path = f"{tag_path('s/f')}/edit"
    assert f'href="{path}"' in both.get("/tags", headers=HTML).text
    assert values_shown(both.get(path, headers=HTML).text) == {"name": "s/f"}
    assert both.get(path).json() == {"name": "s/f", "books": 1}
    answer = both.post(path, data={"_method": "PATCH", "name": "a&b"}, headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/books?tag=a%26b")
    shown = both.get(answer.headers["location"], headers=HTML).text
    assert "The tag is now called “<bdi>a&amp;b</bdi>”." in shown
    assert "1 book found" in shown


def test_tags_by_a_form(both: Catalogue) -> None:
    both.add("Dune")
    for sent, found in (
        ({"tags": "sf"}, ["sf"]),
        ({"tags": "classic, sf ,, "}, ["classic", "sf"]),
        ({"tags": "b\r\na"}, ["a", "b"]),
        ({"tags": ["x", "y"]}, ["x", "y"]),
        ({"keep": ["x, z", "y"], "tags": "new"}, ["new", "x, z", "y"]),
        ({"keep": ["x, z"], "tags": ""}, ["x, z"]),
        ({"_method": "PUT"}, []),
    ):
        answer = both.post("/books/Dune/tags", data=sent, headers=HTML)
        assert (answer.status_code, answer.headers["location"]) == (303, "/books/Dune")
        assert tags_of(both, "Dune") == found
    assert "<bdi>Dune</bdi>” was tagged." in both.get("/books/Dune", headers=HTML).text


def test_tags_that_are_refused_are_shown_again(both: Catalogue) -> None:
    both.add("Dune")
    put(both, "Dune", "a,b", "<i>")
    sent = {"_method": "PUT", "keep": ["<i>"], "tags": "<b>, new, <b>"}
    page = both.post("/books/Dune/tags", data=sent, headers=HTML)
    assert page.status_code == 422
    assert errors_shown(page.text) == {"tags": "The tags must not have the same name twice: “&lt;b&gt;”."}
    assert values_shown(page.text) == {"tags": "&lt;b&gt;, new, &lt;b&gt;"}
    boxes = re.findall(r'<input type="checkbox" name="keep" value="([^"]*)"( checked)?>', page.text)
    assert boxes == [("&lt;i&gt;", " checked"), ("a,b", "")]
    long = both.post("/books/Dune/tags", data={"tags": "x" * 300}, headers=HTML)
    assert errors_shown(long.text) == {"tags": f"“{'x' * 80}…” must have at most 200 characters."}
    other = both.post("/books/Dune/tags", data={"_method": "PATCH", "tags": "x"}, headers=HTML)
    assert errors_shown(other.text) == {"tags": "_method must be PUT."}
    assert tags_of(both, "Dune") == ["<i>", "a,b"]


def test_the_pages_lead_to_the_books_of_a_tag(both: Catalogue) -> None:
    both.add("Dune")
    both.add("Emma")
    put(both, "Dune", "R&D <x>")
    link = 'href="/books?tag=R%26D+%3Cx%3E"'
    for path in ("/books", "/books/Dune", "/tags"):
        assert link in both.get(path, headers=HTML).text
    page = both.get("/books", params={"tag": "R&D <x>", "limit": 1, "sort": "-rating"}, headers=HTML).text
    assert "1 book found with the tag “" in page
    assert ("Dune" in page, "Emma" in page) == (True, False)
    assert '<input type="hidden" name="tag" value="R&amp;D &lt;x&gt;">' in page
    assert 'href="/books?sort=-rating&amp;limit=1" aria-label="Books with and without the tag' in page


@pytest.mark.parametrize("name", TITLES)
def test_every_title_can_be_a_name(books: Catalogue, name: str) -> None:
    books.add("x/tags")
    put(books, "x/tags", name)
    assert tags_of(books, "x/tags") == [name]
    assert titles(books, tag=name) == ["x/tags"]
    assert books.get(f"{tag_path(name)}/edit").json() == {"name": name, "books": 1}
    assert books.patch(tag_path(name), json={"name": "plain"}).status_code == 200
    assert books.patch("/tags/plain", json={"name": name}).json() == {"name": name, "books": 1}


@pytest.mark.parametrize("title", ["tags", "a/tags/b", "x/tags", "x/reviews", "edit", "action"])
def test_titles_that_look_like_paths_of_tags(both: Catalogue, title: str) -> None:
    for other in ("x", "a"):
        both.add(other)
    both.add(title)
    put(both, title, "sf")
    assert tags_of(both, title) == ["sf"]
    assert tags_of(both, "x") == tags_of(both, "a") == []
    assert f'action="{path_of(title)}/tags"' in both.get(path_of(title), headers=HTML).text
    assert both.post(f"{path_of(title)}/tags", data={"tags": "new"}).status_code == 303
    assert titles(both, tag="new") == [title]


def test_new_tags_set_at_once_by_many_are_there_once(books: Catalogue) -> None:
    for number in range(8):
        books.add(f"book {number}")
    with ThreadPoolExecutor(8) as pool:
        for round_number in range(3):
            names = [f"{round_number}-{n}" for n in range(5)]
            list(pool.map(lambda n, names=names: put(books, f"book {n}", *names), range(8)))
            assert tags(books) == [(name, 8) for name in names]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/books/Dune/tags", "OPTIONS, POST, PUT"),
        ("GET", "/books/Dune/reviews", "OPTIONS, POST"),
        ("GET", "/books/Dune/reviews/1", "DELETE, OPTIONS"),
        ("GET", "/books/Dune/reviews/1/delete", "OPTIONS, POST"),
        ("POST", "/tags", "GET, HEAD, OPTIONS"),
        ("GET", "/tags/sf", "OPTIONS, PATCH"),
        ("PUT", "/tags/sf/edit", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_a_wrong_method_is_405(books: Catalogue, method: str, path: str, allow: str) -> None:
    answer = books.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/tags", "/tags?limit=1&count=1", "/tags/sf/edit"])
def test_answers_say_where_they_come_from(both: Catalogue, path: str) -> None:
    both.add("Dune")
    put(both, "Dune", "sf")
    for headers in ({}, HTML):
        answer = both.get(path, headers=headers)
        assert answer.headers["cache-status"] == both.server.cache_status
        assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", "no-cache")
        head = both.head(path, headers=headers)
        assert {**head.headers, "date": ""} == {**answer.headers, "date": ""}
    etag = both.get(path).headers["etag"]
    assert both.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_a_field_of_the_form_that_reads_like_a_tag_is_refused(both: Catalogue) -> None:
    both.add("Dune")
    for name in ("tags.99", "tags.0", "tags.x"):
        page = both.post("/books/Dune/tags", data={"tags": "a", name: "x"}, headers=HTML)
        assert page.status_code == 422
