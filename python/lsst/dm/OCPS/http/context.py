# SPDX-License-Identifier: GPL-3.0-or-later
"""The service object that all routes share: engine, configuration, authentication, URLs of jobs."""

from __future__ import annotations

__all__ = ["CALLER", "DONE", "GUARDED", "SERVICE", "Service", "caller_of", "for_audit", "not_for_audit"]

import logging
import re
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from ..config import HttpConfig
from ..jobs.definition import JobDefinition
from ..jobs.dry_run import DryRun
from ..jobs.errors import NotAllowedError, RequestError, UnknownJobError
from ..jobs.manager import JobManager
from ..jobs.model import Job, JobRequest, check_job_id, now
from ..measures import About
from .auth import Authenticator, Caller
from .documents import Documents
from .job_tokens import JobTokens
from .uploads import Uploads

ORIGIN = "http"
"""Value of ``origin`` in jobs that are created over HTTP."""

_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


@dataclass
class Service:
    """The server's parts.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    config : `HttpConfig`
        The configuration of this face.
    authenticator : `Authenticator`
        Identifies callers.
    tokens : `JobTokens`
        Checks the tokens of jobs that report their progress.
    log : `logging.Logger`
        Gets warnings.
    about : `~collections.abc.Callable` or `None`
        Returns what the CSC is; `None` if there is none.
    """

    manager: JobManager
    config: HttpConfig
    authenticator: Authenticator
    tokens: JobTokens
    log: logging.Logger
    about: About | None = None
    uploads: Uploads = field(init=False)
    documents: Documents = field(init=False, default_factory=Documents)

    def __post_init__(self) -> None:
        self.up_since = now()
        self.uploads = Uploads(self.manager, self.config)

    def base_url(self, request: web.Request) -> str:
        """Return the URL of this server as the caller sees it."""
        if self.config.domain:
            return f"{self.config.protocol}://{self.config.domain}"
        if not _HOST.fullmatch(request.host):
            raise RequestError("Host: not a host name with perhaps a port")
        return f"{self.config.protocol}://{request.host}"

    def _may_run_any_code(self) -> bool:
        return self.config.authenticated or self.config.auth.open

    def list_url(self, request: web.Request, name: str) -> str:
        """Return the URL of a job list."""
        return f"{self.base_url(request)}{self.config.uws_root}/{name}"

    def definition(self, name: str, owner: str) -> JobDefinition:
        """Return the definition behind a job list.

        Parameters
        ----------
        name : `str`
            Name of the list.
        owner : `str`
            The caller; the error names the lists that they may use.

        Raises
        ------
        aiohttp.web.HTTPNotFound
            If there is no such list.
        """
        definitions = self.manager.lane.definitions
        if name not in definitions:
            known = ", ".join(found.name for found in self.offered(owner))
            raise web.HTTPNotFound(text=f"No job list {name[:80]!a}; there are: {known}\n")
        return definitions[name]

    def offered(self, owner: str) -> list[JobDefinition]:
        """Return the definitions that an owner may use, sorted by name; ``owner`` is empty for anonymous."""
        found = (
            definition
            for definition in self.manager.lane.definitions.values()
            if definition.allows(owner) and (self._may_run_any_code() or not definition.runs_any_code)
        )
        return sorted(found, key=lambda definition: definition.name)

    async def job(self, request: web.Request, definition: str | None = None) -> Job:
        """Return the job that a request is about.

        Raises
        ------
        UnknownJobError
            If there is no such job, or it is in another list.
        NotAllowedError
            If it belongs to another owner.
        """
        job_id = request.match_info["job_id"]
        job = self.manager.ledger.at_hand(job_id)
        if job is None or job.deleted:
            try:
                check_job_id(job_id)
            except RequestError:
                raise UnknownJobError(job_id[:80]) from None
            job = await self.manager.get(job_id)
        if definition is not None and job.definition != definition:
            raise UnknownJobError(job_id)
        caller_of(request).check_may_touch(job)
        return job

    async def create(self, caller: Caller, request: JobRequest, run: bool) -> Job:
        """Create a job, and queue it at once if ``run``.

        Raises
        ------
        JobError
            As `JobManager.submit` does, or if the definition is not offered.
        """
        self._check_offered(request)
        return await self.manager.submit(replace(request, exempt=caller.operator), run=run)

    async def dry_run(self, caller: Caller, request: JobRequest) -> DryRun:
        """Return what a job would do; refused as `create` does."""
        self._check_offered(request)
        return await self.manager.dry_run(replace(request, exempt=caller.operator))

    def _check_offered(self, request: JobRequest) -> None:
        # Checked here too, because definitions may have changed since the server was started.
        definition = self.manager.lane.definitions.get(request.definition)
        if definition and definition.runs_any_code and not self._may_run_any_code():
            raise NotAllowedError(
                f"{request.definition} is not offered without authentication; see http/auth/open"
            )


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
# aiohttp has typed keys since version 3.14, and warns about others.
CALLER: Any = web.RequestKey("caller", Caller) if hasattr(web, "RequestKey") else "caller"
"""Key of the `Caller` in a request."""
DONE: Any = web.RequestKey("done", dict) if hasattr(web, "RequestKey") else "done"
"""Key of the description of a request for the audit log; an empty one is not recorded."""
GUARDED: Any = web.RequestKey("guarded", bool) if hasattr(web, "RequestKey") else "guarded"
"""Key of the mark of the guard; a request without it has passed no check and is not answered."""


def for_audit(request: web.Request, action: str, job_id: str = "", **more: Any) -> None:
    """Describe a request for the audit log, which records it whatever its outcome."""
    request[DONE] = {"action": action, "job_id": job_id, **more}


def not_for_audit(request: web.Request) -> None:
    """Keep a request out of the audit log: it is not a command, but the progress of a job."""
    request[DONE] = {}


def caller_of(request: web.Request) -> Caller:
    """Return the caller of a request."""
    caller: Caller = request[CALLER]
    return caller
