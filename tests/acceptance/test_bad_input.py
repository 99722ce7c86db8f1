"""What the catalogue refuses, and how it says so."""

from __future__ import annotations

import html
import socket

import pytest

from tests.acceptance.serving import HTML, Catalogue, errors_of, errors_shown, values_shown
from tests.servers import HOST

ADD = "/books/action/add"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MIB = 1 << 20

FAULTY = [
    ("title", None, "must be text"),
    ("title", "", "must not be empty"),
    ("title", " \u3000", "must not be blank"),
    ("title", "a\nb", "must not contain control characters"),
    ("title", "a\x85b", "must not contain control characters"),
    ("title", "x" * 201, "must have at most 200 characters"),
    ("title", ".", 'must not be just "." or "..", which no URL can carry'),
    ("title", "..", 'must not be just "." or "..", which no URL can carry'),
    ("title", 5, "must be text"),
    ("author", "", "must not be empty"),
    ("author", "\x7f", "must not contain control characters"),
    ("author", "x" * 201, "must have at most 200 characters"),
    ("published_date", "2024-02-30", "must be a date such as 2024-12-31"),
    ("published_date", "1 May 2024", "must be a date such as 2024-12-31"),
    ("published_date", 2024, "must be a date such as 2024-12-31"),
    ("isbn", "123", "must have 13 digits, or 10 of which the last may be X"),
    ("isbn", "97804410135X3", "must have 13 digits, or 10 of which the last may be X"),
    ("isbn", "X441013597", "must have 13 digits, or 10 of which the last may be X"),
    ("isbn", "044101359x", "must have 13 digits, or 10 of which the last may be X"),
    ("isbn", "٠٤٤١٠١٣٥٩٧", "must have 13 digits, or 10 of which the last may be X"),
    ("isbn", 9780441013593, "must be text"),
    ("stock_quantity", -1, "must be at least 0"),
    ("stock_quantity", 2147483648, "must be at most 2147483647"),
    ("stock_quantity", None, "must be a whole number"),
    ("stock_quantity", 1.5, "must be a whole number"),
    ("stock_quantity", "3", "must be a whole number"),
    ("stock_quantity", True, "must be a whole number"),
    ("colour", "red", "is not a known field"),
    ("id", 7, "is not a known field"),
]


@pytest.mark.parametrize(("field", "value", "detail"), FAULTY)
def test_a_faulty_field_is_422_and_named(books: Catalogue, field: str, value: object, detail: str) -> None:
    fields = {"title": "Dune", "author": "Frank Herbert", field: value}
    assert errors_of(books.post(ADD, json=fields)) == {field: detail}
    books.add("Dune")
    answer = books.patch("/books/Dune/edit", json={field: value})
    assert answer.status_code == 422
    assert errors_of(answer) == {field: detail}
    assert [book["author"] for book in books.get("/books").json()["items"]] == ["Anon"]


def test_every_faulty_field_is_named_at_once(both: Catalogue) -> None:
    fields = {"title": " ", "published_date": "x", "isbn": "1", "stock_quantity": -1, "colour": "red"}
    answer = both.post(ADD, json=fields)
    assert answer.status_code == 422
    assert errors_of(answer) == {
        "title": "must not be blank",
        "author": "is missing",
        "published_date": "must be a date such as 2024-12-31",
        "isbn": "must have 13 digits, or 10 of which the last may be X",
        "stock_quantity": "must be at least 0",
        "colour": "is not a known field",
    }
    assert answer.json()["title"] == "Some fields are wrong"
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert pointers == {f"#/{name}" for name in [*fields, "author"]}


def test_a_form_shows_every_fault_beside_its_field_and_keeps_what_was_typed(both: Catalogue) -> None:
    typed = {
        "title": " <i>\"&' ",
        "author": "",
        "published_date": "31 Feb",
        "isbn": "12-",
        "stock_quantity": "lots",
    }
    answer = both.post(ADD, data=typed, headers=HTML)
    assert answer.status_code == 422
    assert errors_shown(answer.text) == {
        "author": "Must not be empty.",
        "published_date": "Must be a date such as 2024-12-31.",
        "isbn": "Must have 13 digits, or 10 of which the last may be X.",
        "stock_quantity": "Must be a whole number.",
    }
    assert {name: html.unescape(value) for name, value in values_shown(answer.text).items()} == typed
    assert answer.text.count('aria-invalid="true"') == 4


