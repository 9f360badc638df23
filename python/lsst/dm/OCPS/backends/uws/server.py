# SPDX-License-Identifier: GPL-3.0-or-later
"""A UWS server, whose dialect is found from its answers to ordinary requests."""

from __future__ import annotations

__all__ = ["Dialect", "UwsServer"]

import asyncio
import builtins
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from enum import StrEnum
from typing import TypeVar
from urllib.parse import quote

from ...client.documents import RemoteJob
from ...client.dry_run import DryRun
from ...client.errors import ClientError, RefusedError, UnknownError, UnreachableError
from ...client.follow import discover
from ...client.job_lists import JobLists
from ...client.link import CHUNK, Link
from ...client.rubin import RubinServer
from ...client.sse import ServerEvent
from ...config import ConfigError, UwsConfig
from ...jobs.backend import RemoteFile
from ...jobs.model import Job
from ...jobs.workspace import LOG_NAME
from .creation import creation_body, creation_form

T = TypeVar("T")

MAX_WRITES = 16
"""How many submissions and deletions may be in progress at a time.

Existing servers answer one request after the other, so further requests would
only wait there and run into their time-out.
"""

MAX_READS = 8
"""How many requests for single jobs may be in progress at a time."""

MAX_LISTS = 3
"""How many lists and streams may be in progress at a time: one to follow jobs, one to find one, a spare."""

MAX_FILES = 32
"""How many files may be fetched at a time; a slow reader holds a connection for long."""

MAX_DRY_RUNS = 4
"""How many dry runs may be in progress at a time; each holds a connection for minutes."""

SILENCE = 60.0
"""How long (s) the transfer of a file may pause before the connection counts as lost."""

PARTIAL, RANGE_NOT_SATISFIABLE = 206, 416
"""HTTP statuses: a part of a file follows, or the file has no more."""


class Dialect(StrEnum):
    """The kind of a server; the text is for the log."""

    UNKNOWN = "not known yet"
    OURS = "an OCPS: one change stream shows all jobs"
    RUBIN = "a server of the Rubin JSON dialect: it is polled"
    XML = "a UWS 1.1 server: it is polled by WAIT, or by lists"


