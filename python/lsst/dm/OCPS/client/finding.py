# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding jobs at a server of either kind: their addresses, lists, and records."""

from __future__ import annotations

__all__ = ["JobFinder", "JobOrId", "reachable"]

from collections.abc import Collection
from datetime import datetime
from urllib.parse import quote

from .documents import RemoteJob
from .errors import RefusedError, UnknownError
from .follow import Server, discover
from .job_lists import JobLists
from .link import Link
from .parts import moved
from .rubin import RubinServer

JobOrId = RemoteJob | str
"""A job, its URL, or its id."""


class JobFinder:
    """Finds jobs; each method raises `ClientError`.

    An OCPS is asked for whole documents in JSON, another server for lists of
    UWS 1.1.

    Parameters
    ----------
    link : `Link`
        To the server.
    lists : `JobLists`
        Its job lists.
    """

    def __init__(self, link: Link, lists: JobLists) -> None:
        self._link = link
        self._lists = lists
        self._server: Server | None = None

    async def server(self) -> Server:
        """Return the kind and URLs of the server, which are requested once."""
        if self._server is None:
            self._server = await discover(self._link)
        return self._server

    def rubin(self, server: Server) -> RubinServer:
        """Return the JSON dialect of an OCPS."""
        return RubinServer(self._link, server.api, server.uws)

    async def list(
        self,
        definition: str,
        *,
        phases: Collection[str],
        last: int | None,
        after: datetime | None,
        search: str,
        brief: bool,
    ) -> list[RemoteJob]:
        """Return jobs; parameters are those of `Client.jobs`, checked."""
        server = await self.server()
        if server.search:
            more = {"definition": definition, "uws_phase": sorted(phases), "q": search}
            more |= {"view": "table"} if brief else {}
            return await self.rubin(server).list(last=last or 0, after=after, more=more)
        if search:
            raise RefusedError(f"{self._link.url} does not search jobs")
        if server.ours and not definition:
            found = await self.rubin(server).list(last=last if last and not phases else 0, after=after)
            found = [job for job in found if not phases or job.phase in phases]
            # The newest first, as UWS has it with LAST.
            return found[: -last - 1 : -1] if last and phases else found
        url = f"{server.uws}/{quote(definition)}" if definition else server.uws
        listed = await self._lists.list(url, phases=phases, last=last, after=after)
        return [reachable(job, server) for job in listed]

    async def get(self, job: JobOrId) -> RemoteJob:
        """Return a job as it is now."""
        server = await self.server()
        return reachable(await self._lists.get(await self.address(job)), server)

    async def address(self, job: JobOrId) -> str:
        """Return the URL of a job."""
        if isinstance(job, RemoteJob):
            return job.url
        if job.startswith(("http://", "https://")):
            return job
        server = await self.server()
        if not job or "/" in job or ".." in job:
            raise UnknownError(f"No such job: {job!r}")
        if not server.ours:
            return f"{server.uws}/{quote(job)}"
        return (await self.rubin(server).get(job)).url


def reachable(job: RemoteJob, server: Server) -> RemoteJob:
    """Return a job of an OCPS with the URL by which this client reaches the server."""
    if not server.ours:
        return job
    return moved(job, f"{server.uws}/{'/'.join(job.url.rsplit('/', 2)[1:])}")
