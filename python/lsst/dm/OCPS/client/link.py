# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP to one server: limits, time-outs, redirects, credentials, and errors in words."""

from __future__ import annotations

__all__ = ["Answer", "Link"]

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import tenacity
from yarl import URL

from .credentials import basic, bearer, read_token, reason, trusted
from .errors import ClientError, RefusedError, UnknownError, UnreachableError
from .parts import next_cursor
from .text import one_line

ATTEMPTS = 4
"""How often, in all, a request is sent that does no harm when it is carried out twice."""

FIRST_PAUSE = 0.2
"""First pause between two attempts (s); each further one is twice as long."""

CONNECT_TIMEOUT = 10.0
"""How long a connection may take to be made (s)."""

MAX_ANSWER = 64 * 1024**2
"""The longest document that is read (bytes); a list of 10,000 jobs has about 20 MB."""

CHUNK = 1 << 18
MAX_REDIRECTS = 5

UNIX = "unix://"
"""How the address of a server at a Unix socket begins."""

OURS = "X-OCPS"
"""Header by which an OCPS is known; proxies overwrite the header Server."""

_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 425, 429)

Redirect = Literal["follow", "return", "refuse"]
"""What to do with a redirection: follow it, return it as the answer, or raise an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; ``location`` is where it redirects to, ``cursor`` where a list goes on."""

    status: int
    body: bytes
    url: str
    location: str = ""
    content_type: str = ""
    cursor: str = ""


class _LostError(Exception):
    """A connection broke after a request had gone out."""


