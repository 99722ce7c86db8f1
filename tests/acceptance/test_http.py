"""What each request of the catalogue is answered with."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.acceptance.serving import HTML, Catalogue, errors_of, path_of, values_shown

DUNE = {"title": "Dune", "author": "Frank Herbert", "published_date": "1965-08-01", "isbn": "9780441013593"}


def titles_of(answer: httpx.Response) -> list[str]:
    return [book["title"] for book in answer.json()["items"]]


def test_an_empty_catalogue_is_an_empty_page(both: Catalogue) -> None:
    answer = both.get("/books")
    assert answer.status_code == 200
    assert answer.content == b'{"items":[],"next":null}'
    assert "no books yet" in both.get("/books", headers=HTML).text


def test_the_list_is_ordered_by_code_point(both: Catalogue) -> None:
    titles = ["b", "B", "a", "é", "e\u0301", "z", "Z", "10", "9", " a", "😀", "\uffff"]
    for title in titles:
        both.add(title)
    assert titles_of(both.get("/books")) == sorted(titles)


def test_the_list_is_paged_with_a_cursor(both: Catalogue) -> None:
    titles = [f"book {number:03}" for number in range(53)]
    for title in titles:
        both.add(title)
    first = both.get("/books")
    assert titles_of(first) == titles[:50]
    second = both.get("/books", params={"after": first.json()["next"]})
    assert titles_of(second) == titles[50:]
    assert second.json()["next"] is None
    assert titles_of(both.get("/books", params={"limit": 500})) == titles
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = both.get("/books", params={"limit": 7} | ({"after": after} if after else {}))
        seen += titles_of(page)
        after = page.json()["next"]
    assert seen == titles


def test_a_book_can_be_added_and_read_in_json(both: Catalogue) -> None:
    answer = both.post("/books/action/add", json={**DUNE, "isbn": "978-0-441-01359-3", "stock_quantity": 3})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/books/Dune"
    own = {"id": answer.json()["id"], **DUNE, "stock_quantity": 3}
    assert answer.json() == {**own, "tags": [], "review_count": 0, "rating": None}
    assert both.get("/books").json()["items"] == [answer.json()]
    found = both.get(answer.headers["location"])
    assert found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    assert found.json() == {**answer.json(), "reviews": []}


def test_fields_left_out_have_defaults(books: Catalogue) -> None:
    book = books.add("Dune").json()
    assert (book["published_date"], book["isbn"], book["stock_quantity"]) == (None, None, 0)


@pytest.mark.parametrize("isbn", ["0441013597", "044101359X", "9780441013593", "978-0-441-01359-3"])
def test_hyphens_of_an_isbn_are_dropped(books: Catalogue, isbn: str) -> None:
    assert books.add("Dune", isbn=isbn).json()["isbn"] == isbn.replace("-", "")


def test_text_is_stored_as_sent(books: Catalogue) -> None:
    title = "  e\u0301 \u00e9  \u200d "
    assert books.add(title, author=" A ").json()["title"] == title
    assert books.get(path_of(title)).json() | {"id": 0} == {
        **{"id": 0, "title": title, "author": " A "},
        **{"published_date": None, "isbn": None, "stock_quantity": 0},
        **{"tags": [], "review_count": 0, "rating": None, "reviews": []},
    }


def test_a_book_can_be_added_by_a_form(both: Catalogue) -> None:
    answer = both.post("/books/action/add", data=DUNE | {"stock_quantity": "3"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/books/Dune")
    assert both.get("/books/Dune").json()["stock_quantity"] == 3


def test_an_empty_form_field_is_null(books: Catalogue) -> None:
    books.post("/books/action/add", data={**DUNE, "published_date": "", "isbn": ""})
    assert books.get("/books/Dune").json()["isbn"] is None
    edited = {"_method": "PATCH", "isbn": "0441013597", "published_date": "1965-08-01"}
    assert books.post("/books/Dune/edit", data=edited).status_code == 303
    assert books.get("/books/Dune").json()["published_date"] == "1965-08-01"
    assert books.post("/books/Dune/edit", data={"_method": "PATCH", "isbn": ""}).status_code == 303
    assert books.get("/books/Dune").json()["isbn"] is None


def test_a_patch_changes_only_the_fields_sent(both: Catalogue) -> None:
    before = both.add(**DUNE).json()
    answer = both.patch("/books/Dune/edit", json={"stock_quantity": 7, "isbn": None})
    assert answer.status_code == 200
    assert answer.json() == {**before, "stock_quantity": 7, "isbn": None}
    assert both.get("/books/Dune").json() == {**answer.json(), "reviews": []}
    assert both.patch("/books/Dune/edit", json={}).json() == answer.json()


def test_a_patch_can_change_the_title(both: Catalogue) -> None:
    both.add("Dune")
    assert both.patch("/books/Dune/edit", json={"title": "Dune Messiah"}).json()["title"] == "Dune Messiah"
    assert both.get("/books/Dune").status_code == 404
    assert both.get("/books/Dune%20Messiah").status_code == 200
    assert titles_of(both.get("/books")) == ["Dune Messiah"]


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_form_can_edit(books: Catalogue, method: str) -> None:
    books.add("Dune")
    data = {"title": "Dune/2"} | ({"_method": "PATCH"} if method == "POST" else {})
    answer = books.request(method, "/books/Dune/edit", data=data)
    assert (answer.status_code, answer.headers["location"]) == (303, "/books/Dune%2F2")
    assert books.get("/books/Dune%2F2").status_code == 200


def test_a_book_can_be_deleted(both: Catalogue) -> None:
    both.add("Dune")
    answer = both.delete("/books/Dune/delete")
    assert (answer.status_code, answer.content) == (204, b"")
    assert both.get("/books/Dune").status_code == 404
    assert both.get("/books").json()["items"] == []
    assert both.delete("/books/Dune/delete").status_code == 404


def test_a_form_can_delete(books: Catalogue) -> None:
    books.add("Dune")
    answer = books.post("/books/Dune/delete", data={"_method": "DELETE"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/books")
    assert books.get("/books/Dune").status_code == 404


@pytest.mark.parametrize("what", ["edit", "delete"])
@pytest.mark.parametrize("fields", [{}, {"_method": "PUT"}, {"_method": ""}, {"_method": "GET"}])
def test_a_post_must_say_which_method_it_means(books: Catalogue, what: str, fields: dict[str, str]) -> None:
    books.add("Dune")
    for sent in ({"data": fields}, {"json": fields}):
        answer = books.request("POST", f"/books/Dune/{what}", **sent)  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert "_method" in errors_of(answer)
    assert books.get("/books/Dune").status_code == 200


def test_the_other_method_is_not_meant_here(books: Catalogue) -> None:
    books.add("Dune")
    assert books.post("/books/Dune/edit", data={"_method": "DELETE"}).status_code == 422
    assert books.post("/books/Dune/delete", data={"_method": "PATCH"}).status_code == 422
    assert books.get("/books/Dune").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "POST"])
def test_a_book_that_is_not_there_is_404(both: Catalogue, method: str) -> None:
    path = {"GET": "", "PATCH": "/edit", "DELETE": "/delete", "POST": "/delete"}[method]
    sent = {"PATCH": {"json": {"author": "A"}}, "POST": {"data": {"_method": "DELETE"}}}.get(method, {})
    answer = both.request(method, f"/books/None{path}", **sent)  # type: ignore[arg-type]
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404
    page = both.request(method, f"/books/None{path}", headers=HTML, **sent)  # type: ignore[arg-type]
    assert page.status_code == 404
    assert "<h1>Not Found</h1>" in page.text
    assert "There is no book “None”" in page.text


def test_the_edit_form_holds_the_book(both: Catalogue) -> None:
    both.add(**DUNE)
    page = both.get("/books/Dune/edit", headers=HTML)
    assert page.status_code == 200
    assert values_shown(page.text) == {**DUNE, "stock_quantity": "0"}
    assert both.get("/books/Dune/edit").json()["isbn"] == DUNE["isbn"]
    assert both.get("/books/None/edit").status_code == 404
    assert both.get("/books/None/edit", headers=HTML).status_code == 404


def test_the_add_form_starts_empty(books: Catalogue) -> None:
    page = books.get("/books/action/add", headers=HTML)
    fields = {"title": "", "author": "", "published_date": "", "isbn": "", "stock_quantity": "0"}
    assert values_shown(page.text) == fields
    null = {"title": None, "author": None, "published_date": None, "isbn": None}
    assert books.get("/books/action/add").json() == {**null, "stock_quantity": 0}


QUERIES = ["/books", "/books?limit=1", "/books/Dune", "/books/Dune/edit", "/books/None", "/books/None/edit"]


@pytest.mark.parametrize("headers", [{}, HTML], ids=["json", "html"])
@pytest.mark.parametrize("path", QUERIES)
def test_answers_to_queries_say_where_they_come_from(
    both: Catalogue, path: str, headers: dict[str, str]
) -> None:
    both.add("Dune")
    answer = both.get(path, headers=headers)
    assert answer.headers["cache-status"] == both.server.cache_status
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("headers", [{}, HTML], ids=["json", "html"])
@pytest.mark.parametrize("path", ["/", "/health", "/books/action/add", "/static/books.css", *QUERIES])
def test_head_works_wherever_get_does(books: Catalogue, path: str, headers: dict[str, str]) -> None:
    books.add("Dune")
    got, head = books.get(path, headers=headers), books.head(path, headers=headers)
    assert head.content == b""
    assert head.status_code == got.status_code
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("application/json;q=0.2, text/html;q=0.5", "text/html; charset=utf-8"),
    ],
)
def test_html_where_the_client_prefers_it_json_otherwise(books: Catalogue, accept: str, kind: str) -> None:
    assert books.get("/books", headers={"Accept": accept}).headers["content-type"] == kind


def test_health(both: Catalogue) -> None:
    answer = both.get("/health")
    assert answer.status_code == 200
    state = answer.json()
    assert (state["status"], state["sql"]) == ("ok", {"state": "up", "engine": "sqlite"})
    served = "redis" if both.server.redis != "none" else "sql"
    assert state["read_models"]["BookReadModel"]["served_by"] == served
    assert state["redis"]["state"] == ("up" if served == "redis" else "off")


def test_the_root_leads_to_the_books(books: Catalogue) -> None:
    answer = books.get("/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/books")


@pytest.mark.parametrize("path", ["/books", "/books/None", "/static/books.css", "/nowhere"])
def test_security_headers(books: Catalogue, path: str) -> None:
    answer = books.get(path, headers=HTML)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_all_that_a_page_loads_is_there_and_our_own(books: Catalogue) -> None:
    page = books.get("/books", headers=HTML).text
    loaded = re.findall(r'<link rel="(\w+)" (?:type="[^"]*" )?href="([^"]*)"', page)
    assert [kind for kind, _ in loaded] == ["icon", "stylesheet", "stylesheet"]
    for _, path in loaded:
        assert path.startswith("/static/")
        assert books.get(path).status_code == 200
    assert "<script" not in page
    assert "style=" not in page
