# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""HTTP to a UWS server of the Rubin JSON dialect: one request, one answer or one reason.

What goes wrong is sorted by what it means for the caller: `LinkError`, the
server could not be asked or gave no sensible answer; `RefusedError`, it
understood and said no; `NotFoundError`, it does not know the job.
"""

from __future__ import annotations

__all__ = ["LinkError", "NotFoundError", "RefusedError", "RubinClient", "ServerError"]

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import aiohttp
from yarl import URL

from ..config import ConfigError, UwsConfig
from .uws_rubin import MalformedError, ServerJob

T = TypeVar("T")

MAX_WRITES = 16
"""Submissions and deletions under way at a time.

The server of today answers one request after the other; more would only wait
there instead of here, and run into their time-out.
"""

MAX_READS = 8
"""Questions about single jobs under way at a time."""

MAX_LISTS = 2
"""List requests under way at a time: one of the poll loop, one that looks for a job."""

MAX_ANSWER = 64 * 1024**2
"""The longest answer that is read (bytes); a list of 10,000 jobs has about 20 MB."""

CONNECT_TIMEOUT = 10.0
"""How long (s) a connection may take to be made."""

# Statuses that ask to try again later.
_TRY_AGAIN = (408, 425, 429)


class ServerError(Exception):
    """The server did not do what was asked; the text is the reason, for people."""


class LinkError(ServerError):
    """The server could not be asked, or its answer is none.

    Parameters
    ----------
    reason : `str`
        What happened.
    sent : `bool`
        Whether the request may have been carried out all the same.
    reached : `bool`
        Whether something answered.
    """

    def __init__(self, reason: str, *, sent: bool, reached: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent
        self.reached = reached


class RefusedError(ServerError):
    """The server said no."""


class NotFoundError(ServerError):
    """The server has no such thing."""


class _LostError(Exception):
    """A connection broke after a request had gone out."""


class RubinClient:
    """The requests of the dialect.

    Parameters
    ----------
    url : `str`
        Base address of the server, up to and without ``/job``.
    config : `UwsConfig`
        Time-out, token, certificates.

    Raises
    ------
    ConfigError
        If ``url`` is no address of a server.

    """

    def __init__(self, url: str, config: UwsConfig) -> None:
        # aiohttp makes basic authentication of a name and password in here.
        self._base = _address(url)
        self._config = config
        self.url = str(self._base.with_user(None)) if self._base.user else str(self._base)
        """The address without name and password, as it may be shown."""
        self.unreachable_since: float | None = None
        """Unix time (s) of the first failure that no answer has followed yet, if there was one."""
        self._session: aiohttp.ClientSession | None = None
        self._writes = asyncio.Semaphore(MAX_WRITES)
        self._reads = asyncio.Semaphore(MAX_READS)

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()
            self._session = None

    # Requests; each raises `ServerError`

    async def create(self, body: Mapping[str, Any]) -> ServerJob:
        """Create a job; return it as the server has it."""
        async with self._writes:
            return await self._ask("PUT", "job", ServerJob.parse, body=body)

    async def get(self, server_id: str) -> ServerJob:
        """Return one job."""

        def parse(answer: Any) -> ServerJob:
            job = ServerJob.parse(answer)
            if job.id != server_id:
                raise MalformedError(f"asked for job {server_id}, it answered with job {job.id}")
            return job

        async with self._reads:
            return await self._ask("GET", f"job/{server_id}", parse)

    async def list(self, phase: str = "", timeout: float | None = None) -> list[ServerJob]:
        """Return all jobs, or those of one phase; ``timeout`` (s) instead of the configured one."""

        def parse(answer: Any) -> list[ServerJob]:
            if not isinstance(answer, list):
                raise MalformedError("it answered with no list of jobs")
            return [ServerJob.parse(item) for item in answer]

        return await self._ask("GET", f"job?phase={phase}" if phase else "job", parse, timeout=timeout)

    async def delete(self, server_id: str) -> None:
        """Delete a job, which stops it."""
        async with self._writes:
            await self._ask("DELETE", f"job/{server_id}", None)

    # How

    async def _ask(
        self,
        method: str,
        path: str,
        parse: Callable[[Any], T] | None,
        *,
        body: Any = None,
        timeout: float | None = None,
    ) -> T:
        """Send one request, once; return what ``parse`` makes of its JSON."""
        try:
            answer = await self._exchange(method, path, body, timeout or self._config.timeout)
            parsed: Any = parse(_json(*answer)) if parse else None
        except MalformedError as error:
            self._failed()
            raise LinkError(str(error), sent=True, reached=True) from None
        except LinkError:
            self._failed()
            raise
        except ServerError:
            self.unreachable_since = None
            raise
        self.unreachable_since = None
        return cast(T, parsed)

    def _failed(self) -> None:
        # One failure or a hundred: the first is when it began.
        if self.unreachable_since is None:
            self.unreachable_since = time.time()

    async def _exchange(self, method: str, path: str, body: Any, timeout: float) -> tuple[str, bytes]:
        """Send a request; return type and text of the answer if it is a success."""
        async with self._sent(method, path, body, timeout) as response:
            text = await _read(response)
            problem = _problem(response, text)
            if problem:
                raise problem
            return response.content_type, text

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: Any, timeout: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its response; put into words what goes wrong meanwhile."""
        try:
            async with self._open_session().request(
                method,
                f"{self._base}/{path}",
                json=body,
                timeout=aiohttp.ClientTimeout(total=timeout, connect=min(timeout, CONNECT_TIMEOUT)),
                allow_redirects=False,
            ) as response:
                yield response
        except aiohttp.ConnectionTimeoutError:
            raise LinkError("it cannot be reached: the connection timed out", sent=False) from None
        except TimeoutError:
            raise LinkError(f"it did not answer within {timeout:g} s", sent=True) from None
        except aiohttp.ClientConnectorError as error:
            raise LinkError(f"it cannot be reached: {_words(error.os_error)}", sent=False) from None
        except aiohttp.ClientSSLError as error:
            raise LinkError(f"no secure connection: {_words(error)}", sent=False) from None
        except aiohttp.InvalidURL as error:
            raise LinkError(f"its address is none: {error.description or 'invalid'}", sent=False) from None
        except (aiohttp.ClientError, _LostError) as error:
            # Not the error itself: some show the request's headers.
            name = type(error.__cause__ or error).__name__
            raise LinkError(f"the connection was lost ({name})", sent=True) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            limit = MAX_WRITES + MAX_READS + MAX_LISTS
            self._session = aiohttp.ClientSession(
                headers=self._headers(),
                # Waiting happens at our own semaphores, where no time-out runs.
                connector=aiohttp.TCPConnector(limit=limit, limit_per_host=limit, ssl=self._ssl()),
                middlewares=(_once,),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if name := self._config.token_file:
            try:
                token = Path(name).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise LinkError(f"token_file {name}: {_words(error)}", sent=False) from None
            if not token or not token.isascii() or not token.isprintable():
                raise LinkError(f"token_file {name}: holds no token", sent=False)
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _ssl(self) -> ssl.SSLContext | bool:
        name = self._config.ca_file
        if not name:
            return True
        try:
            return ssl.create_default_context(cafile=name)
        except OSError as error:
            raise LinkError(f"ca_file {name}: {_words(error)}", sent=False) from None


def _address(url: str) -> URL:
    try:
        address = URL(url.rstrip("/"))
        if address.scheme in ("http", "https") and address.host:
            return address
    except ValueError:
        pass
    # Not the text itself, which may hold a password.
    raise ConfigError("url: expected the address of a UWS server, for example http://host:8080/api/v1")


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again by itself.

    It does so for PUT when the connection breaks, taking it to be idempotent;
    here it would create a second job.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostError from error


def _json(content_type: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise MalformedError(f"it answered {content_type}, not JSON") from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise LinkError(f"its answer is longer than {MAX_ANSWER} bytes", sent=True, reached=True)
    return b"".join(parts)


def _problem(response: aiohttp.ClientResponse, text: bytes) -> ServerError | None:
    """Return what a status that is no success means."""
    status = response.status
    if status < 300:
        return None
    if status < 400:
        target = URL(response.headers.get("Location", "")).with_query(None).with_fragment(None)
        return LinkError(f"it redirects to {target}; give that address as url", sent=False, reached=True)
    said = _said(response, text)
    if status in (401, 403):
        return RefusedError(f"it does not accept these credentials (HTTP {status}{said})")
    if status == 404:
        return NotFoundError(f"not found (HTTP 404{said})")
    if status >= 500 or status in _TRY_AGAIN:
        return LinkError(f"it answered HTTP {status}{said}", sent=True, reached=True)
    return RefusedError(f"HTTP {status}{said}")


def _said(response: aiohttp.ClientResponse, text: bytes) -> str:
    """Return the beginning of what an error says, unless that is a page."""
    if response.content_type == "text/html" and text.lstrip().startswith(b"<"):
        return ""
    words = " ".join(text[:2000].decode(errors="replace").split())[:300].strip('"')
    return f": {words}" if words else ""


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
