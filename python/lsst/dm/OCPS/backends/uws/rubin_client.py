# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of the Rubin JSON dialect, and the change stream of our own server."""

from __future__ import annotations

__all__ = ["RubinClient"]

import builtins
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

from ...client.sse import ServerEvent, read_events
from ...jobs.model import Job
from .link import LinkError, UwsLink, problem_of
from .rubin import MalformedError, ServerJob, creation_body

T = TypeVar("T")

SILENCE = 45.0
"""How long (s) a stream may be still before it counts as cut; ours has a heartbeat every 15 s."""


class RubinClient:
    """The requests of the dialect; each raises `ServerError`.

    Parameters
    ----------
    link : `UwsLink`
        To the base address, up to and without ``/job``.
    """

    def __init__(self, link: UwsLink) -> None:
        self._link = link

    async def create(self, job: Job) -> ServerJob:
        """Create a job; return it as the server has it."""
        async with self._link.writes:
            return await self._ask("PUT", "job", ServerJob.parse, body=creation_body(job))

    async def get(self, server_id: str) -> ServerJob:
        """Return one job."""

        def parse(answer: Any) -> ServerJob:
            job = ServerJob.parse(answer)
            if job.id != server_id:
                raise MalformedError(f"asked for job {server_id}, it answered with job {job.id}")
            return job

        async with self._link.reads:
            return await self._ask("GET", f"job/{server_id}", parse)

    async def list(self, phase: str = "", timeout: float | None = None) -> builtins.list[ServerJob]:
        """Return all jobs, or those of one phase; ``timeout`` (s) instead of the configured one."""
        return await self._ask("GET", f"job?phase={phase}" if phase else "job", _parse_jobs, timeout=timeout)

    async def newest(self, count: int) -> builtins.list[ServerJob]:
        """Return the newest jobs of our own server, so many at most."""
        return await self._ask("GET", f"job?last={count}", _parse_jobs)

    async def delete(self, server_id: str) -> None:
        """Delete a job, which stops it."""
        async with self._link.writes:
            await self._ask("DELETE", f"job/{server_id}", None)

    async def events(self, last: str) -> AsyncIterator[ServerEvent]:
        """Give the events of the change stream after the event ``last``.

        One without data comes first, when changes are being shown.
        """
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        async with self._link.sent("GET", "events", headers=headers, silence=SILENCE) as response:
            if problem := problem_of(response, b""):
                raise problem
            try:
                async for event in read_events(response.content.iter_any(), last):
                    yield event
            except ValueError as error:
                raise LinkError(f"its change stream: {error}", sent=False, reached=True) from None

    async def _ask(
        self,
        method: str,
        path: str,
        parse: Callable[[Any], T] | None,
        *,
        body: Any = None,
        timeout: float | None = None,
    ) -> T:
        """Send one request, once; return what ``parse`` makes of its JSON."""
        answer = await self._link.exchange(method, path, json=body, timeout=timeout)
        try:
            return cast(T, parse(_json(answer.content_type, answer.text)) if parse else None)
        except MalformedError as error:
            self._link.failed()
            raise LinkError(str(error), sent=True, reached=True) from None


def _parse_jobs(answer: Any) -> list[ServerJob]:
    if not isinstance(answer, list):
        raise MalformedError("it answered with no list of jobs")
    return [ServerJob.parse(item) for item in answer]


def _json(content_type: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise MalformedError(f"it answered {content_type}, not JSON") from None