class UwsServer:
    """Requests about jobs to a server; each raises `ClientError`.

    Parameters
    ----------
    url : `str`
        URL of an OCPS, or of one of its job lists; base URL of the JSON
        dialect, without ``/job``; or URL of a UWS job list.
    config : `UwsConfig`
        Time-out, token, certificates.
    log : `logging.Logger`
        Receives a line when the dialect is found.

    Raises
    ------
    ConfigError
        If ``url`` is not valid.
    """

    def __init__(self, url: str, config: UwsConfig, log: logging.Logger) -> None:
        try:
            self._link = Link(
                url,
                token_file=config.token_file,
                timeout=config.timeout,
                ca_file=config.ca_file,
                # The callers retry, until the job ends.
                attempts=1,
                follow=False,
                # As many as the semaphores allow: waiting for a connection would count for the time-out.
                connections=MAX_WRITES + MAX_READS + MAX_LISTS + MAX_FILES + MAX_DRY_RUNS,
            )
        except ClientError:
            raise ConfigError(
                "url: expected the URL of a UWS server, for example http://host:8080/api/v1"
            ) from None
        self.url = self._link.url
        self.unreachable_since: float | None = None
        """Unix time (s) of the first failure since the last answer; `None` if there was none."""
        self.dialect = Dialect.UNKNOWN
        self._rubin = RubinServer(self._link, self.url)
        self._lists = JobLists(self._link)
        self._writes = asyncio.Semaphore(MAX_WRITES)
        self._reads = asyncio.Semaphore(MAX_READS)
        self.files = asyncio.Semaphore(MAX_FILES)
        """Places for files that are fetched."""
        self.dry_runs = asyncio.Semaphore(MAX_DRY_RUNS)
        """Places for dry runs."""
        self._log = log
        self._streamless = False

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()

    async def create(self, job: Job) -> RemoteJob:
        """Create and run a job; return the server's document of it."""

        async def create_in_list() -> RemoteJob:
            created = await self._lists.create(self.url, creation_form(job), again=False)
            return (
                dataclasses.replace(created, run_id=job.id, phase="QUEUED") if not created.whole else created
            )

        async with self._writes:
            return await self._ask(lambda: self._rubin.create(creation_body(job)), create_in_list)

    async def dry_run(self, job: Job) -> DryRun | None:
        """Return what an OCPS says that a job would do; `None` if the server has no dry runs."""
        found = await self._marked(lambda: discover(self._link))
        if not found.dry_run:
            return None
        rubin = RubinServer(self._link, found.api)
        return await self._marked(lambda: rubin.dry_run(creation_body(job)))

    async def get(self, server_id: str) -> RemoteJob:
        """Return one job."""
        async with self._reads:
            return await self._ask(
                lambda: self._rubin.get(server_id), lambda: self._lists.get(self._address(server_id))
            )

    async def list(self, phase: str = "", timeout: float | None = None) -> builtins.list[RemoteJob]:
        """Return all jobs, or those of one phase; ``timeout`` (s) instead of the configured one."""
        phases = (phase,) if phase else ()
        return await self._ask(
            lambda: self._rubin.list(phase=phase, timeout=timeout),
            lambda: self._lists.list(self.url, phases=phases, timeout=timeout),
        )

    async def find(self, job: Job) -> tuple[builtins.list[RemoteJob], bool]:
        """Return a list of jobs that includes those with a job's id as run id.

        Returns
        -------
        found : `list` [`RemoteJob`]
            The jobs.
        all_jobs : `bool`
            Whether these are all jobs, because the server has no query by run
            id.
        """
        found = await self._ask(lambda: self._rubin.list(run_id=job.id), lambda: self._lists.list(self.url))
        return found, not self._link.ours

    async def newest(self, count: int) -> builtins.list[RemoteJob]:
        """Return the newest jobs of an OCPS, at most ``count``."""
        return await self._marked(lambda: self._rubin.list(last=count))

    async def wait(self, server_id: str, phase: str, seconds: int, timeout: float) -> RemoteJob:
        """Return a job of a UWS 1.1 server when its phase changes; see `JobLists.wait`."""
        url = self._address(server_id)
        return await self._marked(lambda: self._lists.wait(url, phase, seconds, timeout))

    async def delete(self, server_id: str) -> None:
        """Delete a job, or abort it at a UWS 1.1 server, which keeps its results."""
        async with self._writes:
            await self._ask(
                lambda: self._rubin.delete(server_id),
                lambda: self._lists.set_phase(self._address(server_id), "ABORT"),
            )

    async def events(self, last: str) -> AsyncIterator[ServerEvent]:
        """Yield the events of an OCPS's change stream; see `RubinServer.events`."""
        async with aclosing(self._rubin.events(last=last)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    @asynccontextmanager
    async def fetch(self, url: str, start: int) -> AsyncIterator[RemoteFile | None]:
        """Open a file of this server from byte ``start`` on; yield `None` for another server's.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ClientError
            If it cannot be read.
        """
        if not self._link.owns(url):
            # Credentials must not be sent to another server.
            yield None
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            async with self._link.fetch(url, headers=headers, silence=SILENCE) as response:
                parts = response.content.iter_chunked(CHUNK)
                length = response.content_length
                if response.status == PARTIAL:
                    yield RemoteFile(parts, start, None if length is None else start + length)
                else:
                    yield RemoteFile(parts, 0, length)
        except UnknownError as error:
            raise FileNotFoundError(str(error)) from None
        except RefusedError as error:
            if error.status != RANGE_NOT_SATISFIABLE:
                raise
            yield RemoteFile(_nothing(), start, start)

    def log_url(self, server_id: str) -> str:
        """Return the URL of the log of a running job; empty if the server does not show it."""
        return f"{self._rubin.api}/job/result/{server_id}/{LOG_NAME}" if self.dialect == Dialect.OURS else ""

    def read_event(self, event: ServerEvent) -> RemoteJob:
        """Return the job that an event shows; see `RubinServer.read_event`."""
        return self._rubin.read_event(event)

    def read_deletion(self, event: ServerEvent) -> str:
        """Return the id of a deleted job; see `RubinServer.read_deletion`."""
        return self._rubin.read_deletion(event)

    def lose_stream(self) -> None:
        """Stop using the change stream, because the server does not have it."""
        self._streamless = self._link.ours
        self._decide(Dialect.RUBIN if self._link.ours else Dialect.UNKNOWN)

    def _address(self, server_id: str) -> str:
        return f"{self.url}/{quote(server_id)}"

    async def _ask(self, rubin: Callable[[], Awaitable[T]], xml: Callable[[], Awaitable[T]]) -> T:
        """Send a request in the server's dialect; find the dialect if it is not known."""
        if self.dialect == Dialect.XML:
            return await self._marked(xml)
        try:
            found = await self._marked(rubin)
        except RefusedError:
            # The request was not understood, so it had no effect. Another task may have found the dialect.
            if self.dialect == Dialect.UNKNOWN and not await self._find_out():
                raise
            if self._speaks(Dialect.XML):
                return await self._marked(xml)
            if self._rubin.api == self.url:
                raise
            return await self._marked(rubin)
        self._decide(Dialect.OURS if self._link.ours and not self._streamless else Dialect.RUBIN)
        return found

    def _speaks(self, dialect: Dialect) -> bool:
        return self.dialect == dialect

    async def _find_out(self) -> bool:
        """Find the dialect of a server whose URL is not the base URL of the JSON dialect.

        Returns
        -------
        found : `bool`
            Whether a refused request should be sent again.
        """
        found = await self._marked(lambda: discover(self._link))
        if found.ours:
            # The URL is the root of an OCPS, or one of its job lists.
            self._rubin = RubinServer(self._link, found.api)
            self._decide(Dialect.OURS)
            return found.api != self.url
        below = RubinServer(self._link, f"{self.url}/api/v1")
        for ask, dialect in (
            (lambda: self._lists.list(self.url), Dialect.XML),
            (lambda: below.list(phase="executing"), Dialect.RUBIN),
        ):
            with suppress(ClientError):
                await self._marked(ask)
                self._rubin = below if dialect == Dialect.RUBIN else self._rubin
                self._decide(dialect)
                return True
        return False

    async def _marked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Send a request, and update `unreachable_since`."""
        try:
            found = await ask()
        except UnreachableError:
            # Keep the time of the first failure.
            if self.unreachable_since is None:
                self.unreachable_since = time.time()
            raise
        except ClientError:
            self.unreachable_since = None
            raise
        self.unreachable_since = None
        return found

    def _decide(self, dialect: Dialect) -> None:
        if self.dialect != dialect:
            self.dialect = dialect
            where = f" (at {self._rubin.api})" if self._rubin.api != self.url else ""
            self._log.info(f"UWS server {self.url} is {dialect}{where}")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
