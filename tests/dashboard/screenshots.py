# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the pictures of the dashboard that README and documentation show, of a server with real jobs."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import aiohttp
from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.http.server import start_server
from playwright.async_api import async_playwright

PICTURES = Path(__file__).resolve().parents[2] / "doc" / "pictures"
JOBS: tuple[dict[str, str], ...] = (
    *({"duration": str(0.2 * n), "text": f"exposure {n}"} for n in range(1, 6)),
    {"duration": "0.1", "fail": "true"},
    *({"duration": "600", "text": f"exposure {n}"} for n in range(6, 10)),
)
PAGES = {"now": "/", "submit": "/ui/submit/sleep", "history": "/ui/history"}


async def make_pictures(chromium: str, work_dir: str) -> None:
    """Serve some jobs, and take a picture of each page."""
    log = logging.getLogger("screenshots")
    config = InstanceConfig.model_validate(
        {
            "sal_index": 1,
            "butler": "nowhere",
            "work_dir": work_dir,
            "definitions": ["sleep"],
            "environments": [{"name": "default", "preload": False}],
            "max_workers": 2,
            "http": {"port": 0, "auth": {"open": True}},
        }
    )
    assert config.http
    manager = await make_manager(config, log)
    server = await start_server(manager, config.http, log)
    root = f"http://127.0.0.1:{server.port}"
    try:
        async with aiohttp.ClientSession() as client, async_playwright() as playwright:
            ids = []
            for parameters in JOBS:
                asked = {"type": "sleep", "env": parameters}
                async with client.post(f"{root}/api/v1/job", json=asked) as answer:
                    ids.append((await answer.json())["jobId"])
            for job_id in ids[:6]:
                await manager.wait(job_id, 60)
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--disable-dev-shm-usage", "--no-sandbox"]
            )
            page = await browser.new_page(viewport={"width": 1100, "height": 700})
            for name, path in (PAGES | {"job": f"/ui/job/{ids[0]}"}).items():
                await page.goto(root + path)
                await page.get_by_text("live ·").wait_for()
                await page.locator("table, form").first.wait_for()
                await page.screenshot(path=PICTURES / f"{name}.png")
            await page.goto(f"{root}/")
            await page.locator("table").first.wait_for()
            await page.keyboard.press("n")
            await page.screenshot(path=PICTURES / "dome.png")
            await browser.close()
            await asyncio.gather(*(manager.abort(job.id) for job in manager.live()))
    finally:
        await server.close()
        await manager.close()


def main() -> None:
    """Make the pictures; end with a message where there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed (make services)")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work_dir:
        asyncio.run(make_pictures(chromium, work_dir))


if __name__ == "__main__":
    main()
