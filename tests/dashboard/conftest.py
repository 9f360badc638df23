# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Chromium, looking at servers over real sockets with real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.conftest import find_service
from tests.http.conftest import Served, Start, serving
from tests.waiting import TIMEOUT

Open = Callable[..., Awaitable[Page]]

expect.set_options(timeout=TIMEOUT * 1000)

_WATCH = (
    "window.violations = [];"
    "addEventListener('securitypolicyviolation', (event) => violations.push(event.blockedURI))"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests of a module: it takes long to start."""
    chromium = find_service("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--disable-dev-shm-usage", "--no-sandbox"]
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers, as in tests of HTTP, in the event loop of the browser."""
    async with serving(tmp_path) as make:
        yield make


@pytest_asyncio.fixture(loop_scope="module")
async def served(start: Start) -> Served:
    """A server as it is by default."""
    return await start()


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser) -> AsyncIterator[Open]:
    """Opens addresses, each as a new visitor.

    At the end no page may have broken its policy, failed, or asked another host.
    """
    faults: list[str] = []
    pages: list[Page] = []

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
        await page.context.close()
    assert not faults
