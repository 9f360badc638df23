# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asking, and what they may do."""

from __future__ import annotations

__all__ = ["Authenticator", "Caller", "check_binding", "check_site"]

import asyncio
import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web

from ..config import AuthConfig, ConfigError, HttpConfig
from ..jobs.errors import NotAllowedError
from ..jobs.model import Job
from .secrets_file import SecretsFile

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_NOT_USERS = frozenset({"sal", "anonymous"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who sends requests.

    Parameters
    ----------
    name : `str`
        The owner of jobs made by them; empty for anonymous.
    operator : `bool`
        Whether they may see and touch all jobs.
    """

    name: str
    operator: bool = False

    def check_may_touch(self, job: Job) -> None:
        """Raise `NotAllowedError` if a job is none of theirs."""
        if not self.operator and job.owner != self.name:
            raise NotAllowedError(f"Job {job.id} belongs to somebody else")


_EVERYBODY = Caller("", operator=True)


class Authenticator:
    """Tells from a request who sent it.

    Parameters
    ----------
    config : `AuthConfig`
        How callers show who they are.

    Raises
    ------
    ConfigError
        If the configuration cannot be used.
    """

    def __init__(self, config: AuthConfig) -> None:
        self.config = config
        try:
            self._proxies = [ipaddress.ip_network(address) for address in config.proxies]
        except ValueError as error:
            raise ConfigError(f"http/auth/proxies: {error}") from None
        if config.method == "proxy" and not self._proxies:
            raise ConfigError("http/auth: method proxy needs the addresses of its proxies")
        self._secrets = SecretsFile(config.file) if config.method == "secrets" else None

    async def caller(self, request: web.Request) -> Caller:
        """Return who sent a request.

        Raises
        ------
        aiohttp.web.HTTPUnauthorized
            If that is not known, and anonymous requests are not served.
        """
        if self.config.method == "none":
            return _EVERYBODY
        name = await self._by_secret(request) if self._secrets else self._by_proxy(request)
        if name is None:
            if self.config.anonymous:
                return Caller("")
            raise _unauthorized("Say who you are", challenge=self._secrets is not None)
        return Caller(name, operator=name in self.config.operators)

    def _by_proxy(self, request: web.Request) -> str | None:
        values = request.headers.getall(self.config.header, [])
        if not values or not self._from_proxy(request):
            return None
        if len(values) > 1:
            raise _unauthorized(f"More than one {self.config.header}")
        return _checked(values[0].strip()) if values[0].strip() else None

    def _from_proxy(self, request: web.Request) -> bool:
        try:
            # The address of the connection: what headers say of it anybody can write.
            address = ipaddress.ip_address(request.remote or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._proxies)

    async def _by_secret(self, request: web.Request) -> str | None:
        assert self._secrets
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            name = self._secrets.owner_of_token(rest.strip())
        elif scheme.lower() == "basic":
            user, password = _decode_basic(rest.strip())
            if not user and not password:
                # What uws-client sends when it was given neither.
                return None
            name = user if await self._secrets.check_password(user, password) else None
        else:
            return None
        if name is None:
            await asyncio.sleep(0.2)
            raise _unauthorized("Wrong name, password or token", challenge=True)
        return _checked(name)


def _decode_basic(text: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _unauthorized("Authorization cannot be read", challenge=True) from None
    return user, password


def _checked(name: str) -> str:
    if not _USER.fullmatch(name) or name in _NOT_USERS:
        raise NotAllowedError(f"{name[:80]!r} cannot be the name of a user")
    return name


def _unauthorized(text: str, challenge: bool = False) -> web.HTTPUnauthorized:
    headers = {"WWW-Authenticate": 'Basic realm="OCPS", charset="UTF-8"'} if challenge else {}
    return web.HTTPUnauthorized(text=text, headers=headers)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine alone."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=64)
def _is_this_machine(host: str) -> bool:
    """Return whether a Host header names this machine alone."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def check_binding(config: HttpConfig) -> None:
    """Refuse to serve everybody beyond this machine, unless that is forced.

    Raises
    ------
    ConfigError
        If the configuration asks for that.
    """
    if config.auth.method == "none" and not is_loopback(config.host) and not config.auth.force:
        raise ConfigError(
            f"http: listening at {config.host} with auth method none would let anybody run jobs; "
            "choose method secrets or proxy, or set force"
        )


def check_site(request: web.Request, config: HttpConfig) -> None:
    """Refuse what a page of another site makes a browser send.

    Raises
    ------
    aiohttp.web.HTTPForbidden
        For a change that another site asked for, and, where callers show
        nothing, for a host name that leads here only in somebody's DNS.
    """
    host = request.host
    unguarded = config.auth.method == "none" and not config.auth.force
    if unguarded and host != config.domain and not _is_this_machine(host):
        raise web.HTTPForbidden(text=f"{host[:80]!r} is not served here; use localhost\n")
    if request.method in _SAFE_METHODS:
        return
    origin = request.headers.get("Origin")
    # "null", from a page without an address, has no host at all.
    if origin is not None and urlsplit(origin).netloc not in {host, config.domain or host}:
        raise web.HTTPForbidden(text="Requests from pages of other sites are refused\n")
