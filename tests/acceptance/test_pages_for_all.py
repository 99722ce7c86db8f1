"""The pages for everyone: by keyboard, for screen readers, on phones, in the dark, and with hostile texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.acceptance.browsing import DESKTOP, PHONE, launched, opened, overflows
from tests.acceptance.serving import Catalogue, path_of

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

SCRIPT = "<script>alert(1)</script>"
LONG = "W" * 200
RTL = "كتاب ألف ليلة وليلة"
PAGES = [
    *("/books", "/books/action/add", "/books/Dune", "/books/Dune/edit", "/books/None", "/books?limit=0"),
    *("/tags", "/tags/sf/edit"),
]


def add_dune(books: Catalogue) -> None:
    """Adds a book with a review and a tag."""
    books.add("Dune")
    books.post("/books/Dune/reviews", json={"stars": 4, "text": "Good"})
    books.put("/books/Dune/tags", json={"tags": ["sf"]})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with launched(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, books: Catalogue) -> AsyncIterator[Page]:
    """A page of the empty catalogue."""
    async with opened(browser, books.server.url) as page:
        yield page


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def tab_to(page: Page, role: Literal["link", "button", "textbox"], name: str) -> None:
    """Press Tab until this has the focus; it fails if that never happens."""
    wanted = page.get_by_role(role, name=name).and_(page.locator(":focus"))
    for _ in range(30):
        await page.keyboard.press("Tab")
        if await wanted.count():
            return
    raise AssertionError(f"the {role} {name!r} cannot be reached with Tab")


async def test_everything_can_be_done_with_the_keyboard(page: Page, books: Catalogue) -> None:
    await page.goto("/books")
    await tab_to(page, "link", "Add a book")
    await press(page, "Enter")
    await expect(page.get_by_label("Title")).to_be_focused()
    await page.keyboard.type("Dune")
    await press(page, "Tab")
    await page.keyboard.type("Frank Herbert")
    await press(page, "Enter")
    await expect(page.get_by_role("status")).to_have_text("“Dune” was added.")
    await tab_to(page, "link", "Edit")
    await press(page, "Enter")
    await expect(page.get_by_label("Title")).to_be_focused()
    await tab_to(page, "textbox", "Copies in stock")
    await page.keyboard.type("7")
    await tab_to(page, "button", "Save")
    await press(page, "Space")
    await expect(page.get_by_role("status")).to_have_text("“Dune” was changed.")
    assert books.get("/books/Dune").json()["stock_quantity"] == 7
    await tab_to(page, "link", "Edit")
    await press(page, "Tab", "Enter")
    await tab_to(page, "button", "Yes, delete it")
    await press(page, "Enter")
    await expect(page.get_by_role("status")).to_have_text("“Dune” was deleted.")


async def test_the_first_key_leads_past_the_navigation(page: Page, books: Catalogue) -> None:
    books.add("Dune")
    await page.goto("/books")
    await press(page, "Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await press(page, "Enter", "Tab")
    await expect(page.get_by_role("link", name="Dune")).to_be_focused()


@pytest.mark.parametrize("path", PAGES)
async def test_each_page_has_its_landmarks_a_heading_and_a_title(
    page: Page, books: Catalogue, path: str
) -> None:
    add_dune(books)
    await page.goto(path)
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        await expect(page.get_by_role(landmark).first).to_be_visible()
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert await page.locator("html").get_attribute("lang") == "en"
    assert (await page.title()).endswith(" – Books")
    assert len(await page.title()) > len(" – Books")


async def test_the_pages_have_titles_of_their_own(page: Page, books: Catalogue) -> None:
    add_dune(books)
    titles = set()
    for path in PAGES:
        await page.goto(path)
        titles.add(await page.title())
    assert len(titles) == len(PAGES)


async def test_every_field_has_a_name_for_screen_readers(page: Page, books: Catalogue) -> None:
    books.add("Dune")
    for path in ("/books/action/add", "/books/Dune/edit"):
        await page.goto(path)
        boxes = page.get_by_role("textbox")
        await expect(boxes).to_have_count(5)
        for index, name in enumerate(("Title", "Author", "First published", "ISBN", "Copies in stock")):
            await expect(boxes.nth(index)).to_have_accessible_name(
                f"{name} (optional)" if index in (2, 3) else name
            )


async def test_what_a_book_page_asks_for_has_names_for_screen_readers(page: Page, books: Catalogue) -> None:
    add_dune(books)
    await page.goto("/books/Dune")
    boxes = page.get_by_role("textbox")
    await expect(boxes.nth(0)).to_have_accessible_name("Review")
    await expect(boxes.nth(0)).to_have_accessible_description("Up to 2,000 characters.")
    await expect(boxes.nth(1)).to_have_accessible_name("New tags")
    await expect(boxes).to_have_count(2)
    await expect(page.get_by_role("combobox")).to_have_accessible_name("Stars")
    await expect(
        page.get_by_role("group", name="Tags to keep").get_by_role("checkbox")
    ).to_have_accessible_name("sf")
    for name in ("Write a review", "Tags of this book"):
        await expect(page.get_by_role("form", name=name)).to_be_visible()
    levels = [
        int(await each.evaluate("e => e.tagName[1]")) for each in await page.get_by_role("heading").all()
    ]
    assert levels == [1, 2, 3, 2]


async def test_the_list_stays_a_table_on_a_phone(browser: Browser, books: Catalogue) -> None:
    books.add("Dune", "Frank Herbert", stock_quantity=3)
    async with opened(browser, books.server.url, viewport=PHONE) as page:
        await page.goto("/books")
        await expect(page.get_by_role("search", name="Filter and sort")).to_be_visible()
        for label in ("Title begins with", "Author", "Published from", "Published to", "Sort by"):
            await expect(page.get_by_label(label)).to_be_in_viewport(ratio=1)
        table = page.get_by_role("table", name="Books by title")
        await expect(table.get_by_role("columnheader")).to_have_count(5)
        row = table.get_by_role("row").nth(1)
        await expect(row.get_by_role("rowheader")).to_have_text("Dune")
        await expect(row.get_by_role("cell")).to_have_count(4)
        await expect(row.get_by_text("3 in stock")).to_be_visible()


async def test_script_in_any_field_shows_as_text(browser: Browser, books: Catalogue) -> None:
    hostile = [SCRIPT, '"><img src=x onerror=alert(1)>', "'-alert(1)-'", "</title></h1><svg onload=alert(1)>"]
    async with opened(browser, books.server.url, script=True) as page:
        for title in hostile:
            await page.goto("/books/action/add")
            await page.get_by_label("Title").fill(title)
            await page.get_by_label("Author").fill(title)
            await page.get_by_label("ISBN").fill(title)
            await page.get_by_role("button", name="Add the book").click()
            await expect(page.get_by_role("alert")).to_be_visible()
            await expect(page.get_by_label("ISBN")).to_have_value(title)
            await page.get_by_label("ISBN").fill("")
            await page.get_by_role("button", name="Add the book").click()
            await expect(page.get_by_role("status")).to_have_text(f"“{title}” was added.")
            await expect(page.get_by_role("heading", level=1)).to_have_text(title)
            assert await page.title() == f"{title} – Books"
            await page.goto(f"{path_of(title)}/edit")
            await expect(page.get_by_label("Author")).to_have_value(title)
            await page.goto(path_of(f"{title} x"))
            await expect(page.get_by_text("There is no book")).to_be_visible()
        await page.goto("/books")
        assert sorted(await page.get_by_role("rowheader").all_text_contents()) == sorted(hostile)
        assert await page.locator("script, img").count() == 0


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")], ids=["phone", "desktop"])
async def test_no_page_has_to_be_scrolled_sideways(
    browser: Browser, books: Catalogue, size: dict[str, int], scheme: str
) -> None:
    add_dune(books)
    for title in (LONG, RTL, "/" * 200):
        books.add(title, LONG, stock_quantity=2147483647)
        books.post(f"{path_of(title)}/reviews", json={"stars": 5, "text": LONG * 10})
        books.put(f"{path_of(title)}/tags", json={"tags": [LONG, RTL, *map(str, range(18))]})
    paths = [*PAGES, path_of(LONG), f"{path_of(LONG)}/edit", path_of(RTL), f"{path_of('/' * 200)}/edit"]
    paths += [
        path_of("x" * 500),
        f"/books?author={LONG}",
        f"/books?title={LONG}&sort=-published_date&published_to=x",
    ]
    paths += [f"/books?title={LONG}&sort=-published_date", f"/books?sort={LONG}"]
    paths += [f"/books?tag={LONG}&sort=-rating", f"/books?tag={LONG}&author=x", f"/tags/{LONG}/edit"]
    async with opened(browser, books.server.url, script=True, viewport=size, color_scheme=scheme) as page:
        for path in paths:
            await page.goto(path)
            assert not await overflows(page), path
        await page.goto(path_of(LONG))
        await page.locator("summary").click()
        assert not await overflows(page)
        await page.get_by_role("button", name="Yes, delete it").click()
        await expect(page.get_by_role("status")).to_be_visible()
        assert not await overflows(page)


async def test_dark_where_the_person_likes_it_dark(browser: Browser, books: Catalogue) -> None:
    lightness = {}
    for scheme in ("light", "dark"):
        async with opened(browser, books.server.url, script=True, color_scheme=scheme) as page:
            await page.goto("/books")
            colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            lightness[scheme] = sum(int(part) for part in colour[4:-1].split(","))
    assert lightness["dark"] < 150 < 700 < lightness["light"]


async def test_right_to_left_texts_run_from_the_right(browser: Browser, books: Catalogue) -> None:
    books.add(RTL)
    async with opened(browser, books.server.url, script=True) as page:
        for path, selector in ((path_of(RTL), "h1"), (f"{path_of(RTL)}/edit", "#title"), ("/books", "th a")):
            await page.goto(path)
            assert await page.locator(selector).evaluate("e => getComputedStyle(e).direction") == "rtl"
