# SPDX-License-Identifier: GPL-3.0-or-later
"""The client without asyncio, for notebooks and scripts."""

from __future__ import annotations

__all__ = ["BlockingClient"]

import asyncio
import atexit
import threading
import weakref
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from .client import Client
from .content import Content
from .documents import RemoteJob, RemoteResult
from .dry_run import DryRun
from .errors import ClientError
from .finding import JobOrId
from .patience import Away
from .statistics import Statistics

T = TypeVar("T")

_open: weakref.WeakSet[BlockingClient] = weakref.WeakSet()
"""Clients that were not closed; a notebook seldom closes one."""


class BlockingClient:
    """`Client` without asyncio: ``with BlockingClient(url) as client``.

    It runs an event loop in a separate thread, so that it also works if one is
    already running, as in a notebook. Methods are those of `Client`, with the
    same parameters and errors.

    Parameters
    ----------
    url, profile, token, timeout, poll_interval, ca_file, patience, away
        As for `Client`.
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
        self._client = Client(
            url,
            profile=profile,
            token=token,
            timeout=timeout,
            poll_interval=poll_interval,
            ca_file=ca_file,
            patience=patience,
            away=away,
        )
        self.url = self._client.url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ocps client", daemon=True)
        self._thread.start()
        _open.add(self)

    def __repr__(self) -> str:
        return f"BlockingClient({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; jobs continue."""
        if self._thread.is_alive():
            self._call(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            coroutine.close()
            raise ClientError("This client was closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C in this thread must cancel the request in the other one.
            future.cancel()
            raise

    def definitions(self) -> list[dict[str, Any]]:
        """Return the job definitions with their parameters."""
        return self._call(self._client.definitions())

    def statistics(self) -> dict[str, Statistics]:
        """Return how the newest jobs ended and how long they ran, by definition."""
        return self._call(self._client.statistics())

    def jobs(
        self,
        definition: str = "",
        *,
        phases: str | Collection[str] = (),
        last: int | None = None,
        after: datetime | None = None,
        search: str = "",
        brief: bool = False,
    ) -> list[RemoteJob]:
        """Return jobs."""
        return self._call(
            self._client.jobs(definition, phases=phases, last=last, after=after, search=search, brief=brief)
        )

    def get(self, job: JobOrId) -> RemoteJob:
        """Return a job as it is now."""
        return self._call(self._client.get(job))

    def submit(
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
        """Create a job and run it."""
        return self._call(
            self._client.submit(
                definition,
                parameters,
                files=files,
                run_id=run_id,
                execution_duration=execution_duration,
                destruction=destruction,
                prerequisites=prerequisites,
                priority=priority,
                run=run,
            )
        )

    def dry_run(
        self,
        definition: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, Path] | None = None,
        **options: Any,
    ) -> DryRun:
        """Return what a job would do; nothing is run."""
        return self._call(self._client.dry_run(definition, parameters, files=files, **options))

    def request(self, job: JobOrId, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the arguments with which `submit` or `dry_run` repeat a job."""
        return self._call(self._client.request(job, parameters))

    def run(self, job: JobOrId) -> RemoteJob:
        """Run a job that is PENDING or HELD."""
        return self._call(self._client.run(job))

    def hold(self, job: JobOrId) -> RemoteJob:
        """Keep a waiting job from being started until `run`."""
        return self._call(self._client.hold(job))

    def abort(self, job: JobOrId) -> RemoteJob:
        """Stop a job."""
        return self._call(self._client.abort(job))

    def delete(self, job: JobOrId) -> None:
        """Remove a job with its results."""
        self._call(self._client.delete(job))

    def wait(self, job: JobOrId, timeout: float | None = None) -> RemoteJob:
        """Wait until a job has ended."""
        return self._call(self._client.wait(job, timeout))

    def wait_all(self, jobs: Sequence[JobOrId], timeout: float | None = None) -> list[RemoteJob]:
        """Wait until all of some jobs have ended."""
        return self._call(self._client.wait_all(jobs, timeout))

    def changes(self, definitions: Sequence[str] = ()) -> Iterator[RemoteJob]:
        """Yield each job after each change, from now on without end."""
        changes = self._client.changes(definitions)

        async def next_change() -> RemoteJob | None:
            return await anext(changes)

        async def end() -> None:
            async with aclosing(changes):  # type: ignore[type-var]
                pass

        try:
            while True:
                if (job := self._call(next_change())) is not None:
                    yield job
        finally:
            self._call(end())

    def results(self, job: JobOrId) -> list[RemoteResult]:
        """Return the results of a job."""
        return self._call(self._client.results(job))

    def read(self, result: RemoteResult) -> Content:
        """Return the content of a result: its bytes, or as text, table or picture."""
        return self._call(self._client.read(result))

    def download(self, result: RemoteResult, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Save a result in a folder under its name; return its path."""
        return self._call(self._client.download(result, Path(folder), overwrite=overwrite))

    def download_all(self, job: JobOrId, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Save all results of a job in a folder."""
        return self._call(self._client.download_all(job, Path(folder), overwrite=overwrite))

    def read_log(self, job: JobOrId, start: int = 0, attempt: int | None = None) -> str:
        """Return the log of a job as text, from byte ``start`` on; see `Client.read_log`."""

        async def read() -> bytes:
            found = await self._client.get(job)
            text, position = bytearray(), start
            while part := await self._client.read_log(found, position, attempt):
                text += part
                position += len(part)
            return bytes(text)

        return self._call(read()).decode(errors="replace")


@atexit.register
def _close_all() -> None:
    """Close all clients when Python ends; aiohttp would complain about open connections."""
    for client in list(_open):
        client.close()
