# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of where the server may listen, and which Host and Origin headers it accepts."""

from __future__ import annotations

__all__ = ["SAFE_METHODS", "Site", "check_binding"]

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web

from ..config import ConfigError, HttpConfig
from ..jobs.definition import JobDefinition
from .connections import Connection

_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback address."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_binding(config: HttpConfig, definitions: Iterable[JobDefinition]) -> None:
    """Refuse to serve without authentication, unless the configuration allows it explicitly.

    Parameters
    ----------
    config : `HttpConfig`
        The configuration.
    definitions : `~collections.abc.Iterable` [`JobDefinition`]
        The job definitions that would be served.

    Raises
    ------
    ConfigError
        If anonymous callers could run any program, or could reach the server
        from other machines.
    """
    if not config.host and not config.socket:
        raise ConfigError("http: expected host or socket; with neither nothing is served")
    if config.authenticated:
        return
    if not is_loopback(config.host) and not config.auth.force:
        raise ConfigError(
            f"http: listening at {config.host} with auth method none would let anybody run jobs; "
            "choose method secrets or proxy, or set force"
        )
    unsafe = sorted(found.name for found in definitions if found.runs_any_code and found.allows(""))
    if unsafe and not config.auth.open:
        raise ConfigError(
            "http: with auth method none every account of this machine, and every job, could run any "
            f"program as OCPS's account through {', '.join(unsafe)}; choose auth method secrets or proxy, "
            "serve a socket only (host: ''), keep them for nobody (general_users: []), or set auth/open: true"
        )


class Site:
    """The names under which a server may be addressed.

    Parameters
    ----------
    config : `HttpConfig`
        The configuration.
    """

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        # Clients send the same name in each request.
        self._has_name = lru_cache(maxsize=64)(self._find_name)

    def check(self, request: web.Request) -> None:
        """Refuse a Host header that does not name this server, and changes requested by pages of other sites.

        Raises
        ------
        aiohttp.web.HTTPForbidden
            If the request is refused.
        """
        host = request.host
        if not self._has_name(host) and not _is_local(request):
            raise web.HTTPForbidden(text=f"{host[:80]!a} is not served here; see http/domain of OCPS\n")
        if request.method in SAFE_METHODS:
            return
        origin = request.headers.get("Origin")
        if origin is not None and not _is_own(origin, host, self._config):
            raise web.HTTPForbidden(text="Requests from pages of other sites are refused\n")

    def _find_name(self, host: str) -> bool:
        """Return whether a Host header names this server, so that it may be used in URLs of answers."""
        config = self._config
        if not _HOST.fullmatch(host):
            return False
        if config.domain and host == config.domain:
            return True
        if not config.authenticated and not config.auth.force:
            # Prevents DNS rebinding: a page could use a host name that resolves to this address.
            return _is_loopback_host(host)
        return bool(config.domain) or _is_known_host(host, config.host)


def _is_local(request: web.Request) -> bool:
    """Return whether a request came through the Unix socket, where names have no meaning."""
    connection = request.protocol
    return isinstance(connection, Connection) and connection.credentials is not None


def _is_loopback_host(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _is_known_host(host: str, listening_at: str) -> bool:
    """Return whether a Host header is an address, or a known name of this machine."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return False
    own = socket.gethostname().lower()
    if name in {own, own.partition(".")[0], listening_at.lower()} or is_loopback(name):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_own(origin: str, host: str, config: HttpConfig) -> bool:
    """Return whether an Origin header names this server."""
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    # "null", the origin of a page without an address, has no host.
    return page.scheme == config.protocol and page.netloc in {host, config.domain or host}