class Link:
    """Requests to one server; credentials go to no other.

    Parameters
    ----------
    url : `str`
        Address of the server; a name and password in it are for basic
        authentication. ``unix:///path`` is a server at a Unix socket.
    token : `str`
        Bearer token; empty for none.
    token_file : `str`
        File with the bearer token, read when the first connection is made.
    timeout : `float`
        How long an answer may take (s).
    ca_file : `str`
        File with certificates to trust instead of the system's.
    attempts : `int`
        How often, in total, to send an idempotent request.
    follow : `bool`
        Whether `get` follows redirections; otherwise they are errors.
    connections : `int`
        Largest number of connections.

    Raises
    ------
    ClientError
        If ``url`` or ``token`` is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        token_file: str = "",
        timeout: float = 30.0,
        ca_file: str = "",
        attempts: int = ATTEMPTS,
        follow: bool = True,
        connections: int = 100,
    ) -> None:
        self._socket = url.strip().removeprefix(UNIX) if url.strip().startswith(UNIX) else ""
        base = URL("http://localhost") if self._socket else _address(url)
        self._origin = base.origin()
        self.url = str(base.with_user(None)).rstrip("/")
        """The URL, without name and password; ``http://localhost`` for a Unix socket."""
        self.name = f"{UNIX}{self._socket}" if self._socket else self.url
        """The URL for messages."""
        self.ours = False
        """Whether the last answer was from an OCPS."""
        self._auth = bearer(token) if token else basic(base)
        self._token_file = token_file
        self._timeout = timeout
        self._ca_file = ca_file
        self._attempts = attempts
        self._follow = follow
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()
            self._session = None

    def owns(self, url: str) -> bool:
        """Return whether a URL belongs to this server."""
        try:
            return URL(url).origin() == self._origin
        except ValueError:
            return False

    async def get(self, url: str, params: Mapping[str, Any] | None = None, **options: Any) -> Answer:
        """Request a document; retried if the answer is lost.

        Raises
        ------
        ClientError
            If the request fails.
        """
        redirect: Redirect = "follow" if self._follow else "refuse"
        return await self.safely("GET", url, params=params, redirect=redirect, **options)

    async def safely(self, method: str, url: str, **options: Any) -> Answer:
        """Send an idempotent request, and retry it if it or its answer is lost; parameters as for `send`."""
        async for attempt in self.attempts():
            with attempt:
                return await self.send(method, url, **options)
        raise AssertionError("not reached")

    def attempts(self) -> tenacity.AsyncRetrying:
        """Return a loop over attempts for an idempotent operation."""
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(UnreachableError),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=tenacity.wait_exponential(FIRST_PAUSE) + tenacity.wait_random(0, FIRST_PAUSE),
            reraise=True,
        )

    async def send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        json: Any = None,
        redirect: Redirect = "refuse",
        timeout: float | None = None,
    ) -> Answer:
        """Send a request once.

        Parameters
        ----------
        method, url : `str`
            Method and URL.
        params : `~collections.abc.Mapping`
            Query.
        data : `object`
            Form, or a callable that returns it, because a form with files can
            be sent only once.
        json : `object`
            Body, as JSON types.
        redirect : `str`
            What to do with a redirection.
        timeout : `float`
            How long the answer may take (s), instead of the configured time.

        Raises
        ------
        ClientError
            If the answer is not a success.
        """
        address = self._valid(url)
        if params:
            address = address.update_query(params)
        for _ in range(MAX_REDIRECTS):
            form = data() if callable(data) else data
            async with self.open(method, address, data=form, json=json, timeout=timeout) as response:
                target = self._target(response, address)
                if not target or redirect == "return":
                    body = await _read(response, self.name)
                    location = str(target or "")
                    cursor = next_cursor(response)
                    kind = response.content_type
                    return Answer(response.status, body, str(address), location, kind, cursor)
            if redirect == "refuse":
                shown = target.with_query(None).with_fragment(None)
                raise UnreachableError(
                    f"{self.name} redirects to {shown}; use that URL instead", reached=True
                )
            address = target
        raise UnreachableError(f"{self.name} redirects without an end", reached=True)

    @asynccontextmanager
    async def fetch(
        self, url: str, *, silence: float, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Request a file once, following redirections, and yield the response.

        Parameters and errors are those of `open`.
        """
        address = self._valid(url)
        for _ in range(MAX_REDIRECTS):
            async with self.open("GET", address, headers=headers, silence=silence) as response:
                target = self._target(response, address)
                if not target:
                    yield response
                    return
                if not self._follow and target.origin() != self._origin:
                    raise UnreachableError(
                        f"{self.name} redirects elsewhere: to {target.origin()}", reached=True
                    )
            address = target
        raise UnreachableError(f"{self.name} redirects without an end", reached=True)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str | URL,
        *,
        data: Any = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        silence: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield its response, to be read while it is received.

        Parameters
        ----------
        method, url : `str`
            Method and URL.
        data, json : `object`
            Body.
        headers : `~collections.abc.Mapping`
            More headers.
        timeout : `float`
            How long the whole answer may take (s), instead of the configured
            time.
        silence : `float`
            For an answer without end: how long (s) it may pause.

        Raises
        ------
        ClientError
            If the answer is not a success, or the connection is lost.
        """
        address = self._valid(url)
        session = self._open_session()
        own = address.origin() == self._origin
        if self._socket and not own:
            raise UnreachableError(f"{self.name} is at a socket, {address.origin()} is not", reached=True)
        sent_headers = {**(headers or {}), **({"Authorization": self._auth} if own and self._auth else {})}
        whole = timeout or self._timeout
        limits = aiohttp.ClientTimeout(
            total=None if silence else whole, sock_read=silence, sock_connect=min(whole, CONNECT_TIMEOUT)
        )
        try:
            async with AsyncExitStack() as stack:
                request = session.request(
                    method,
                    address,
                    data=data,
                    json=json,
                    headers=sent_headers,
                    timeout=limits,
                    allow_redirects=False,
                )
                try:
                    response = await stack.enter_async_context(request)
                except aiohttp.ClientError:
                    raise
                except ValueError:
                    # For example a host name that cannot be encoded.
                    raise UnreachableError(f"{self.name}: an address is not valid") from None
                self.ours = OURS in response.headers
                if response.status >= 400:
                    raise await self._problem(response)
                yield response
        except aiohttp.ConnectionTimeoutError:
            raise UnreachableError(f"{self.name} cannot be reached: the connection timed out") from None
        except TimeoutError:
            words = f"{self.name} did not answer within {silence or whole:g} s"
            raise UnreachableError(words, sent=True) from None
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(f"{self.name} cannot be reached: {reason(error.os_error)}") from None
        except aiohttp.ClientSSLError as error:
            raise UnreachableError(f"{self.name}: no secure connection: {reason(error)}") from None
        except (aiohttp.ClientError, _LostError) as error:
            # Not the text of the error, which can contain headers of the request.
            name = type(error.__cause__ or error).__name__
            raise UnreachableError(f"{self.name}: the connection was lost ({name})", sent=True) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._token_file:
                self._auth = bearer(read_token(self._token_file))
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket, limit=self._connections)
                if self._socket
                else aiohttp.TCPConnector(
                    limit=self._connections, limit_per_host=self._connections, ssl=trusted(self._ca_file)
                ),
                middlewares=(_once,),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
            )
        return self._session

    def _valid(self, url: str | URL) -> URL:
        """Return a URL if it is valid; it may be from a document or a redirection."""
        try:
            address = URL(url)
        except ValueError:
            address = URL()
        if address.scheme not in ("http", "https") or not address.host:
            shown = one_line(str(url).partition("?")[0], 100)
            raise UnreachableError(
                f"{self.name}: {shown!r} is not an address that can be asked", reached=True
            )
        return address

    def _target(self, response: aiohttp.ClientResponse, address: URL) -> URL | None:
        """Return where an answer redirects to."""
        location = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
        if not location:
            return None
        try:
            return self._valid(address.join(URL(location)))
        except ValueError:
            return self._valid(location)

    async def _problem(self, response: aiohttp.ClientResponse) -> ClientError:
        status = response.status
        text = (await response.content.read(2000)).decode(errors="replace")
        said = "" if text.lstrip().startswith("<") else one_line(text).strip('"')
        words = f"{self.name} answered HTTP {status}" + (f": {said}" if said else "")
        if status == 401:
            words = f"{self.name} does not accept these credentials" + (f": {said}" if said else "")
            return RefusedError(words, status=status)
        if status in (404, 410):
            return UnknownError(said or f"There is nothing at {response.url}", status=status)
        if status >= 500 or status in _TRY_AGAIN:
            # A gateway may answer this while the server behind it processes the request.
            return UnreachableError(words, sent=status not in _TRY_AGAIN, reached=True, status=status)
        return RefusedError(said or words, status=status)


def _address(url: str) -> URL:
    try:
        address = URL(url.strip().rstrip("/"))
        if address.scheme in ("http", "https") and address.host:
            return address.with_query(None).with_fragment(None)
    except ValueError:
        pass
    # Not the text itself, which may contain a password.
    raise ClientError(
        "Expected the address of a server, for example http://host:8080 or unix:///run/ocps.socket"
    )


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Prevent aiohttp from repeating a request.

    It repeats PUT when the connection breaks, because PUT should be
    idempotent; here that would create a second job.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostError from error


async def _read(response: aiohttp.ClientResponse, url: str) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise UnreachableError(
                f"{url}: its answer is longer than {MAX_ANSWER} bytes", sent=True, reached=True
            )
    return b"".join(parts)
