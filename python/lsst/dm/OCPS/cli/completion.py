# SPDX-License-Identifier: GPL-3.0-or-later
"""Words that a shell completes by asking the server."""

from __future__ import annotations

__all__ = ["complete_definition", "complete_job"]

import asyncio
from collections.abc import Awaitable, Callable

import click

from ..client import Client, ClientError
from .profiles import ProfileError, find_profile
from .session import Session

PATIENCE = 2.0
"""How long a shell waits for the words (s)."""


def _ask(context: click.Context, words: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    async def ask(session: Session) -> list[str]:
        async with asyncio.timeout(PATIENCE), session.client(timeout=PATIENCE) as client:
            return await words(client)

    try:
        profile = find_profile(context.params.get("url") or "", context.params.get("profile") or "")
        return asyncio.run(ask(Session(profile)))
    except (ClientError, ProfileError, TimeoutError):
        # A shell that completes has nobody to tell.
        return []


def complete_definition(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the job definitions that begin with what is there."""

    async def names(client: Client) -> list[str]:
        return [entry["name"] for entry in await client.definitions()]

    return [name for name in _ask(context, names) if name.startswith(incomplete)]


def complete_job(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of late jobs that begin with what is there."""

    async def ids(client: Client) -> list[str]:
        return [job.id for job in await client.jobs(last=100)]

    return [job_id for job_id in _ask(context, ids) if job_id.startswith(incomplete)]
