# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of UWS 1.1 to job lists, in XML."""

from __future__ import annotations

__all__ = ["JobLists"]

import builtins
import json
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from .documents import RemoteJob, checked_id, time_text
from .dry_run import DRY_RUN_TIMEOUT, DryRun, parse_dry_run
from .errors import DocumentError, UnreachableError
from .link import Answer, Link
from .uws_xml import parse_job, parse_list

T = TypeVar("T")


class JobLists:
    """Requests of UWS 1.1; each raises `ClientError`.

    Parameters
    ----------
    link : `Link`
        To the server.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def create(self, url: str, form: Any, *, again: bool) -> RemoteJob:
        """Create a job; return what is known of it.

        Parameters
        ----------
        url : `str`
            The job list.
        form : `object`
            Parameters; see `Link.send`.
        again : `bool`
            Whether to send it again if the answer was lost.
        """
        send = self._link.safely if again else self._link.send
        answer = await send("POST", url, data=form, redirect="return")
        if not answer.location:
            return self._understood(answer, parse_job)
        job_url = answer.location.partition("?")[0].rstrip("/")
        try:
            job_id = checked_id(job_url.rpartition("/")[2])
        except DocumentError as error:
            raise UnreachableError(f"{answer.url}: {error}", sent=True, reached=True) from None
        return RemoteJob(job_id, job_url, "PENDING", whole=False)

    async def dry_run(self, url: str, form: Any) -> DryRun:
        """Return what a job that `create` would create would do, at an OCPS that has dry runs."""
        answer = await self._link.send(
            "POST", url, params={"DRYRUN": "true"}, data=form, timeout=DRY_RUN_TIMEOUT
        )
        try:
            return parse_dry_run(json.loads(answer.body))
        except (DocumentError, ValueError, RecursionError) as error:
            raise UnreachableError(f"{answer.url}: {error}", reached=True) from None

    async def get(self, url: str) -> RemoteJob:
        """Return a job."""
        return self._understood(await self._link.get(url), parse_job)

    async def wait(self, url: str, phase: str, seconds: int, timeout: float) -> RemoteJob:
        """Return a job when it has left ``phase``, or after ``seconds``.

        Parameters
        ----------
        url : `str`
            The job.
        phase : `str`
            The phase that is known.
        seconds : `int`
            How long the server is asked to wait (s).
        timeout : `float`
            How long its answer may take (s).
        """
        query = {"WAIT": seconds, "PHASE": phase}
        return self._understood(await self._link.get(url, query, timeout=timeout), parse_job)

    async def list(
        self,
        url: str,
        *,
        phases: Collection[str] = (),
        last: int | None = None,
        after: datetime | None = None,
        timeout: float | None = None,
    ) -> builtins.list[RemoteJob]:
        """Return the jobs of a list, which say little more than the phase.

        Parameters
        ----------
        url : `str`
            The job list.
        phases : `~collections.abc.Collection` [`str`]
            Only jobs in one of these phases.
        last : `int`
            Only this many of the newest, newest first.
        after : `datetime.datetime`
            Only jobs created after this time.
        timeout : `float`
            How long the answer may take (s), instead of the configured time.
        """
        query = [f"PHASE={quote(phase)}" for phase in sorted(phases)]
        if last:
            query.append(f"LAST={last}")
        if after:
            query.append(f"AFTER={time_text(after, 'after')}")
        address = f"{url}{'?' if query else ''}{'&'.join(query)}"
        return self._understood(await self._link.get(address, timeout=timeout), parse_list)

    async def set_phase(self, url: str, phase: str, timeout: float | None = None) -> None:
        """Tell a job to RUN, ABORT or HOLD; sent once."""
        form = {"PHASE": phase}
        await self._link.send("POST", f"{url}/phase", data=form, redirect="return", timeout=timeout)

    async def delete(self, url: str, timeout: float) -> None:
        """Stop a job and remove it with its results."""
        await self._link.safely("DELETE", url, redirect="return", timeout=timeout)

    def _understood(self, answer: Answer, parse: Callable[[bytes, str], T]) -> T:
        try:
            return parse(answer.body, answer.url)
        except DocumentError as error:
            raise UnreachableError(f"{answer.url}: {error}", sent=True, reached=True) from None
