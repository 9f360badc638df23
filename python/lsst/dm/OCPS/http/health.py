# SPDX-License-Identifier: GPL-3.0-or-later
"""Health checks: whether the server is alive, and whether each part of it works."""

from __future__ import annotations

__all__ = ["READINESS", "Readiness", "get_health", "get_ready", "routes"]

import asyncio
import time

from aiohttp import web

from ..jobs.errors import BackendError, JobError
from ..jobs.manager import JobManager

CHECK_TIMEOUT = 5.0
"""How long (s) the store or a backend may take to answer a check."""

CHECK_INTERVAL = 10.0
"""How long (s) the result of a backend's check is reused, because health checks are frequent."""

PARTS = ("engine", "store", "backend")
"""Parts that are checked separately."""


class Readiness:
    """Checks the parts of an engine.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    """

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager
        self._lock = asyncio.Lock()
        self._checked: tuple[str, float, str] | None = None

    async def reasons(self) -> dict[str, str]:
        """Return for each of `PARTS` why it does not work; empty if it does."""
        return {"engine": self._engine(), "store": await self._store(), "backend": await self._backend()}

    def _engine(self) -> str:
        try:
            _ = self._manager.lane
        except JobError as error:
            return str(error)
        return ""

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._manager.last_change()
        except TimeoutError:
            return f"the job store has not answered within {CHECK_TIMEOUT:g} s"
        except JobError as error:
            return str(error)
        return ""

    async def _backend(self) -> str:
        """Return why the backend's system does not answer; empty if it does, or is not remote."""
        try:
            lane = self._manager.lane
        except BackendError as error:
            return str(error)
        if not lane.backend.may_be_away:
            return ""
        # One check at a time, for all requests together.
        async with self._lock:
            last = self._checked
            if last is None or last[0] != lane.key or time.monotonic() - last[1] > CHECK_INTERVAL:
                reason = ""
                try:
                    async with asyncio.timeout(CHECK_TIMEOUT):
                        await lane.backend.check()
                except TimeoutError:
                    reason = f"the backend has not answered within {CHECK_TIMEOUT:g} s"
                except JobError as error:
                    reason = str(error)
                self._checked = last = (lane.key, time.monotonic(), reason)
            return last[2]


READINESS: web.AppKey[Readiness] = web.AppKey("readiness", Readiness)


def routes(prefix: str) -> list[web.RouteDef]:
    """Return the routes of the health checks; ``prefix`` is where everything lies."""
    return [web.get(f"{prefix}/healthz", get_health), web.get(f"{prefix}/readyz", get_ready)]


async def get_health(request: web.Request) -> web.Response:
    """Answer that the event loop works; without an answer in time, OCPS should be restarted."""
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})


async def get_ready(request: web.Request) -> web.Response:
    """Answer whether each part works, with status 200, or 503 if one does not."""
    reasons = await request.app[READINESS].reasons()
    ready = not any(reasons.values())
    document = {"ready": ready} | {
        part: {"ok": not reason, "reason": reason} for part, reason in reasons.items()
    }
    return web.json_response(document, status=200 if ready else 503, headers={"Cache-Control": "no-store"})
