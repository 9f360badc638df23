# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of UWS 1.1 to a server that is none of ours; answers look as those of the JSON dialect."""

from __future__ import annotations

__all__ = ["XmlClient"]

import builtins
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

from ...client.documents import DocumentError, RemoteJob, parse_job, parse_list
from ...jobs.model import Job
from .link import LinkError, UwsLink
from .rubin import MalformedError, ServerJob

T = TypeVar("T")


class XmlClient:
    """The requests of UWS 1.1; each raises `ServerError`.

    What the JSON dialect gives a job as environment are its parameters here.

    Parameters
    ----------
    link : `UwsLink`
        To the job list.
    """

    def __init__(self, link: UwsLink) -> None:
        self._link = link

    async def create(self, job: Job) -> ServerJob:
        """Create a job, and run it; return it as far as it is known."""
        form = {"RUNID": job.id, "PHASE": "RUN", **job.spec["environment"]}
        async with self._link.writes:
            answer = await self._link.exchange("POST", "", form=form, redirected=True)
        if not answer.location:
            return self._understood(answer.text, "", _parse_one)
        server_id = answer.location.partition("?")[0].rstrip("/").rpartition("/")[2]
        return _server_job(RemoteJob(server_id, answer.location, "QUEUED", run_id=job.id))

    async def get(self, server_id: str) -> ServerJob:
        """Return one job."""
        async with self._link.reads:
            return await self._get(server_id)

    async def wait(self, server_id: str, phase: str, seconds: int, timeout: float) -> ServerJob:
        """Return one job when it is not in ``phase`` any more, or after so many seconds."""
        query = urlencode({"WAIT": seconds, "PHASE": phase.upper()})
        return await self._get(server_id, f"?{query}", timeout)

    async def _get(self, server_id: str, query: str = "", timeout: float | None = None) -> ServerJob:
        answer = await self._link.exchange("GET", f"{server_id}{query}", timeout=timeout)
        return self._understood(answer.text, server_id, _parse_one)

    async def list(self, phase: str = "", timeout: float | None = None) -> builtins.list[ServerJob]:
        """Return all jobs, or those of one phase, with little more than the phase."""
        path = f"?PHASE={phase.upper()}" if phase else ""
        answer = await self._link.exchange("GET", path, timeout=timeout)
        return self._understood(answer.text, "", _parse_jobs)

    async def delete(self, server_id: str) -> None:
        """Stop a job; what it wrote is kept."""
        async with self._link.writes:
            await self._link.exchange("POST", f"{server_id}/phase", form={"PHASE": "ABORT"}, redirected=True)

    def _understood(self, text: bytes, path: str, parse: Callable[[bytes, str], T]) -> T:
        try:
            return parse(text, f"{self._link.url}/{path}".rstrip("/"))
        except (DocumentError, MalformedError) as error:
            self._link.failed()
            raise LinkError(str(error), sent=True, reached=True) from None


def _server_job(job: RemoteJob) -> ServerJob:
    """Return a job as the JSON dialect would show it."""
    times = {
        name: time.isoformat() if time else None
        for name, time in (
            ("creationTime", job.creation_time),
            ("startTime", job.start_time),
            ("endTime", job.end_time),
        )
    }
    document: dict[str, Any] = {"jobId": job.id, "runId": job.run_id, "phase": job.phase, **times}
    document["uri"] = job.url
    if job.ended and job.end_time:
        # An entry of a list has no end time, and none of these.
        document["results"] = [{"uri": result.url, "size": result.size} for result in job.results]
        document["errorSummary"] = {"message": job.error}
    return ServerJob.parse(document)


def _parse_one(text: bytes, url: str) -> ServerJob:
    return _server_job(parse_job(text, url))


def _parse_jobs(text: bytes, url: str) -> list[ServerJob]:
    return [_server_job(job) for job in parse_list(text, url)]
