# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of hashed secrets.

.. code-block:: yaml

    users:
      alice:
        password: scrypt$16384$8$1$SALT$HASH
        token: sha256$HASH
"""

from __future__ import annotations

__all__ = ["SecretsFile", "hash_password", "hash_token"]

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path
from typing import Any

import yaml

from ..config import ConfigError

COST = (16384, 8, 1)
"""Parameters n, r, p of scrypt for new passwords: about 50 ms and 16 MB."""

REMEMBERED = 1000
"""How many passwords that were right are remembered."""

REMEMBER_TIME = 300.0
"""For how long (s)."""


def hash_password(password: str) -> str:
    """Return the hash of a password, as it is written in the file."""
    salt = secrets.token_bytes(16)
    n, r, p = COST
    digest = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p)
    return f"scrypt${n}${r}${p}${salt.hex()}${digest.hex()}"


def hash_token(token: str) -> str:
    """Return the hash of a token; it must be long and random, as no salt is used."""
    return f"sha256${hashlib.sha256(token.encode()).hexdigest()}"


def _matches(password: str, hashed: str) -> bool:
    _, n, r, p, salt, digest = hashed.split("$")
    cost = {"n": int(n), "r": int(r), "p": int(p)}
    found = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **cost)  # type: ignore[arg-type]
    return hmac.compare_digest(found.hex(), digest)


class SecretsFile:
    """Users with their hashed secrets; read again when the file has changed.

    Parameters
    ----------
    path : `str`
        The file.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(os.path.expandvars(path)).expanduser()
        self._stamp: tuple[int, int] | None = None
        self._passwords: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._known: dict[bytes, float] = {}
        self._salt = secrets.token_bytes(32)
        self._dummy = hash_password(secrets.token_hex())
        # Each check takes 16 MB and a core: no more of them than this at a time.
        self._slots = asyncio.Semaphore(2)
        self._read()

    def owner_of_token(self, token: str) -> str | None:
        """Return whose token this is, `None` if nobody's."""
        self._read()
        return self._tokens.get(hash_token(token))

    async def check_password(self, user: str, password: str) -> bool:
        """Return whether a user has this password."""
        self._read()
        hashed = self._passwords.get(user)
        key = hmac.new(self._salt, f"{user}\0{hashed}\0{password}".encode(), "sha256").digest()
        if self._known.get(key, 0.0) > time.monotonic():
            return True
        async with self._slots:
            # A name that is not there takes as long as one that is.
            right = await asyncio.to_thread(_matches, password, hashed or self._dummy)
        if not right or hashed is None:
            return False
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = time.monotonic() + REMEMBER_TIME
        return True

    def _read(self) -> None:
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            users = (yaml.safe_load(self.path.read_text()) or {})["users"]
            passwords, tokens = _take(users)
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            if self._stamp:
                # Half written, perhaps; what was there holds until it is right again.
                return
            reason = error.strerror if isinstance(error, OSError) else "expected users, with hashed secrets"
            raise ConfigError(f"http/auth/file {self.path}: {reason}") from None
        self._stamp, self._passwords, self._tokens = stamp, passwords, tokens


def _take(users: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    passwords, tokens = {}, {}
    for name, entry in users.items():
        if hashed := entry.get("password"):
            kind, *fields = hashed.split("$")
            if kind != "scrypt" or len(fields) != 5:
                raise ValueError(name)
            passwords[str(name)] = hashed
        if hashed := entry.get("token"):
            if not hashed.startswith("sha256$"):
                raise ValueError(name)
            tokens[hashed] = str(name)
    return passwords, tokens
