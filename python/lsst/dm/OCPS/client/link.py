# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP to a server: one request, one answer or one reason; what is safe is tried again."""

from __future__ import annotations

__all__ = ["Answer", "Link"]

import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import tenacity
from yarl import URL

from .errors import ClientError, RefusedError, UnknownError, UnreachableError

ATTEMPTS = 4
"""How often, in all, a request is sent that does no harm when it is carried out twice."""

FIRST_PAUSE = 0.2
"""First pause between two attempts (s); each further one is twice as long."""

CONNECT_TIMEOUT = 10.0
"""How long a connection may take to be made (s)."""

MAX_ANSWER = 64 * 1024**2
"""The longest document that is read (bytes)."""

CHUNK = 1 << 18
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; ``location`` is where it redirects to, if it does."""

    status: int
    body: bytes
    url: str
    location: str = ""


class Link:
    """Requests to one server; credentials go to nobody else.

    Parameters
    ----------
    url : `str`
        Address of the server; a name and password in it are for basic
        authentication.
    token : `str`
        Bearer token; empty for none.
    timeout : `float`
        How long an answer may take (s).
    ca_file : `str`
        File with certificates to trust instead of the system's.

    Raises
    ------
    ClientError
        If ``url`` is no address.
    """

    def __init__(self, url: str, *, token: str = "", timeout: float = 30.0, ca_file: str = "") -> None:
        base = _address(url)
        self._origin = base.origin()
        self.url = str(base.with_user(None)).rstrip("/")
        """The address, without name and password."""
        self._auth = self._authorization(base, token)
        self._timeout = timeout
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    @staticmethod
    def _authorization(base: URL, token: str) -> str:
        if token:
            if not token.isascii() or not token.isprintable():
                raise ClientError("The token has characters that no token has")
            return f"Bearer {token}"
        if not base.user:
            return ""
        return "Basic " + base64.b64encode(f"{base.user}:{base.password or ''}".encode()).decode()

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()
            self._session = None

    async def get(self, url: str, params: Mapping[str, Any] | None = None, **options: Any) -> Answer:
        """Ask for a document, following redirections; tried again.

        Raises
        ------
        ClientError
            If it could not be had.
        """
        return await self.safely("GET", url, params=params, follow=True, **options)

    async def safely(self, method: str, url: str, **options: Any) -> Answer:
        """Send a request again when it, or its answer, was lost; as `send`."""
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(UnreachableError),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(FIRST_PAUSE) + tenacity.wait_random(0, FIRST_PAUSE),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                return await self.send(method, url, **options)
        raise AssertionError("not reached")

    async def send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        follow: bool = False,
        timeout: float | None = None,
    ) -> Answer:
        """Send a request once.

        Parameters
        ----------
        method, url : `str`
            What to ask.
        params : `~collections.abc.Mapping`
            Query.
        data : `object`
            Form; a callable is called for it, as a form with files can be sent once only.
        follow : `bool`
            Whether to follow redirections.
        timeout : `float`
            How long the answer may take (s), instead of the configured time.

        Raises
        ------
        ClientError
            If the answer is no success.
        """
        address = URL(url)
        if params:
            address = address.update_query(params)
        for _ in range(MAX_REDIRECTS):
            form = data() if callable(data) else data
            async with self.open(method, address, data=form, timeout=timeout) as response:
                location = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
                target = str(address.join(URL(location))) if location else ""
                if not (target and follow):
                    body = await _read(response)
                    return Answer(response.status, body, str(address), target)
                address = URL(target)
        raise UnreachableError(f"{self.url} redirects without an end")

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str | URL,
        *,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its response, to be read while it comes.

        Parameters
        ----------
        method, url : `str`
            What to ask.
        data : `object`
            Form.
        headers : `~collections.abc.Mapping`
            More headers.
        timeout : `float`
            How long all may take (s), instead of the configured time.
        silence : `float`
            For what has no end: how long nothing may come (s), instead.

        Raises
        ------
        ClientError
            If the answer is no success, or the connection is lost.
        """
        address = URL(url)
        own = address.origin() == self._origin
        sent_headers = {**(headers or {}), **({"Authorization": self._auth} if own and self._auth else {})}
        total = None if silence else timeout or self._timeout
        limits = aiohttp.ClientTimeout(total=total, sock_read=silence, sock_connect=CONNECT_TIMEOUT)
        try:
            async with self._open_session().request(
                method, address, data=data, headers=sent_headers, timeout=limits, allow_redirects=False
            ) as response:
                if response.status >= 400:
                    raise await self._problem(response)
                yield response
        except aiohttp.ConnectionTimeoutError:
            raise UnreachableError(f"{self.url} cannot be reached: the connection timed out") from None
        except TimeoutError:
            raise UnreachableError(f"{self.url} did not answer in time", sent=True) from None
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or str(error.os_error)
            raise UnreachableError(f"{self.url} cannot be reached: {reason}") from None
        except aiohttp.ClientSSLError as error:
            raise UnreachableError(f"No secure connection to {self.url}: {error}") from None
        except aiohttp.ClientError as error:
            # Not the error itself: some show the request's headers.
            name = type(error).__name__
            raise UnreachableError(f"The connection to {self.url} was lost ({name})", sent=True) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            trusted: ssl.SSLContext | bool = True
            if self._ca_file:
                try:
                    trusted = ssl.create_default_context(cafile=self._ca_file)
                except OSError as error:
                    raise ClientError(f"{self._ca_file}: {error.strerror or error}") from None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trusted),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
            )
        return self._session

    async def _problem(self, response: aiohttp.ClientResponse) -> ClientError:
        status = response.status
        text = (await response.content.read(2000)).decode(errors="replace")
        page = response.content_type == "text/html"
        said = "" if page else " ".join(text.split())[:500]
        if status == 401:
            return RefusedError(
                f"{self.url} does not accept these credentials" + (f": {said}" if said else "")
            )
        if status in (404, 410):
            return UnknownError(said or f"There is nothing at {response.url}")
        words = said or f"{self.url} answered HTTP {status}"
        if status >= 500 or status in _TRY_AGAIN:
            # Gateways answer so while the server behind them may be at work.
            return UnreachableError(words, sent=status in (500, 502, 504))
        return RefusedError(words)


def _address(url: str) -> URL:
    try:
        address = URL(url.strip().rstrip("/"))
        if address.scheme in ("http", "https") and address.host:
            return address.with_query(None).with_fragment(None)
    except ValueError:
        pass
    # Not the text itself, which may hold a password.
    raise ClientError("Expected the address of a server, for example http://host:8080")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise UnreachableError(f"An answer is longer than {MAX_ANSWER} bytes", sent=True)
    return b"".join(parts)
