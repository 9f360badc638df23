# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for the ends of jobs, also while the server is restarted."""

from __future__ import annotations

__all__ = ["WAIT", "wait_for_end", "wait_for_ends"]

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from .documents import RemoteJob
from .follow import AT_ONCE

if TYPE_CHECKING:
    from .client import Client

WAIT = 20
"""How long (s) a server is asked to wait for a change at a time; proxies cut what is longer."""

_BLOCKING = frozenset({"PENDING", "QUEUED", "EXECUTING"})
"""Phases in which a server waits for a change."""


async def wait_for_end(client: Client, job: RemoteJob | str) -> RemoteJob:
    """Wait until a job has ended; see `Client.wait`."""
    loop = asyncio.get_running_loop()
    found = await client.get(job)
    while not found.ended:
        last, begun = found, loop.time()
        if last.phase in _BLOCKING:
            found = await client.patiently(lambda job=last: client.wait_for_change(job))  # type: ignore[misc]
        else:
            found = await client.patiently(lambda job=last: client.get(job))  # type: ignore[misc]
        if found.phase == last.phase and loop.time() - begun < WAIT / 2:
            # A phase in which there is no waiting, or a server of UWS 1.0, which does not wait.
            await asyncio.sleep(client.poll_interval)
    return found


async def wait_for_ends(client: Client, jobs: Sequence[RemoteJob | str]) -> list[RemoteJob]:
    """Wait until all of some jobs have ended; see `Client.wait_all`."""
    found = await _get_all(client, jobs)
    left = {job.url for job in found.values() if not job.ended}
    if not left:
        return list(found.values())
    names = sorted({job.definition for job in found.values()})
    async with aclosing(client.changes(names)) as changes:  # type: ignore[type-var]
        async for job in changes:
            if job is None:
                missing = [found[url] for url in left]
                news = await client.patiently(lambda jobs=missing: _get_all(client, jobs))  # type: ignore[misc]
            else:
                news = {job.url: job} if job.url in left else {}
            found |= news
            left -= {url for url, one in news.items() if one.ended}
            if not left:
                break
    return list(found.values())


async def _get_all(client: Client, jobs: Sequence[RemoteJob | str]) -> dict[str, RemoteJob]:
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(job: RemoteJob | str) -> RemoteJob:
        async with room:
            return await client.get(job)

    return {job.url: job for job in await asyncio.gather(*map(ask, jobs))}