def test_the_edit_form_does_so_too(both: Catalogue) -> None:
    both.add("Dune")
    typed = {"title": "x" * 201, "author": "A", "published_date": "", "isbn": "1", "stock_quantity": "2"}
    answer = both.post("/books/Dune/edit", data={"_method": "PATCH", **typed}, headers=HTML)
    assert answer.status_code == 422
    assert list(errors_shown(answer.text)) == ["title", "isbn"]
    assert values_shown(answer.text) == typed
    assert both.get("/books/Dune").json()["author"] == "Anon"


TWICE = "title=first&author=A&title=second&isbn=12&published_date=x&stock_quantity=2"


@pytest.mark.parametrize("path", [ADD, "/books/Dune/edit"])
def test_a_form_with_a_field_sent_twice_is_shown_again(books: Catalogue, path: str) -> None:
    books.add("Dune")
    body = TWICE if path == ADD else f"_method=PATCH&{TWICE}"
    answer = books.post(path, content=body, headers={**FORM, **HTML})
    assert answer.status_code == 422
    assert errors_shown(answer.text) == {"title": "Was sent more than once."}
    assert values_shown(answer.text) == {
        **{"title": "first", "author": "A", "published_date": "x", "isbn": "12", "stock_quantity": "2"}
    }
    assert [book["title"] for book in books.get("/books").json()["items"]] == ["Dune"]


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("", "_method must be PATCH, in a form"),
        ("_method=PUT&", "_method must be PATCH"),
        ("_method=PATCH&_method=PATCH&", "_method was sent more than once"),
    ],
)
def test_an_edit_form_that_does_not_say_its_method_is_shown_again(
    books: Catalogue, method: str, fault: str
) -> None:
    books.add("Dune")
    answer = books.post("/books/Dune/edit", content=f"{method}title=Emma&author=A", headers={**FORM, **HTML})
    assert answer.status_code == 422
    assert f"<li>{fault}</li>" in answer.text
    assert values_shown(answer.text)["title"] == "Emma"
    assert books.get("/books/Dune").status_code == 200


def test_a_deletion_with_a_field_sent_twice_deletes_nothing(books: Catalogue) -> None:
    books.add("Dune")
    for headers in (FORM, {**FORM, **HTML}):
        answer = books.post("/books/Dune/delete", content="_method=DELETE&_method=DELETE", headers=headers)
        assert answer.status_code == 422
    assert books.get("/books/Dune").status_code == 200


@pytest.mark.parametrize("path", [ADD, "/books/x/edit", "/books/x/delete"])
def test_thousands_of_unknown_fields_get_a_short_answer(books: Catalogue, path: str) -> None:
    fields = {f"x{number}": 1 for number in range(60_000)}
    method = {ADD: "POST", "/books/x/edit": "PATCH", "/books/x/delete": "DELETE"}[path]
    answer = books.request(method, path, json=fields)
    assert answer.status_code == 422
    assert errors_of(answer)[""] == "… and 59,980 more unknown fields"
    assert len(answer.content) < 4000


def test_a_form_counts_its_unknown_fields_above_it(books: Catalogue) -> None:
    answer = books.post(ADD, data={f"x{number}": "1" for number in range(30)}, headers=HTML)
    assert answer.status_code == 422
    assert "<li>… and 10 more unknown fields</li>" in answer.text


def test_a_field_the_form_has_not_is_named_above_it(books: Catalogue) -> None:
    answer = books.post(ADD, data={"title": "Dune", "author": "A", "colour": "red"}, headers=HTML)
    assert answer.status_code == 422
    assert "<li>colour is not a known field</li>" in answer.text


def test_a_deletion_takes_no_fields(books: Catalogue) -> None:
    books.add("Dune")
    answer = books.request("DELETE", "/books/Dune/delete", json={"really": True})
    assert (answer.status_code, errors_of(answer)) == (422, {"really": "is not a known field"})
    form = {"_method": "DELETE", "title": "Emma"}
    assert list(errors_of(books.post("/books/Dune/delete", data=form))) == ["title"]
    assert books.get("/books/Dune").status_code == 200


