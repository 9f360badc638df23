# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP to a UWS server: one request, one answer or one reason.

What goes wrong is sorted by what it means for the caller: `LinkError`, the
server could not be asked or gave no sensible answer; `RefusedError`, it
understood and said no; `NotFoundError`, it does not know the job.
"""

from __future__ import annotations

__all__ = ["LinkError", "NotFoundError", "RefusedError", "ServerError", "UwsLink", "problem_of"]

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from ...config import ConfigError, UwsConfig

MAX_WRITES = 16
"""Submissions and deletions under way at a time.

The server of today answers one request after the other; more would only wait
there instead of here, and run into their time-out.
"""

MAX_READS = 8
"""Questions about single jobs under way at a time."""

MAX_LISTS = 3
"""List requests and streams under way at a time: one to see changes, one that looks for a job, one more."""

MAX_ANSWER = 64 * 1024**2
"""The longest answer that is read (bytes); a list of 10,000 jobs has about 20 MB."""

OURS = "X-OCPS"
"""Header by which an OCPS is known; the field Server is overwritten by proxies."""

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; ``location`` is where it redirects to, if it does."""

    content_type: str
    text: bytes
    location: str = ""


class UwsLink:
    """Requests to one server.

    Parameters
    ----------
    url : `str`
        Base address of the server.
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
        self.ours = False
        """Whether the last answer was that of an OCPS."""
        self._session: aiohttp.ClientSession | None = None
        self.writes = asyncio.Semaphore(MAX_WRITES)
        self.reads = asyncio.Semaphore(MAX_READS)

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()
            self._session = None

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirected: bool = False,
    ) -> Answer:
        """Send one request, once.

        Parameters
        ----------
        method, path : `str`
            What to ask; the path is below the base address.
        json, form : `object`
            Body.
        timeout : `float`
            How long it may take (s), instead of the configured time.
        redirected : `bool`
            Whether to be sent elsewhere is the answer that is expected.

        Raises
        ------
        ServerError
            If the answer is no success.
        """
        try:
            async with self.sent(method, path, json=json, form=form, timeout=timeout) as response:
                text = await _read(response)
                location = response.headers.get("Location", "") if redirected else ""
                if problem := None if location else problem_of(response, text):
                    raise problem
                answer = Answer(response.content_type, text, location)
        except LinkError:
            self.failed()
            raise
        except ServerError:
            self.unreachable_since = None
            raise
        self.unreachable_since = None
        return answer

    def failed(self) -> None:
        """Take note that the server could not be asked, or gave no sensible answer."""
        # One failure or a hundred: the first is when it began.
        if self.unreachable_since is None:
            self.unreachable_since = time.time()

    @asynccontextmanager
    async def sent(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its response; put into words what goes wrong meanwhile.

        Arguments as for `exchange`; with ``silence`` (s) the answer has no
        end, and only so long may nothing come.
        """
        timeout = timeout or self._config.timeout
        limits = aiohttp.ClientTimeout(
            total=None if silence else timeout, sock_read=silence, connect=min(timeout, CONNECT_TIMEOUT)
        )
        try:
            async with self._open_session().request(
                method,
                str(self._base) + ("/" if path and path[0] != "?" else "") + path,
                json=json,
                data=form,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                self.ours = OURS in response.headers
                yield response
        except aiohttp.ConnectionTimeoutError:
            raise LinkError("it cannot be reached: the connection timed out", sent=False) from None
        except TimeoutError:
            raise LinkError(f"it did not answer within {silence or timeout:g} s", sent=True) from None
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
        headers = {"Accept": "application/json, application/xml, text/xml"}
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


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise LinkError(f"its answer is longer than {MAX_ANSWER} bytes", sent=True, reached=True)
    return b"".join(parts)


def problem_of(response: aiohttp.ClientResponse, text: bytes) -> ServerError | None:
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
