"""A browser for the tests: what a person has before them, and what must never happen meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, async_playwright

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1200, "height": 800}

_ARGUMENTS = [
    "--no-sandbox",  # as root, which the tests may be
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@asynccontextmanager
async def launched(executable: str) -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, origin: str, *, script: bool = False, **options: Any
) -> AsyncIterator[Page]:
    """A page of a new browser profile, watched: it may neither call elsewhere, nor complain, nor run a script."""
    context = await browser.new_context(base_url=origin, java_script_enabled=script, **options)
    context.set_default_timeout(10_000)
    page = await context.new_page()
    trouble: list[str] = []

    def console(message: ConsoleMessage) -> None:
        # The browser says this of every answer that is an error, the expected ones included.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            trouble.append(f"console: {message.text}")

    async def dialog(shown: Dialog) -> None:
        trouble.append(f"dialog: {shown.message}")
        await shown.dismiss()

    page.on("console", console)
    page.on("dialog", dialog)
    page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(origin + "/") else trouble.append(f"call: {request.url}")
        ),
    )
    page.on(
        "response",
        lambda answer: (
            trouble.append(f"{answer.status}: {answer.url}")
            if answer.status >= 400 and answer.request.resource_type != "document"
            else None
        ),
    )
    try:
        yield page
    finally:
        await context.close()
    assert trouble == []


async def overflows(page: Page) -> bool:
    """Whether one has to scroll sideways."""
    return bool(
        await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    )
