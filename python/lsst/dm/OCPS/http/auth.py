# SPDX-License-Identifier: GPL-3.0-or-later
"""Authentication: who sent a request, and which jobs they may see and change."""

from __future__ import annotations

__all__ = ["PROXY_SECRET", "Authenticator", "Caller"]

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ..config import AuthConfig, ConfigError
from ..jobs.errors import NotAllowedError
from ..jobs.model import Job
from ..private_files import read_private_file
from .connections import Connection, Credentials
from .passwords import TooManyTriesError
from .secrets_file import SecretsFile

PROXY_SECRET = "X-OCPS-Proxy-Secret"
"""Header in which a proxy shows the shared secret."""

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_NOT_USERS = frozenset({"sal", "anonymous"})
_MIN_SECRET = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    Parameters
    ----------
    name : `str`
        Owner of the jobs that the sender creates; empty for anonymous.
    operator : `bool`
        Whether the sender may see and change all jobs.
    """

    name: str
    operator: bool = False

    def check_may_touch(self, job: Job) -> None:
        """Raise `NotAllowedError` if a job belongs to another owner and this is not an operator."""
        if not self.operator and job.owner != self.name:
            raise NotAllowedError(f"Job {job.id} belongs to somebody else")


_EVERYBODY = Caller("", operator=True)


class Authenticator:
    """Identifies the senders of requests.

    Parameters
    ----------
    config : `AuthConfig`
        How callers are authenticated.
    log : `logging.Logger`
        Gets errors in the file of secrets while the server runs.

    Raises
    ------
    ConfigError
        If the configuration cannot be used.
    """

    def __init__(self, config: AuthConfig, log: logging.Logger) -> None:
        self.config = config
        self._log = log
        try:
            self._proxies = [ipaddress.ip_network(address) for address in config.proxies]
        except ValueError as error:
            raise ConfigError(f"http/auth/proxies: {error}") from None
        self._proxy_secret = _read_proxy_secret(config.secret_file)
        self._check_proxies()
        self._secrets = SecretsFile(config.file, log) if config.method == "secrets" else None
        self._accounts: dict[int, str] = {}

    def _check_proxies(self) -> None:
        if self.config.method != "proxy":
            return
        if not self._proxies and not self.config.proxy_accounts:
            raise ConfigError(
                "http/auth: method proxy needs the addresses of its proxies, "
                "or proxy_accounts for proxies at the Unix socket"
            )
        loopback = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))
        own = any(
            network.version == loop.version and network.overlaps(loop)
            for network in self._proxies
            for loop in loopback
        )
        if own and not self._proxy_secret:
            raise ConfigError(
                "http/auth: a proxy at a loopback address must show a secret, because every process of this "
                "machine has that address; set secret_file, or use socket with proxy_accounts"
            )

    def is_proxy(self, peer: str) -> bool:
        """Return whether the peer of a connection is a proxy, which many clients share."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            uid = peer.removeprefix("uid:")
            return uid.isdigit() and self._accounts.get(int(uid)) in self.config.proxy_accounts
        return self.config.method == "proxy" and any(address in network for network in self._proxies)

    async def caller(self, request: web.Request) -> Caller:
        """Return the sender of a request.

        Raises
        ------
        aiohttp.web.HTTPUnauthorized
            If the sender is not known, and anonymous requests are not served.
        aiohttp.web.HTTPTooManyRequests
            If a password is not checked because too many were wrong.
        NotAllowedError
            If a proxy sends a name that cannot be a user's.
        """
        connection = request.protocol
        credentials = connection.credentials if isinstance(connection, Connection) else None
        if credentials is not None:
            return self._as_caller(await self._by_account(request, credentials))
        if self.config.method == "none":
            return _EVERYBODY
        name = await self._by_secret(request) if self._secrets else self._by_proxy(request)
        if name is None:
            if self.config.anonymous:
                return Caller("")
            raise _unauthorized("Authentication is required", challenge=self._secrets is not None)
        return self._as_caller(name)

    def _as_caller(self, name: str) -> Caller:
        return Caller(name, operator=name in self.config.operators)

    async def _by_account(self, request: web.Request, credentials: Credentials) -> str:
        """Return the local account at the Unix socket, or the user named by a proxy there."""
        if (account := self._accounts.get(credentials.uid)) is None:
            # In a thread, because the accounts may be in a directory service on the network.
            account = await asyncio.to_thread(_account_name, credentials.uid)
            self._accounts[credentials.uid] = account
        if account in self.config.proxy_accounts:
            name = self._named_by_proxy(request)
            if name is None:
                raise _unauthorized(f"The proxy sends no user in {self.config.header}")
            return name
        return _checked(account)

    def _by_proxy(self, request: web.Request) -> str | None:
        if not self._from_proxy(request):
            return None
        return self._named_by_proxy(request)

    def _named_by_proxy(self, request: web.Request) -> str | None:
        values = request.headers.getall(self.config.header, [])
        if len(values) > 1:
            raise _unauthorized(f"More than one {self.config.header}")
        return _checked(values[0].strip()) if values and values[0].strip() else None

    def _from_proxy(self, request: web.Request) -> bool:
        try:
            # The address of the connection, because headers about it can be forged.
            address = ipaddress.ip_address((request.remote or "").partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        if not any(address in network for network in self._proxies):
            return False
        if not self._proxy_secret:
            return True
        shown = request.headers.getall(PROXY_SECRET, [])
        return len(shown) == 1 and hmac.compare_digest(_bytes(shown[0]), self._proxy_secret)

    async def _by_secret(self, request: web.Request) -> str | None:
        assert self._secrets
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            name = self._secrets.owner_of_token(rest.strip())
        elif scheme.lower() == "basic":
            user, password = _decode_basic(rest.strip())
            if not user and not password:
                # uws-client sends this if it has neither name nor password.
                return None
            name = user if await self._has_password(request, user, password) else None
        else:
            return None
        if name is None:
            raise _unauthorized("Wrong name, password or token", challenge=True)
        return _checked(name)

    async def _has_password(self, request: web.Request, user: str, password: str) -> bool:
        assert self._secrets
        try:
            return await self._secrets.check_password(request.remote or "", user, password)
        except TooManyTriesError as error:
            headers = {"Retry-After": str(round(error.delay + 0.5))}
            raise web.HTTPTooManyRequests(text=f"{error}\n", headers=headers) from None


def _read_proxy_secret(path: str) -> bytes:
    if not path:
        return b""
    file = Path(os.path.expandvars(path)).expanduser()
    try:
        secret = read_private_file(file)[0].strip().encode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"http/auth/secret_file {file}: {reason}") from None
    if len(secret) < _MIN_SECRET:
        raise ConfigError(f"http/auth/secret_file {file}: expected at least {_MIN_SECRET} characters")
    return secret


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid.{uid}"


def _decode_basic(text: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(_bytes(text), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _unauthorized("Authorization cannot be read", challenge=True) from None
    return user, password


def _bytes(text: str) -> bytes:
    """Return the bytes of a header as they were sent."""
    return text.encode(errors="surrogateescape")


def _checked(name: str) -> str:
    if not _USER.fullmatch(name) or name in _NOT_USERS:
        raise NotAllowedError(f"{name[:80]!a} cannot be the name of a user")
    return name


def _unauthorized(text: str, challenge: bool = False) -> web.HTTPUnauthorized:
    headers = {"WWW-Authenticate": 'Basic realm="OCPS", charset="UTF-8"'} if challenge else {}
    return web.HTTPUnauthorized(text=text, headers=headers)
