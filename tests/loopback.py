# SPDX-License-Identifier: GPL-3.0-or-later
"""Web servers of tests, at a free port of 127.0.0.1."""

from __future__ import annotations

__all__ = ["serve"]

from aiohttp import web


async def serve(app: web.Application) -> tuple[web.AppRunner, str]:
    """Serve an application; return its runner, whose ``cleanup`` ends it, and its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"