def test_a_form_from_a_client_without_html_gets_a_problem_document(books: Catalogue) -> None:
    assert list(errors_of(books.post(ADD, data={"title": "Dune"}))) == ["author"]


def test_a_field_sent_twice_is_named(books: Catalogue) -> None:
    answer = books.post(ADD, content=b"title=a&author=b&title=c", headers=FORM)
    assert answer.status_code == 422
    assert errors_of(answer) == {"title": "was sent more than once"}


@pytest.mark.parametrize("form", [False, True])
def test_a_duplicate_is_409_and_says_of_what(both: Catalogue, form: bool) -> None:
    both.add("Dune", isbn="9780441013593")
    both.add("Emma")
    other_isbn = {"title": "Other", "author": "A", "isbn": "978-0441013593"}
    for fields, column in (({"title": "Dune", "author": "A"}, "title"), (other_isbn, "isbn")):
        answer = both.post(ADD, data=fields) if form else both.post(ADD, json=fields)
        assert answer.status_code == 409
        assert answer.json()["columns"] == [column]
        assert errors_of(answer) == {column: "is already taken"}
    answer = both.patch("/books/Emma/edit", json={"title": "Dune"})
    assert (answer.status_code, answer.json()["columns"]) == (409, ["title"])
    assert [book["title"] for book in both.get("/books").json()["items"]] == ["Dune", "Emma"]


def test_a_form_shows_a_duplicate_beside_its_field(both: Catalogue) -> None:
    both.add("Dune")
    answer = both.post(ADD, data={"title": "Dune", "author": "me", "isbn": ""}, headers=HTML)
    assert answer.status_code == 409
    assert errors_shown(answer.text) == {"title": "Is already taken."}
    assert values_shown(answer.text)["author"] == "me"


MALFORMED = [
    *(b"", b"{", b"{'title': 1}", b'{"title": "\xff"}', b'{"title": "\\ud800"}', b'{"a":1}}'),
    *(b"[" * 100_000, b'{"title":"a","title":"b"}', b"NaN"),
]


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_json_is_400(books: Catalogue, body: bytes) -> None:
    for answer in (
        books.post(ADD, content=body, headers=JSON),
        books.patch("/books/x/edit", content=body, headers=JSON),
    ):
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"[]", b'"Dune"', b"5", b"null"])
def test_json_that_is_no_object_is_422(books: Catalogue, body: bytes) -> None:
    assert books.post(ADD, content=body, headers=JSON).status_code == 422


OTHER_KINDS = ["text/plain", "multipart/form-data; boundary=x", "application/jsonx"]


@pytest.mark.parametrize("kind", [*OTHER_KINDS, "application/json; charset=latin-1"])
def test_an_unknown_media_type_is_415(books: Catalogue, kind: str) -> None:
    answer = books.post(ADD, content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.headers["accept"] == "application/json, application/x-www-form-urlencoded"


def test_a_body_over_1_mib_is_413(books: Catalogue) -> None:
    fields = b'{"author":"A","title":"Dune"}'
    assert books.post(ADD, content=fields.ljust(MIB), headers=JSON).status_code == 201
    answer = books.post(ADD, content=fields.ljust(MIB + 1), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize("header", [f"Content-Length: {64 * MIB}", "Transfer-Encoding: chunked"])
def test_it_is_refused_without_being_read_to_its_end(books: Catalogue, header: str) -> None:
    """The answer comes although the request never ends."""
    head = (
        f"POST {ADD} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n{header}\r\n\r\n".encode()
    )
    with socket.create_connection((HOST, books.server.port), timeout=20) as client:
        client.sendall(head)
        if "chunked" in header:
            client.sendall(b"100001\r\n" + b" " * (MIB + 1) + b"\r\n")
        assert client.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "1.5", "1e2", "5.0", "050", "+5", "null", "9" * 50])
