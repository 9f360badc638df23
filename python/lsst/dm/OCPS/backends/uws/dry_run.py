# SPDX-License-Identifier: GPL-3.0-or-later
"""Dry runs of forwarded jobs."""

from __future__ import annotations

__all__ = ["dry_run"]

from ...client.errors import ClientError, RefusedError, UnknownError
from ...jobs.dry_run import DryRun
from ...jobs.errors import BackendError, QueueFullError, WouldFailError
from ...jobs.model import Job
from .server import MAX_DRY_RUNS, UwsServer
from .updates import in_words


async def dry_run(server: UwsServer, job: Job) -> DryRun:
    """Return what a server says that a job would do, or what was checked here if it has no dry runs.

    Parameters
    ----------
    server : `UwsServer`
        The server.
    job : `Job`
        The job, which is not stored.

    Raises
    ------
    QueueFullError
        If too many are under way.
    WouldFailError
        If the server would refuse it, or says that it would fail.
    BackendError
        If the server cannot be asked.
    """
    if server.dry_runs.locked():
        raise QueueFullError(f"{MAX_DRY_RUNS} dry runs are under way; try again later")
    try:
        async with server.dry_runs:
            found = await server.dry_run(job)
    except (RefusedError, UnknownError) as error:
        before, would_fail, reason = str(error).partition("The job would fail: ")
        if would_fail and not before:
            raise WouldFailError(reason) from None
        raise WouldFailError(f"UWS server {server.url} refuses it: {error}") from None
    except ClientError as error:
        raise BackendError(in_words(server.url, error)) from None
    if found is None:
        words = f"the UWS server {server.url} has no dry runs, so pipeline and data were not looked at"
        return DryRun(f"the request; {words}")
    return DryRun(found.checked, found.tasks, found.argv)
