# SPDX-License-Identifier: GPL-3.0-or-later
"""A UWS server, whatever it speaks; that is found out by asking it what has to be asked anyway."""

from __future__ import annotations

__all__ = ["Dialect", "Requests", "UwsServer"]

import builtins
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol, TypeVar

from ...config import UwsConfig
from ...jobs.model import Job
from .link import NotFoundError, RefusedError, ServerError, UwsLink
from .rubin import ServerJob
from .rubin_client import RubinClient
from .xml_client import XmlClient

T = TypeVar("T")


class Dialect(StrEnum):
    """What a server speaks; the text is for the log."""

    UNKNOWN = "not known yet"
    OURS = "an OCPS: one change stream shows all jobs"
    RUBIN = "a server of the Rubin JSON dialect: it is asked again and again"
    XML = "a UWS 1.1 server: it is asked with WAIT, or for lists"


class Requests(Protocol):
    """What is asked of a server; each raises `ServerError`."""

    async def create(self, job: Job) -> ServerJob:
        """Create a job, and run it; return it as the server has it."""
        ...

    async def get(self, server_id: str) -> ServerJob:
        """Return one job."""
        ...

    async def list(self, phase: str = "", timeout: float | None = None) -> builtins.list[ServerJob]:
        """Return all jobs, or those of one phase; ``timeout`` (s) instead of the configured one."""
        ...

    async def delete(self, server_id: str) -> None:
        """Stop a job for good."""
        ...


class UwsServer:
    """The server; its methods are those of `Requests`.

    Parameters
    ----------
    url : `str`
        Base address of the JSON dialect, up to and without ``/job``; or that
        of a UWS job list.
    config : `UwsConfig`
        Time-out, token, certificates.
    log : `logging.Logger`
        Told what the server speaks.
    """

    def __init__(self, url: str, config: UwsConfig, log: logging.Logger) -> None:
        self.link = UwsLink(url, config)
        self.url = self.link.url
        self.rubin = RubinClient(self.link)
        self.xml = XmlClient(self.link)
        self.dialect = Dialect.UNKNOWN
        self._log = log
        self._streamless = False

    async def create(self, job: Job) -> ServerJob:
        """Create a job, and run it; return it as the server has it."""
        return await self._ask(lambda requests: requests.create(job))

    async def get(self, server_id: str) -> ServerJob:
        """Return one job."""
        return await self._ask(lambda requests: requests.get(server_id))

    async def list(self, phase: str = "", timeout: float | None = None) -> builtins.list[ServerJob]:
        """Return all jobs, or those of one phase; ``timeout`` (s) instead of the configured one."""
        return await self._ask(lambda requests: requests.list(phase, timeout))

    async def delete(self, server_id: str) -> None:
        """Stop a job for good."""
        await self._ask(lambda requests: requests.delete(server_id))

    async def close(self) -> None:
        """Close all connections."""
        await self.link.close()

    def lose_stream(self) -> None:
        """Take note that there is no change stream: an older OCPS, or something else meanwhile."""
        self._streamless = self.link.ours
        self._decide(Dialect.RUBIN if self.link.ours else Dialect.UNKNOWN)

    async def _ask(self, ask: Callable[[Requests], Awaitable[T]]) -> T:
        if self.dialect == Dialect.XML:
            return await ask(self.xml)
        try:
            found = await ask(self.rubin)
        except (RefusedError, NotFoundError):
            # What it does not understand it has not done either. Others may have found out meanwhile.
            if self.dialect == Dialect.UNKNOWN and not await self._speaks_xml():
                raise
            if self.dialect not in (Dialect.UNKNOWN, Dialect.XML):
                raise
            self._decide(Dialect.XML)
            return await ask(self.xml)
        self._decide(Dialect.OURS if self.link.ours and not self._streamless else Dialect.RUBIN)
        return found

    async def _speaks_xml(self) -> bool:
        try:
            await self.xml.list()
        except ServerError:
            return False
        return True

    def _decide(self, dialect: Dialect) -> None:
        if self.dialect != dialect:
            self.dialect = dialect
            self._log.info(f"UWS server {self.url} is {dialect}")
