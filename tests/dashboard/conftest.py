# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Chromium, looking at servers over real sockets with real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Page, async_playwright

from tests.conftest import find_service
from tests.http.conftest import served, start
from tests.waiting import TIMEOUT

__all__ = ["Open", "open_page", "served", "start"]

Open = Callable[..., Awaitable[Page]]

_WATCH = (
    "window.violations = [];"
    "addEventListener('securitypolicyviolation', (event) => violations.push(event.blockedURI))"
)


@pytest_asyncio.fixture
async def open_page() -> AsyncIterator[Open]:
    """Opens addresses; at the end no page may have broken its policy, failed, or asked another host."""
    chromium = find_service("chromium")
    faults: list[str] = []
    pages: list[Page] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--disable-dev-shm-usage", "--no-sandbox"]
        )

        async def make(url: str, **options: Any) -> Page:
            context = await browser.new_context(**options)
            page = await context.new_page()
            page.set_default_timeout(TIMEOUT * 1000)
            page.on("pageerror", lambda error: faults.append(str(error)))
            host = url.split("/")[2]
            page.on(
                "request",
                lambda asked: (
                    None
                    if asked.url.startswith((f"http://{host}/", "blob:", "data:"))
                    else faults.append(asked.url)
                ),
            )
            await page.add_init_script(_WATCH)
            await page.goto(url)
            pages.append(page)
            return page

        yield make
        for page in pages:
            faults += await page.evaluate("() => window.violations")
        await browser.close()
    assert not faults
