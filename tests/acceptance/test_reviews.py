"""Reviews of books, in JSON and by forms."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.serving import HTML, Catalogue, errors_of, errors_shown, path_of

HARD = [
    "x/reviews",
    "reviews",
    "x/reviews/1",
    "x/reviews/1/delete",
    "tags",
    "a/tags/b",
    "x/tags",
    "%2Freviews",
]


def review(books: Catalogue, title: str, stars: int, text: str = "Good") -> str:
    """Adds a review; returns its path."""
    answer = books.post(f"{path_of(title)}/reviews", json={"stars": stars, "text": text})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def book_of(books: Catalogue, title: str) -> Any:
    answer = books.get(path_of(title))
    assert answer.headers["cache-status"] == books.server.cache_status
    return answer.json()


def items(books: Catalogue, **parameters: Any) -> Any:
    answer = books.get("/books", params=parameters)
    assert answer.headers["cache-status"] == books.server.cache_status
    return answer.json()["items"]


def test_a_book_without_reviews_has_no_rating(both: Catalogue) -> None:
    both.add("Dune")
    book = book_of(both, "Dune")
    assert (book["review_count"], book["rating"], book["reviews"]) == (0, None, [])
    assert list(book) == [
        *("id", "title", "author", "published_date", "isbn", "stock_quantity"),
        *("tags", "review_count", "rating", "reviews"),
    ]
    assert items(both) == [{name: value for name, value in book.items() if name != "reviews"}]


def test_a_review_is_added_in_json(both: Catalogue) -> None:
    added = both.add("Dune").json()
    answer = both.post("/books/Dune/reviews", json={"stars": 4, "text": "Long\nand good"})
    assert answer.status_code == 201
    assert answer.json() == {**added, "review_count": 1, "rating": 4.0} == items(both)[0]
    [shown] = book_of(both, "Dune")["reviews"]
    assert shown == {"id": shown["id"], "stars": 4, "text": "Long\nand good"}
    assert answer.headers["location"] == f"/books/Dune/reviews/{shown['id']}"


def test_a_book_has_its_newest_five_reviews_and_the_rating_of_all(both: Catalogue) -> None:
    both.add("Dune")
    for number, stars in enumerate([5, 5, 4, 1, 1, 2, 5]):
        review(both, "Dune", stars, f"number {number}")
    book = book_of(both, "Dune")
    assert [shown["text"] for shown in book["reviews"]] == [f"number {number}" for number in (6, 5, 4, 3, 2)]
    assert (book["review_count"], book["rating"]) == (7, 3.29)


@pytest.mark.parametrize(
    ("stars", "rating"),
    [([1, 2], 1.5), ([5, 5, 4], 4.67), ([1] * 7 + [2], 1.13), ([5, 4, 4, 4, 4, 4, 4, 4], 4.13)],
)
def test_ratings_are_rounded_half_up_in_every_answer(
    both: Catalogue, stars: list[int], rating: float
) -> None:
    both.add("Dune")
    for each in stars:
        answer = both.post("/books/Dune/reviews", json={"stars": each, "text": "x"})
    assert answer.json()["rating"] == rating
    assert items(both)[0]["rating"] == book_of(both, "Dune")["rating"] == rating
    assert both.patch("/books/Dune/edit", json={"stock_quantity": 1}).json()["rating"] == rating


def test_a_review_is_deleted(both: Catalogue) -> None:
    both.add("Dune")
    first, second = review(both, "Dune", 1), review(both, "Dune", 5)
    answer = both.delete(first)
    assert (answer.status_code, answer.content) == (204, b"")
    assert both.delete(first).status_code == 404
    book = book_of(both, "Dune")
    assert (book["review_count"], book["rating"]) == (1, 5.0)
    assert [f"/books/Dune/reviews/{shown['id']}" for shown in book["reviews"]] == [second]
    both.delete(second)
    assert items(both)[0]["rating"] is None


def test_a_review_is_deleted_only_at_its_own_book(both: Catalogue) -> None:
    both.add("Dune")
    both.add("Emma")
    number = review(both, "Dune", 3).rpartition("/")[2]
    answer = both.delete(f"/books/Emma/reviews/{number}")
    assert answer.status_code == 404
    assert f"there is no review “{number}” of a book “Emma”" in answer.json()["detail"]
    assert book_of(both, "Dune")["review_count"] == 1


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.0", "01", "9" * 10, "9" * 40, "%20", "٣"])
def test_what_is_no_number_of_a_review_is_404(books: Catalogue, number: str) -> None:
    books.add("Dune")
    review(books, "Dune", 3)
    assert books.delete(f"/books/Dune/reviews/{number}").status_code == 404
    page = books.post(f"/books/Dune/reviews/{number}/delete", headers=HTML, data={"_method": "DELETE"})
    assert (page.status_code, "There is no review" in page.text) == (404, True)


def test_a_review_of_no_book_is_404(both: Catalogue) -> None:
    sent = {"stars": 3, "text": "x"}
    assert both.post("/books/None/reviews", json=sent).status_code == 404
    assert both.post("/books/None/reviews", data=sent, headers=HTML).status_code == 404
    assert both.post("/books/None/reviews", data={"stars": "9"}, headers=HTML).status_code == 404
    assert both.delete("/books/None/reviews/1").status_code == 404


NO_NUMBERS: list[object] = [None, True, False, "3", 1.5, [3], {}]
FAULTY = [
    *(("stars", stars, "must be a whole number") for stars in NO_NUMBERS),
    ("stars", 0, "must be at least 1"),
    ("stars", -1, "must be at least 1"),
    ("stars", 6, "must be at most 5"),
    ("stars", 10**30, "must be at most 5"),
    *(("text", text, "must be text") for text in (None, 5, True, ["x"])),
    ("text", "", "must not be empty"),
    ("text", " \n\t\u3000", "must not be blank"),
    ("text", "x" * 2001, "must have at most 2000 characters"),
    ("text", "x" * 500_000, "must have at most 2000 characters"),
    ("text", "a\x00b", "must not contain control characters"),
    ("text", "a\x7fb", "must not contain control characters"),
    ("colour", "red", "is not a known field"),
    ("title", "Dune", "is not a known field"),
    ("id", 7, "is not a known field"),
]


@pytest.mark.parametrize(("field", "value", "detail"), FAULTY)
def test_a_faulty_field_is_422_and_named(books: Catalogue, field: str, value: object, detail: str) -> None:
    books.add("Dune")
    answer = books.post("/books/Dune/reviews", json={"stars": 3, "text": "x", field: value})
    assert (answer.status_code, errors_of(answer)) == (422, {field: detail})
    assert book_of(books, "Dune")["review_count"] == 0


def test_every_faulty_field_is_named_at_once(books: Catalogue) -> None:
    books.add("Dune")
    faults = errors_of(books.post("/books/Dune/reviews", json={"colour": 1}))
    assert faults == {"colour": "is not a known field", "stars": "is missing", "text": "is missing"}


@pytest.mark.parametrize(
    "text", ["x" * 2000, "😀" * 2000, "<script>alert(1)</script>", " a \u202e b ", "{{ 7 * 7 }}"]
)
def test_text_is_kept_as_it_was_sent(both: Catalogue, text: str) -> None:
    both.add("Dune")
    review(both, "Dune", 3, text)
    assert book_of(both, "Dune")["reviews"][0]["text"] == text
    page = both.get("/books/Dune", headers=HTML).text
    assert "<script" not in page
    assert ("&lt;script&gt;" in page) == ("<script>" in text)


def test_a_review_by_a_form(both: Catalogue) -> None:
    both.add("AC/DC")
    form = {"stars": "5", "text": "Loud.\r\nAnd good."}
    answer = both.post("/books/AC%2FDC/reviews", data=form, headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/books/AC%2FDC")
    assert book_of(both, "AC/DC")["reviews"][0]["text"] == "Loud.\nAnd good."
    page = both.get("/books/AC%2FDC", headers=HTML)
    assert "<bdi>AC/DC</bdi>” was reviewed." in page.text
    [action] = re.findall(r'action="([^"]*/reviews/[0-9]+/delete)"', page.text)
    deleted = both.post(action, data={"_method": "DELETE"}, headers=HTML)
    assert (deleted.status_code, deleted.headers["location"]) == (303, "/books/AC%2FDC")
    assert "A review of “<bdi>AC/DC</bdi>” was deleted." in both.get("/books/AC%2FDC", headers=HTML).text
    assert book_of(both, "AC/DC")["reviews"] == []


def test_a_form_that_is_refused_is_shown_again_with_what_was_typed(both: Catalogue) -> None:
    both.add("Dune")
    page = both.post("/books/Dune/reviews", data={"stars": "", "text": "\n<b>&x"}, headers=HTML)
    assert page.status_code == 422
    assert errors_shown(page.text) == {"stars": "Must not be empty."}
    assert ">\n\n&lt;b&gt;&amp;x</textarea>" in page.text
    page = both.post("/books/Dune/reviews", data={"stars": "4", "text": " "}, headers=HTML)
    assert errors_shown(page.text) == {"text": "Must not be blank."}
    assert '<option value="4" selected>' in page.text
    answer = both.post("/books/Dune/reviews", data={"stars": "4.0"})
    assert sorted(errors_of(answer)) == ["stars", "text"]
    twice = both.post("/books/Dune/reviews", data={"stars": ["4", "5"], "text": "x"})
    assert errors_of(twice) == {"stars": "was sent more than once"}


@pytest.mark.parametrize("fields", [{"_method": "PATCH"}, {"_method": ""}, {"text": "x"}])
def test_a_form_that_means_something_else_deletes_nothing(books: Catalogue, fields: dict[str, str]) -> None:
    books.add("Dune")
    path = review(books, "Dune", 3)
    assert books.post(f"{path}/delete", data=fields).status_code == 422
    assert books.post(path, data=fields).status_code == 405
    assert book_of(books, "Dune")["review_count"] == 1


def test_reviews_go_with_their_book_and_stay_with_a_changed_title(both: Catalogue) -> None:
    both.add("Dune")
    path = review(both, "Dune", 2)
    both.patch("/books/Dune/edit", json={"title": "Dune/2"})
    assert book_of(both, "Dune/2")["review_count"] == 1
    assert both.delete(path).status_code == 404
    assert both.delete("/books/Dune%2F2/delete").status_code == 204
    both.add("Dune/2")
    assert book_of(both, "Dune/2")["reviews"] == []
    assert both.delete(f"/books/Dune%2F2/reviews/{path.rpartition('/')[2]}").status_code == 404


def test_the_best_rated_come_first(both: Catalogue) -> None:
    for title, stars in (("a", [1, 2]), ("b", []), ("c", [5]), ("d", [2, 1]), ("e", [4, 5]), ("f", [])):
        both.add(title)
        for each in stars:
            review(both, title, each)
    best = ["c", "e", "a", "d", "b", "f"]
    assert [book["title"] for book in items(both, sort="-rating")] == best
    found, after = [], ""
    while after is not None:
        page = both.get("/books", params={"sort": "-rating", "limit": 2, "count": 1, "after": after}).json()
        assert page["total"] == 6
        found += [book["title"] for book in page["items"]]
        after = page["next"]
    assert found == best
    html = both.get("/books?sort=-rating", headers=HTML)
    assert "6 books, best rated first" in html.text
    assert 'aria-sort="descending">Rating' in html.text


@pytest.mark.parametrize("title", HARD)
def test_titles_that_look_like_paths_of_reviews(both: Catalogue, title: str) -> None:
    for other in ("x", "a"):
        both.add(other)
    both.add(title)
    path = review(both, title, 5, f"of {title}")
    assert path.startswith(f"{path_of(title)}/reviews/")
    assert book_of(both, title)["reviews"][0]["text"] == f"of {title}"
    assert book_of(both, "x")["reviews"] == book_of(both, "a")["reviews"] == []
    page = both.get(path_of(title), headers=HTML)
    assert f'action="{path}/delete"' in page.text
    assert both.post(f"{path}/delete", data={"_method": "DELETE"}).status_code == 303
    assert book_of(both, title)["reviews"] == []


@pytest.mark.parametrize(
    "path", ["/books/Dune/reviews", "/books/Dune/reviews/1/delete", "/books/Dune/tags", "/tags/a/edit"]
)
def test_a_form_from_another_site_is_403(books: Catalogue, path: str) -> None:
    books.add("Dune")
    assert books.post(path, data={"stars": "1", "text": "x"}, headers={"Origin": "null"}).status_code == 403


def test_caches_notice_a_review(both: Catalogue) -> None:
    both.add("Dune")
    tag = both.get("/books/Dune").headers["etag"]
    assert both.get("/books/Dune", headers={"If-None-Match": tag}).status_code == 304
    review(both, "Dune", 3)
    assert both.get("/books/Dune", headers={"If-None-Match": tag}).status_code == 200
