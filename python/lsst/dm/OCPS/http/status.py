# SPDX-License-Identifier: GPL-3.0-or-later
"""What OCPS is and does as a whole: its parts, workers, queue, and the CSC."""

from __future__ import annotations

__all__ = ["get_status", "routes"]

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from ..jobs.manager import JobManager
from ..version import __version__
from .auth import Caller
from .context import SERVICE, caller_of
from .health import READINESS

MOST_PLACES = 1000
"""How many places of each queue are told."""


def routes(path: str) -> list[web.RouteDef]:
    """Return the route; ``path`` is the base path of the dialect."""
    return [web.get(f"{path}/status", get_status)]


async def get_status(request: web.Request) -> web.Response:
    """Send which parts work, how many workers are used, the places in the queue, and what the CSC is."""
    service, caller = request.app[SERVICE], caller_of(request)
    reasons = await request.app[READINESS].reasons()
    document = {
        "version": __version__,
        "parts": {part: {"ok": not reason, "reason": reason} for part, reason in reasons.items()},
        "backends": _backends(service.manager),
        "places": dict(_places(service.manager, caller)),
        "csc": service.about() if service.about else None,
    }
    return web.json_response(document, headers={"Cache-Control": "no-store"})


def _backends(manager: JobManager) -> list[dict[str, Any]]:
    """Return the workers of each kind of backend in use; lanes of a kind share them."""
    found: dict[str, dict[str, Any]] = {}
    for lane in manager.lanes.values():
        entry = found.setdefault(lane.kind, {"kind": lane.kind, "workers": 0, "used": 0, "waiting": 0})
        entry["workers"] = max(entry["workers"], lane.limits.max_workers)
        entry["used"] += len(lane.runs)
        entry["waiting"] += lane.waiting
    return list(found.values())


def _places(manager: JobManager, caller: Caller) -> Iterator[tuple[str, int]]:
    """Give the ids of jobs that the caller may see and that wait for a worker, with their places."""
    for lane in manager.lanes.values():
        for place, job_id in enumerate(manager.scheduler.order(lane)[:MOST_PLACES], 1):
            job = manager.ledger.live.get(job_id)
            if job and (caller.operator or job.owner == caller.name):
                yield job_id, place
