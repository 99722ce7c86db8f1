"""The page of the API in a real browser: under the content security policy, on a phone and a desk, light and dark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.acceptance.browsing import DESKTOP, PHONE, launched, opened, overflows
from tests.acceptance.serving import Catalogue

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with launched(chromium) as browser:
        yield browser


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_operation_can_be_read(
    browser: Browser, books: Catalogue, size: dict[str, int], scheme: Literal["light", "dark"]
) -> None:
    document = books.get("/openapi.json").json()
    operations = [one for path in document["paths"].values() for one in path.values()]
    async with opened(browser, books.server.url, viewport=size, color_scheme=scheme, script=True) as page:
        await page.goto("/docs")
        await expect(page.get_by_role("heading", level=1)).to_have_text("The books catalogue")
        for operation in operations:
            summary = page.locator(f"#op-{operation['operationId']} > summary")
            await expect(summary).to_contain_text(operation["summary"])
            await summary.click()
        await expect(page.get_by_text("list of text").first).to_be_visible()
        assert not await overflows(page)
        colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 29)"}[scheme]


async def test_it_needs_no_script_and_works_with_the_keyboard(browser: Browser, books: Catalogue) -> None:
    async with opened(browser, books.server.url, viewport=DESKTOP) as page:
        await page.goto("/docs")
        first = page.locator("details").first
        await first.locator("summary").focus()
        await page.keyboard.press("Enter")
        await expect(first.get_by_role("table", name="Answers")).to_be_visible()
        await first.get_by_role("link", name="Problem").first.click()
        await expect(page).to_have_url(f"{books.server.url}/docs#schema-Problem")
