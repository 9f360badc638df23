# SPDX-License-Identifier: GPL-3.0-or-later
"""The client for any UWS 1.1 server, with further features for an OCPS."""

from __future__ import annotations

__all__ = ["Client"]

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, aclosing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

from .content import Content
from .documents import RemoteJob, RemoteResult
from .dry_run import DryRun
from .errors import ClientError, RefusedError, UnreachableError
from .finding import JobFinder, JobOrId, reachable
from .follow import Follower, PollFollower, Server, StreamFollower
from .job_lists import JobLists
from .link import Link
from .parts import job_form, multipart, wanted_phases
from .patience import Away, Patience
from .profiles import find_profile
from .results import read_log, read_result, save_result
from .statistics import Statistics
from .telling import tell
from .waiting import WAIT, wait_for_end, wait_for_ends

T = TypeVar("T")

FULL = 503
"""HTTP status: the server accepts no jobs at present."""


class Client:
    """A UWS server, an OCPS or another: ``async with Client(url) as client``.

    Parameters
    ----------
    url : `str`
        URL of an OCPS (``http://host:8080``, or ``unix:///path`` of its
        socket), or of the job list of another server. If empty, it is that of
        the profile, or is determined by OCPS_URL, OCPS_PROFILE and the file
        of profiles.
    profile : `str`
        Name of a profile; see `lsst.dm.OCPS.client.profiles`.
    token : `str`
        Bearer token; empty for none, or for that of the profile.
    timeout : `float`
        How long an answer may take (s).
    poll_interval : `float`
        How often to poll (s) a server without a change stream.
    ca_file : `str`
        File with certificates to trust instead of the system's.
    patience : `float`
        How long (s) the server may be unreachable during a wait.
    away : `~collections.abc.Callable`, optional
        Called with the reason when the server becomes unreachable during a
        wait, and with an empty text when it answers again.

    Notes
    -----
    All methods raise `ClientError`: `UnreachableError`, `RefusedError`, or
    `UnknownError`, with a message for people. Idempotent requests are
    retried; no job is ever run twice.
    """

    def __init__(
        self,
        url: str = "",
        *,
        profile: str = "",
        token: str = "",
        timeout: float = 30.0,
        poll_interval: float = 1.0,
        ca_file: str = "",
        patience: float = 600.0,
        away: Away | None = None,
    ) -> None:
        self._patience = patience
        self._away = away
        if profile or not url:
            found = find_profile(url, profile)
            url, token, ca_file = found.url, token or found.token, ca_file or found.ca_file
        self._link = Link(url, token=token, timeout=timeout, ca_file=ca_file)
        self._lists = JobLists(self._link)
        self._finder = JobFinder(self._link, self._lists)
        self.url = self._link.name
        self.poll_interval = poll_interval

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; jobs continue."""
        await self._link.close()

    async def server(self) -> Server:
        """Return the kind and URLs of the server, which are requested once."""
        return await self._finder.server()

    # Reading

    async def definitions(self) -> list[dict[str, Any]]:
        """Return the job definitions with their parameters; empty if the server does not show them."""
        server = await self.server()
        if not server.ours:
            return []
        return await self._finder.rubin(server).definitions()

    async def statistics(self) -> dict[str, Statistics]:
        """Return how the newest jobs ended and how long they ran, by definition; empty if it is not known."""
        server = await self.server()
        # Servers have statistics since they can search.
        return await self._finder.rubin(server).statistics() if server.search else {}

    async def availability(self) -> str:
        """Return why an OCPS accepts no jobs now; empty if it does."""
        server = await self.server()
        if not server.ours:
            await self.jobs(last=1)
            return ""
        try:
            await self._link.get(f"{server.uws.rpartition('/')[0]}/readyz")
        except UnreachableError as error:
            return str(error)
        return ""

    async def jobs(
        self,
        definition: str = "",
        *,
        phases: str | Collection[str] = (),
        last: int | None = None,
        after: datetime | None = None,
        search: str = "",
        brief: bool = False,
    ) -> list[RemoteJob]:
        """Return jobs.

        Parameters
        ----------
        definition : `str`
            Name of the job list. At an OCPS, an empty name means all lists.
            Entries of another server's lists have little more than the phase.
        phases : `str` or `~collections.abc.Collection` [`str`]
            Only jobs in this phase, or in one of these.
        last : `int`
            Only this many of the newest, newest first.
        after : `datetime.datetime`
            Only jobs created after this time; one without a zone is local.
        search : `str`
            Only jobs that have all these words in their ids, definition,
            owner, parameters or error, or as their phase; at an OCPS.
        brief : `bool`
            Whether what tables show is enough: neither parameters nor
            results. Much faster for many jobs.

        Raises
        ------
        ValueError
            If ``last`` is below 1, there is no such phase, or ``after`` is no
            `~datetime.datetime`.
        RefusedError
            If the server does not search jobs.
        """
        wanted = wanted_phases(phases)
        if last is not None and last < 1:
            raise ValueError(f"last: expected a number above 0, not {last}")
        return await self._finder.list(
            definition, phases=wanted, last=last, after=after, search=search, brief=brief
        )

    async def get(self, job: JobOrId) -> RemoteJob:
        """Return a job as it is now."""
        return await self._finder.get(job)

    # Changing

    async def submit(
        self,
        definition: str = "",
        parameters: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, Path] | None = None,
        run_id: str = "",
        execution_duration: int | None = None,
        destruction: datetime | None = None,
        prerequisites: Sequence[JobOrId] = (),
        priority: int = 0,
        run: bool = True,
    ) -> RemoteJob:
        """Create a job and run it.

        The job is created first and run by a second request, so that both can
        be repeated if an answer is lost, without running anything twice. A
        job that the server refuses to run is removed; at worst a PENDING job
        is left.

        Parameters
        ----------
        definition : `str`
            Name of the job list; empty if ``url`` is that of a job list.
        parameters : `~collections.abc.Mapping`
            Its parameters.
        files : `~collections.abc.Mapping` [`str`, `~pathlib.Path`]
            Files to send, by parameter.
        run_id : `str`
            The caller's own name for the job.
        execution_duration : `int`
            Longest run time (s).
        destruction : `datetime.datetime`
            When to remove its files; a time without a zone is local.
        prerequisites : `~collections.abc.Sequence` [`RemoteJob` or `str`]
            Jobs, or their ids, that must end before this one starts; only at
            an OCPS.
        priority : `int`
            Jobs with a larger priority start earlier; only at an OCPS.
        run : `bool`
            Whether to run it now.

        Returns
        -------
        job : `RemoteJob`
            The job.
        """
        server = await self.server()
        url = f"{server.uws}/{quote(definition)}" if definition else server.uws
        fields = job_form(
            parameters or {},
            run_id=run_id,
            execution_duration=execution_duration,
            destruction=destruction,
            prerequisites=prerequisites,
            priority=priority,
        )
        with ExitStack() as opened:

            def form() -> Any:
                return multipart(fields, files, opened) if files else fields

            created = await self._lists.create(url, form, again=True)
        job = reachable(created, server)
        if not run:
            return await self.get(job)
        try:
            return await self.run(job)
        except RefusedError:
            await self._remove_pending(job)
            raise
        except UnreachableError as error:
            if error.status == FULL:
                await self._remove_pending(job)
            raise

    async def dry_run(
        self,
        definition: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, Path] | None = None,
        **options: Any,
    ) -> DryRun:
        """Return what a job would do; it is checked as `submit` does, and nothing is run or stored.

        Parameters
        ----------
        definition, parameters, files, **options
            As for `submit`, without ``run``.

        Raises
        ------
        RefusedError
            Also if the job would fail, or the server has no dry runs.
        """
        server = await self.server()
        if not server.dry_run:
            raise RefusedError(f"{self.url} has no dry runs")
        fields = job_form(parameters or {}, **options)
        with ExitStack() as opened:
            form = multipart(fields, files, opened) if files else fields
            return await self._lists.dry_run(f"{server.uws}/{quote(definition)}", form)

    async def request(self, job: JobOrId, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the arguments with which `submit` or `dry_run` repeat a job.

        Parameters
        ----------
        job : `RemoteJob` or `str`
            The job.
        parameters : `~collections.abc.Mapping`
            Values to use instead of those that it had.
        """
        old = await self.get(job)
        return {
            "definition": old.definition if (await self.server()).ours else "",
            "parameters": {**old.parameters, **(parameters or {})},
            "run_id": "" if old.run_id == old.id else old.run_id,
        }

    async def _remove_pending(self, job: RemoteJob) -> None:
        """Remove a job that the server refused to run; errors are ignored."""
        with suppress(ClientError):
            if (await self.get(job)).phase == "PENDING":
                await self.delete(job)

    async def run(self, job: JobOrId) -> RemoteJob:
        """Run a job that is PENDING or HELD."""
        return await self._tell(job, "RUN", lambda found: found.phase not in ("PENDING", "HELD"))

    async def hold(self, job: JobOrId) -> RemoteJob:
        """Keep a waiting job from being started until `run`."""
        return await self._tell(job, "HOLD", lambda found: found.phase == "HELD")

    async def abort(self, job: JobOrId) -> RemoteJob:
        """Stop a job; it ends as ABORTED."""
        return await self._tell(job, "ABORT", lambda found: found.phase == "ABORTED")

    async def _tell(self, job: JobOrId, phase: str, done: Callable[[RemoteJob], bool]) -> RemoteJob:
        url = await self._finder.address(job)
        return await tell(self._lists, url, phase, lambda: self.get(url), done)

    async def delete(self, job: JobOrId) -> None:
        """Remove a job with its results; a live job is aborted first."""
        await self._lists.delete(await self._finder.address(job), timeout=60)

    # Waiting

    async def wait(self, job: JobOrId, timeout: float | None = None) -> RemoteJob:
        """Wait until a job has ended, even if the server is restarted meanwhile.

        Parameters
        ----------
        job : `RemoteJob` or `str`
            The job.
        timeout : `float`
            How long to wait at most (s).

        Raises
        ------
        TimeoutError
            If it has not ended by then.
        UnreachableError
            If the server was unreachable for longer than ``patience``.
        """
        async with asyncio.timeout(timeout):
            return await wait_for_end(self, job)

    async def wait_for_change(self, job: RemoteJob) -> RemoteJob:
        """Return a job when its phase has changed, or after `WAIT` seconds."""
        changed = await self._lists.wait(job.url, job.phase, WAIT, timeout=WAIT + 30)
        return reachable(changed, await self.server())

    async def patiently(self, request: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a request of this client; repeat it while the server is unreachable."""
        return await Patience(self._patience, self._away).ask(request)

    async def wait_all(self, jobs: Sequence[JobOrId], timeout: float | None = None) -> list[RemoteJob]:
        """Wait until all of some jobs, perhaps hundreds, have ended; arguments as for `wait`."""
        async with asyncio.timeout(timeout):
            return await wait_for_ends(self, jobs)

    async def changes(self, definitions: Sequence[str] = ()) -> AsyncIterator[RemoteJob | None]:
        """Yield each job after each change, from now on without end.

        After an interruption it resumes without missing a change.

        Parameters
        ----------
        definitions : `~collections.abc.Sequence` [`str`]
            Only jobs of these lists; empty for all.

        Yields
        ------
        job : `RemoteJob` or `None`
            The job; `None` first, when the server sends changes, and when a
            job was removed: then call `jobs`.
        """
        async with aclosing(await self._follow(definitions)) as changes:
            async for job in changes:
                yield job

    async def _follow(self, definitions: Sequence[str]) -> Any:
        server = await self.server()
        follower: Follower
        patience = Patience(self._patience, self._away)
        if server.ours:
            follower = StreamFollower(self._finder.rubin(server), patience)
            return follower.changes(definitions)
        follower = PollFollower(self._lists, server.uws, self.poll_interval, patience)
        # There the address is the list.
        return follower.changes(())

    # Results

    async def results(self, job: JobOrId) -> list[RemoteResult]:
        """Return what a job produced."""
        return list((await self.get(job)).results)

    async def read(self, result: RemoteResult) -> Content:
        """Return the content of a result: its bytes, or as text, table or picture.

        Raises
        ------
        ClientError
            If it could not be had, or is longer than 64 MiB; see `download`.
        """
        return await read_result(self._link, result)

    async def download_all(self, job: JobOrId, folder: Path, *, overwrite: bool = False) -> list[Path]:
        """Save all results of a job in a folder; parameters and errors as for `download`."""
        return [
            await self.download(result, folder, overwrite=overwrite) for result in await self.results(job)
        ]

    async def download(self, result: RemoteResult, folder: Path, *, overwrite: bool = False) -> Path:
        """Save a result in a folder, under its name; return where it is.

        Parameters
        ----------
        result : `RemoteResult`
            Which one.
        folder : `~pathlib.Path`
            Where to save it; folders that are missing are made.
        overwrite : `bool`
            Whether to replace a file that is there.

        Raises
        ------
        ClientError
            If it could not be had, a file of that name exists, or the name
            leads out of the folder or is that of a hidden file.
        """
        return await save_result(self._link, result, folder, overwrite=overwrite)

    async def read_log(self, job: RemoteJob, start: int = 0, attempt: int | None = None) -> bytes:
        """Return a job's log from byte ``start`` on, also while it runs.

        At most 16 MiB at a time; empty if there is no more. ``attempt`` is
        the number of a former attempt; `None` for the present one.
        """
        return await read_log(self._link, job, start, attempt)
