# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of UWS servers: `Client`, for asyncio, and `BlockingClient`.

Needs neither SAL nor pipelines::

    with BlockingClient("http://host:8080") as client:
        job = client.wait(client.submit("sleep", {"duration": 2}))
        print(job.phase, client.results(job))
"""

__all__ = [
    "BlockingClient",
    "Client",
    "ClientError",
    "Content",
    "DryRun",
    "Progress",
    "RefusedError",
    "RemoteJob",
    "RemoteResult",
    "UnknownError",
    "UnreachableError",
]

from .blocking import BlockingClient
from .client import Client
from .content import Content
from .documents import Progress, RemoteJob, RemoteResult
from .dry_run import DryRun
from .errors import ClientError, RefusedError, UnknownError, UnreachableError
