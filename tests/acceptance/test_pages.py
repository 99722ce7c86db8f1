"""The pages in a real browser, without JavaScript."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.acceptance.browsing import launched, opened
from tests.acceptance.serving import Catalogue, path_of

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with launched(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, books: Catalogue) -> AsyncIterator[Page]:
    """A page of the empty catalogue."""
    async with opened(browser, books.server.url) as page:
        yield page


async def fill(page: Page, **fields: str) -> None:
    for label, text in fields.items():
        await page.get_by_label(label.replace("_", " ")).fill(text)


async def test_a_book_is_added(page: Page, books: Catalogue) -> None:
    await page.goto("/")
    await expect(page.get_by_text("There are no books yet.")).to_be_visible()
    await page.get_by_role("link", name="Add the first one.").click()
    await fill(page, Title="Dune", Author="Frank Herbert", First_published="1965-08-01", Copies="3")
    await page.get_by_role("button", name="Add the book").click()
    await expect(page).to_have_url(f"{books.server.url}/books/Dune")
    await expect(page.get_by_role("status")).to_have_text("“Dune” was added.")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Dune")
    await expect(page.get_by_text("1965-08-01")).to_be_visible()
    await page.get_by_role("link", name="All books").click()
    await expect(page.get_by_role("row", name="Dune Frank Herbert")).to_be_visible()


async def test_what_happened_is_said_once(page: Page) -> None:
    await page.goto("/books/action/add")
    await fill(page, Title="<b>Dune</b> & “more”", Author="A")
    await page.get_by_role("button", name="Add the book").click()
    await expect(page.get_by_role("status")).to_have_text("“<b>Dune</b> & “more”” was added.")
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.get_by_role("status")).to_have_count(0)


async def test_a_book_is_edited(page: Page, books: Catalogue) -> None:
    books.add("Dune", published_date="1965-08-01", isbn="9780441013593", stock_quantity=2)
    await page.goto("/books/Dune")
    await page.get_by_role("link", name="Edit").click()
    await expect(page.get_by_label("ISBN")).to_have_value("9780441013593")
    await fill(page, Title="Dune Messiah", ISBN="", Copies="5")
    await page.get_by_role("button", name="Save").click()
    await expect(page).to_have_url(f"{books.server.url}/books/Dune%20Messiah")
    await expect(page.get_by_role("status")).to_have_text("“Dune Messiah” was changed.")
    book = books.get("/books/Dune%20Messiah").json()
    assert (book["isbn"], book["stock_quantity"], book["published_date"]) == (None, 5, "1965-08-01")


async def test_a_deletion_is_confirmed(page: Page, books: Catalogue) -> None:
    books.add("Dune")
    await page.goto("/books/Dune")
    yes = page.get_by_role("button", name="Yes, delete it")
    await expect(yes).to_be_hidden()
    await page.locator("summary", has_text="Delete").click()
    await expect(page.get_by_text("Delete “Dune” for good?")).to_be_visible()
    await yes.click()
    await expect(page).to_have_url(f"{books.server.url}/books")
    await expect(page.get_by_role("status")).to_have_text("“Dune” was deleted.")
    assert books.get("/books/Dune").status_code == 404


async def test_errors_are_beside_the_fields_and_what_was_typed_stays(page: Page) -> None:
    await page.goto("/books/action/add")
    await fill(page, Title="  ", Author='"><i>A</i>', First_published="31 Feb", ISBN="12-3", Copies="many")
    await page.get_by_role("button", name="Add the book").click()
    await expect(page).to_have_title("Error: Add a book – Books")
    summary = page.get_by_role("alert")
    await expect(summary).to_be_focused()
    await expect(summary.get_by_role("link")).to_have_count(4)
    for label, typed, error in (
        ("Title", "  ", "Must not be blank."),
        ("First published", "31 Feb", "Must be a date such as 2024-12-31."),
        ("ISBN", "12-3", "Must have 13 digits, or 10 of which the last may be X."),
        ("Copies in stock", "many", "Must be a whole number."),
    ):
        field = page.get_by_label(label)
        await expect(field).to_have_value(typed)
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(f"{error} {await hint_of(page, label)}".strip())
    await expect(page.get_by_label("Author")).to_have_value('"><i>A</i>')
    await summary.get_by_role("link", name="ISBN").click()
    await expect(page.get_by_label("ISBN")).to_be_focused()


async def hint_of(page: Page, label: str) -> str:
    return await page.locator(".field", has=page.get_by_label(label)).locator(".hint").inner_text()


async def test_a_taken_title_is_said_beside_the_title_and_can_be_mended(page: Page, books: Catalogue) -> None:
    books.add("Dune")
    books.add("Emma")
    await page.goto("/books/Emma/edit")
    await fill(page, Title="Dune", Author="Someone")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Is already taken.", exact=True)).to_be_visible()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Edit “Emma”")
    await expect(page.get_by_label("Author")).to_have_value("Someone")
    await fill(page, Title="Emma II")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_have_text("“Emma II” was changed.")


async def test_long_lists_are_paged(page: Page, books: Catalogue) -> None:
    for number in range(5):
        books.add(f"Book {number}")
    await page.goto("/books?limit=2")
    seen = await page.get_by_role("rowheader").all_inner_texts()
    while await page.get_by_role("link", name="Next page").count():
        await page.get_by_role("link", name="Next page").click()
        await expect(page.get_by_role("link", name="Back to the start")).to_be_visible()
        seen += await page.get_by_role("rowheader").all_inner_texts()
    assert seen == [f"Book {number}" for number in range(5)]
    await page.get_by_role("link", name="Back to the start").click()
    await expect(page.get_by_role("rowheader").first).to_have_text("Book 0")
    await expect(page.get_by_role("rowheader")).to_have_count(2)


async def test_problems_are_readable_pages(page: Page) -> None:
    for path, words in (
        ("/books/None", "There is no book “None”."),
        ("/books?after=x", "after"),
        ("/nowhere", "There is nothing at this address."),
    ):
        await page.goto(path)
        await expect(page.get_by_role("main")).to_contain_text(words)
        await page.get_by_role("link", name="All books").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("The catalogue")


# Those that a browser could take for something else; the others are in titles.py.
HOSTILE = ["AC/DC", "x%2Fy", "what?#", "../", "..\\x", "...", " a  b ", "action/add"]


async def test_hostile_titles_are_found_edited_and_deleted_by_following_links(
    page: Page, books: Catalogue
) -> None:
    for title in HOSTILE:
        books.add(title)
    await page.goto("/books")
    assert await page.get_by_role("rowheader").all_text_contents() == sorted(HOSTILE)
    for number, title in enumerate(sorted(HOSTILE)):
        await page.get_by_role("rowheader").first.get_by_role("link").click()
        assert await page.get_by_role("heading", level=1).text_content() == title
        await page.get_by_role("link", name="Edit").click()
        await expect(page.get_by_label("Title")).to_have_value(title)
        await fill(page, Author=f"Author {number}")
        await page.get_by_role("button", name="Save").click()
        assert books.get(path_of(title)).json()["author"] == f"Author {number}"
        await page.locator("summary").click()
        await page.get_by_role("button", name="Yes, delete it").click()
        assert await page.get_by_role("status").locator("bdi").text_content() == title
    assert books.get("/books").json()["items"] == []


async def test_a_book_is_reviewed_and_a_review_removed(page: Page, books: Catalogue) -> None:
    books.add("Dune")
    await page.goto("/books/Dune")
    await expect(page.get_by_text("Nobody has reviewed this book yet.")).to_be_visible()
    await page.get_by_role("button", name="Add the review").click()
    await expect(page).to_have_title("Error: Dune – Books")
    await expect(page.get_by_role("alert")).to_be_focused()
    await expect(page.get_by_label("Stars")).to_have_accessible_description("Must not be empty.")
    await page.get_by_role("alert").get_by_role("link", name="Review").click()
    await expect(page.get_by_label("Review", exact=True)).to_be_focused()
    await page.get_by_label("Stars").select_option("4 stars")
    await page.get_by_label("Review", exact=True).fill("Long\n<b>and</b> good")
    await page.get_by_role("button", name="Add the review").click()
    await expect(page).to_have_url(f"{books.server.url}/books/Dune")
    await expect(page.get_by_role("status")).to_have_text("“Dune” was reviewed.")
    await expect(page.get_by_text("4.00 of 5")).to_be_visible()
    review = page.get_by_role("article", name="Review, 4 of 5 stars")
    await expect(review.get_by_text("Long <b>and</b> good")).to_be_visible()
    await expect(review.get_by_role("img", name="4 of 5 stars")).to_be_visible()
    await review.get_by_role("button", name="Remove the review “Long").click()
    await expect(page.get_by_role("status")).to_have_text("A review of “Dune” was deleted.")
    assert books.get("/books/Dune").json()["reviews"] == []


async def test_tags_are_set_followed_and_renamed(page: Page, books: Catalogue) -> None:
    books.add("Dune")
    books.add("Emma")
    await page.goto("/books/Dune")
    await fill(page, New_tags="sf, desert, sf")
    await page.get_by_role("button", name="Save the tags").click()
    await expect(page.get_by_label("New tags")).to_have_value("sf, desert, sf")
    await page.get_by_role("alert").get_by_role("link").click()
    await expect(page.get_by_label("New tags")).to_be_focused()
    await fill(page, New_tags="sf, desert")
    await page.get_by_role("button", name="Save the tags").click()
    await expect(page.get_by_role("status")).to_have_text("“Dune” was tagged.")
    await page.get_by_role("checkbox", name="desert").uncheck()
    await fill(page, New_tags="classic")
    await page.get_by_role("button", name="Save the tags").click()
    tags = page.get_by_role("list", name="Tags")
    await expect(tags.get_by_role("listitem")).to_have_text(["classic", "sf"])
    await tags.get_by_role("link", name="sf").click()
    await expect(page.get_by_text("1 book found with the tag “sf”, by title")).to_be_visible()
    await page.get_by_label("Sort by").select_option("Best rated")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("rowheader")).to_have_text(["Dune"])
    await page.get_by_role("link", name="Books with and without the tag sf").click()
    await expect(page.get_by_text("2 books, best rated first")).to_be_visible()
    await page.get_by_role("navigation", name="Main").get_by_role("link", name="Tags").click()
    await expect(page.get_by_role("rowheader")).to_have_text(["classic", "sf"])
    await page.get_by_role("link", name="Rename sf").click()
    await expect(page.get_by_label("Name")).to_have_value("sf")
    await fill(page, Name="classic")
    await page.get_by_role("button", name="Rename it").click()
    await expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await fill(page, Name="science fiction")
    await page.get_by_role("button", name="Rename it").click()
    await expect(page.get_by_role("status")).to_have_text("The tag is now called “science fiction”.")
    assert books.get("/books/Dune").json()["tags"] == ["classic", "science fiction"]


async def test_books_are_searched_for_and_the_filters_stay(page: Page, books: Catalogue) -> None:
    for title, published in (
        ("Émile", "1762-05-22"),
        ("EMIL", "1929-10-15"),
        ("Emma", None),
        ("Ivanhoe", None),
    ):
        books.add(title, published_date=published)
    await page.goto("/books?limit=2")
    await fill(page, Title_begins_with="em")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_text("3 books found, by title")).to_be_visible()
    await expect(page.get_by_label("Title begins with")).to_have_value("em")
    await expect(page.get_by_role("rowheader")).to_have_text(["EMIL", "Émile"])
    await page.get_by_role("link", name="Next page").click()
    await expect(page.get_by_role("rowheader")).to_have_text(["Emma"])
    await page.get_by_role("link", name="Previous page").click()
    await expect(page.get_by_role("rowheader")).to_have_text(["EMIL", "Émile"])
    await page.get_by_label("Sort by").select_option("Newest first")
    await page.get_by_role("button", name="Show").click()
    order = page.get_by_label("Sort by")
    await expect(order).to_have_value("-published_date")
    await expect(order).to_have_attribute("aria-invalid", "true")
    await expect(order).to_have_accessible_description("Does not go with these filters.")
    await expect(page.get_by_role("alert")).to_contain_text(
        "Newest first: all books, or by author, or by dates"
    )
    await fill(page, Title_begins_with="", Published_to="1900-01-01")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("rowheader")).to_have_text(["Émile"])
    await page.get_by_role("link", name="Clear").click()
    await expect(page.get_by_text("4 books, by title")).to_be_visible()