def test_a_bad_limit_is_422(both: Catalogue, limit: str) -> None:
    answer = both.get("/books", params={"limit": limit})
    assert answer.status_code == 422
    assert list(errors_of(answer)) == ["limit"]
    page = both.get("/books", params={"limit": limit}, headers=HTML)
    assert page.status_code == 422
    assert "<code>limit</code> must be" in page.text


@pytest.mark.parametrize("after", ["x", "☃", "AAAA", "x" * 5000, "%00"])
def test_a_bad_cursor_is_422(both: Catalogue, after: str) -> None:
    answer = both.get("/books", params={"after": after})
    assert answer.status_code == 422
    assert list(errors_of(answer)) == ["after"]


def test_an_unknown_or_repeated_parameter_of_the_list_is_422(books: Catalogue) -> None:
    assert errors_of(books.get("/books?page=2")) == {"page": "is not a known field"}
    assert errors_of(books.get("/books?limit=2&limit=3")) == {"limit": "was sent more than once"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/books", "GET, HEAD, OPTIONS"),
        ("DELETE", "/books/Dune", "GET, HEAD, OPTIONS"),
        ("PUT", "/books/Dune", "GET, HEAD, OPTIONS"),
        ("PUT", "/books/Dune/edit", "GET, HEAD, OPTIONS, PATCH, POST"),
        ("GET", "/books/Dune/delete", "DELETE, OPTIONS, POST"),
        ("PATCH", ADD, "GET, HEAD, OPTIONS, POST"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_405_and_the_right_ones_are_named(
    books: Catalogue, method: str, path: str, allow: str
) -> None:
    answer = books.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.headers["content-type"] == "application/problem+json"
    assert books.request(method, path, headers=HTML).status_code == 405


OPTIONS = {
    **{"/books": "GET, HEAD, OPTIONS", ADD: "GET, HEAD, OPTIONS, POST", "/health": "GET, HEAD, OPTIONS"},
    **{"/books/Dune/edit": "GET, HEAD, OPTIONS, PATCH, POST", "/books/x%2Fy/delete": "DELETE, OPTIONS, POST"},
}


@pytest.mark.parametrize(("path", "allow"), OPTIONS.items())
def test_options_names_the_methods_of_the_path(books: Catalogue, path: str, allow: str) -> None:
    answer = books.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allow, b"")


@pytest.mark.parametrize("relation", ["cross-site", "same-site"])
def test_a_form_from_another_site_is_403(books: Catalogue, relation: str) -> None:
    form = {"title": "Dune", "author": "A"}
    for headers in ({"Sec-Fetch-Site": relation}, {"Origin": "http://example.com"}, {"Origin": "null"}):
        assert books.post(ADD, data=form, headers=headers).status_code == 403
        assert books.post("/books/x/edit", data={"_method": "PATCH"}, headers=headers).status_code == 403
        assert books.post("/books/x/delete", data={"_method": "DELETE"}, headers=headers).status_code == 403
        assert books.delete("/books/x/delete", headers=headers).status_code == 403
        assert books.post(ADD, json=form, headers={**HTML, **headers}).status_code == 403
    assert books.get("/books").json()["items"] == []


def test_a_form_of_our_own_and_a_client_without_a_browsers_headers_are_served(books: Catalogue) -> None:
    for number, headers in enumerate(
        ({}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": books.server.url})
    ):
        form = {"title": f"Book {number}", "author": "A"}
        assert books.post(ADD, data=form, headers=headers).status_code == 303
    assert books.get("/books", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/books/%FF", "/books/%C3", "/books/%ED%A0%80", "/books/%", "/books/%zz/edit"]
)
def test_a_path_that_is_not_utf_8_is_400(books: Catalogue, path: str) -> None:
    assert books.raw("GET", path).status == 400
    assert books.raw("GET", path, HTML).status == 400


NOWHERE = ["/books/", "/books//", "/books//edit", "/nowhere", "/books/a/b", "/static/../app.py", "/static/x"]


@pytest.mark.parametrize("path", NOWHERE)
def test_what_is_not_there_is_404(books: Catalogue, path: str) -> None:
    assert books.raw("GET", path).status == 404
    assert books.raw("GET", path, HTML).status == 404
