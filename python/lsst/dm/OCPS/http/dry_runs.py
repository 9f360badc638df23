# SPDX-License-Identifier: GPL-3.0-or-later
"""Dry runs: what a request to create a job would lead to."""

from __future__ import annotations

__all__ = ["send_dry_run", "wants_dry_run"]

from aiohttp import web

from ..jobs.errors import RequestError
from ..jobs.model import JobRequest
from ..rubin_json import dry_run_document
from .context import SERVICE, caller_of, for_audit


def wants_dry_run(value: str | None) -> bool:
    """Return whether a request is for a dry run; ``?dryrun`` alone is.

    Parameters
    ----------
    value : `str` or `None`
        Value of ``dryrun``; `None` if it is not given.

    Raises
    ------
    RequestError
        If the value is neither yes nor no.
    """
    if value is None or value.lower() in ("0", "false"):
        return False
    if value.lower() not in ("", "1", "true"):
        raise RequestError(f"dryrun: expected true or false, not {value[:40]!r}")
    return True


async def send_dry_run(request: web.Request, asked: JobRequest) -> web.StreamResponse:
    """Send what a job would do, as JSON; nothing is run or stored."""
    for_audit(request, "dry run", definition=asked.definition)
    found = await request.app[SERVICE].dry_run(caller_of(request), asked)
    return web.json_response(dry_run_document(asked.definition, found))
