# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a file whose URL was given as a parameter.

    python -I fetch.py URL FILE MAX_BYTES GLOB ...

The globs say which URLs are allowed. Host and path are compared separately; a
redirection is followed only to a URL that a glob allows; and private
addresses (this machine, the local network) are connected to only if a glob
names their host in full. No proxy is used, because it would look up the host
itself.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import posixpath
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import IO, Any
from urllib.parse import urlsplit

TIMEOUT = 60.0
"""How long (s) the server may be silent."""

_ENCODED = re.compile(r"%(?:2[ef]|5c|25|00)", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._*:-]+")
_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}


@dataclass(frozen=True)
class Address:
    """A URL, or a glob of URLs, in normal form for comparison.

    Parameters
    ----------
    scheme, host, port, path, query : `str`
        Parts of the URL; the host and scheme in lower case, the port
        always there, the path without ``//`` and ``/./``.
    """

    scheme: str
    host: str
    port: str
    path: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse a URL or a glob of URLs.

        Raises
        ------
        ValueError
            If it is not a URL, or is ambiguous.
        """
        if not text.isprintable() or "\\" in text or " " in text:
            raise ValueError(f"{text!r} is not a URL")
        scheme, mark, rest = text.partition("://")
        scheme = scheme.lower()
        if not mark or not scheme.isalnum():
            raise ValueError(f"{text} is not a URL")
        end = min(found for mark in "/?#" if (found := (rest + mark).index(mark)) >= 0)
        authority, rest = rest[:end], rest[end:].partition("#")[0]
        path, _, query = rest.partition("?")
        if not path and authority.endswith("*"):
            path = "/*"
        host, port = cls._split(authority, text, _PORTS.get(scheme, 0))
        if ".." in path.split("/") or _ENCODED.search(path):
            raise ValueError(f"{text}: .. and percent-encoded dots and slashes cannot be used")
        folder = "/" if path.endswith("/") and path != "/" else ""
        path = posixpath.normpath(path or "/").replace("//", "/") + folder
        return cls(scheme, host, port, path, query)

    @staticmethod
    def _split(authority: str, text: str, port: int) -> tuple[str, str]:
        if "@" in authority:
            raise ValueError(f"{text}: a name or password cannot be part of the URL")
        bracket = authority.rfind("]") if authority.startswith("[") and ":" in authority else -1
        colon = authority.find(":", bracket + 1)
        host, given = (authority[:colon], authority[colon + 1 :]) if colon >= 0 else (authority, "")
        if bracket > 0:
            host = authority[1:bracket]
        if host and not _HOST.fullmatch(host):
            raise ValueError(f"{text}: {host!r} is not a host")
        if given and not re.fullmatch(r"[0-9*]{1,5}", given):
            raise ValueError(f"{text}: {given!r} is not a port")
        return host.lower().rstrip("."), given or str(port)

    def matches(self, glob: Address) -> bool:
        """Return whether a glob allows this URL."""
        pairs = (
            (self.scheme, glob.scheme),
            (self.host, glob.host),
            (self.port, glob.port),
            (self.path, glob.path),
        )
        if not all(fnmatch.fnmatchcase(part, pattern) for part, pattern in pairs):
            return False
        # A glob that says nothing of a query and ends in * takes any.
        any_query = not glob.query and glob.path.endswith("*")
        return any_query or fnmatch.fnmatchcase(self.query, glob.query)


def check(url: str, globs: Iterable[str]) -> bool:
    """Check a URL against globs.

    Parameters
    ----------
    url : `str`
        The URL.
    globs : `~collections.abc.Iterable` [`str`]
        Globs of the URLs that are allowed.

    Returns
    -------
    named : `bool`
        Whether a glob that allows it names its host in full.

    Raises
    ------
    ValueError
        If no glob allows it.
    """
    address = Address.parse(url)
    found = [glob for glob in map(Address.parse, globs) if address.matches(glob)]
    if not found:
        raise ValueError(f"{url} is not allowed; allowed are: {', '.join(globs)}")
    return any(glob.host == address.host for glob in found)


def _connect(host: str, port: int, timeout: Any, private: bool) -> socket.socket:
    """Connect to a host, unless it has a private address and that is not allowed."""
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not private and not address.is_global:
            problem = OSError(f"{host} has the private address {address}, and no glob names it in full")
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            # To the address that was checked: the name might lead elsewhere by now.
            sock.connect(place)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections to checked addresses."""

    def __init__(self, globs: list[str]) -> None:
        super().__init__()
        self.globs = globs

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self._open(HTTPConnection, req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self._open(HTTPSConnection, req)

    def _open(self, kind: type[HTTPConnection], req: urllib.request.Request) -> HTTPResponse:
        private = check(req.full_url, self.globs)

        def connect(place: tuple[str, int], timeout: Any = None, _: Any = None) -> socket.socket:
            return _connect(place[0], place[1], timeout, private)

        def make(host: str, **options: Any) -> HTTPConnection:
            connection = kind(host, **options)
            connection._create_connection = connect  # type: ignore[attr-defined]
            return connection

        return self.do_open(make, req)  # type: ignore[arg-type]


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections only to URLs that a glob allows."""

    max_redirections = 5

    def __init__(self, globs: list[str]) -> None:
        self.globs = globs

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check(newurl, self.globs)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: str, max_bytes: int, globs: list[str]) -> None:
    """Download a URL into a file.

    Parameters
    ----------
    url : `str`
        The URL.
    path : `str`
        The file; missing folders are made.
    max_bytes : `int`
        Largest size (bytes).
    globs : `list` [`str`]
        Globs of the URLs that are allowed.

    Raises
    ------
    OSError, ValueError
        If it cannot be fetched, or is not allowed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url}: only http:// and https:// can be fetched")
    check(url, globs)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Handler(globs),
        _Redirections(globs),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    with opener.open(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
        while block := answer.read(1 << 16):
            file.write(block)
            if file.tell() > max_bytes:
                raise ValueError(f"{url} is longer than {max_bytes} bytes")


def main() -> int:
    """Run from the command line."""
    url, path, max_bytes, *globs = sys.argv[1:]
    try:
        fetch(url, path, int(max_bytes), globs)
    except (OSError, ValueError) as error:
        print(f"{url} could not be fetched: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
