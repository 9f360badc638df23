# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of hashed secrets, which only its owner may read.

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
import logging
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..private_files import read_private_file, stamp_of
from ..yaml_files import parse_yaml
from .passwords import PasswordGate

COST = (16384, 8, 1)
"""Parameters n, r, p of scrypt for new passwords: about 50 ms and 16 MB."""

REMEMBERED = 1000
"""How many right passwords are remembered, so that they are not hashed again."""

REMEMBER_TIME = 300.0
"""How long (s) they are remembered."""


_PASSWORD = re.compile(r"scrypt\$(16384|32768|65536)\$8\$[1-4]\$[0-9a-f]{16,128}\$[0-9a-f]{128}")
_TOKEN = re.compile(r"sha256\$[0-9a-f]{64}")


def hash_password(password: str) -> str:
    """Return the hash of a password, as it is written in the file."""
    salt = secrets.token_bytes(16)
    n, r, p = COST
    digest = hashlib.scrypt(_bytes(password), salt=salt, n=n, r=r, p=p)
    return f"scrypt${n}${r}${p}${salt.hex()}${digest.hex()}"


def hash_token(token: str) -> str:
    """Return the hash of a token; it must be long and random, as no salt is used."""
    return f"sha256${hashlib.sha256(_bytes(token)).hexdigest()}"


def _bytes(text: str) -> bytes:
    # Bytes of a client that are not UTF-8 arrive here as surrogates.
    return text.encode(errors="surrogateescape")


def _matches(password: str, hashed: str) -> bool:
    _, n, r, p, salt, digest = hashed.split("$")
    cost = {"n": int(n), "r": int(r), "p": int(p), "maxmem": 1 << 28}
    found = hashlib.scrypt(_bytes(password), salt=bytes.fromhex(salt), **cost)  # type: ignore[arg-type]
    return hmac.compare_digest(found.hex(), digest)


class SecretsFile:
    """Users with their hashed secrets; read again when the file has changed.

    If the file becomes invalid or readable by others, that is logged and the
    former users remain valid. If it is deleted, there are no users.

    Parameters
    ----------
    path : `str`
        The file.
    log : `logging.Logger`
        Gets errors in the file while the server runs.

    Raises
    ------
    ConfigError
        If it cannot be used.
    """

    def __init__(self, path: str, log: logging.Logger) -> None:
        self.path = Path(os.path.expandvars(path)).expanduser()
        self._log = log
        self._stamp: tuple[int, int, int] | None = None
        self._complaint = ""
        self._passwords: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._known: dict[bytes, float] = {}
        self._salt = secrets.token_bytes(32)
        self._dummy = hash_password(secrets.token_hex())
        self._gate = PasswordGate()
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(f"http/auth/file {self.path}: {_reason(error)}") from None

    def owner_of_token(self, token: str) -> str | None:
        """Return the owner of a token; `None` if it is not valid."""
        self._refresh()
        return self._tokens.get(hash_token(token))

    async def check_password(self, peer: str, user: str, password: str) -> bool:
        """Return whether a user has this password.

        Parameters
        ----------
        peer : `str`
            The peer that sent the password.
        user, password : `str`
            The name and the password.

        Raises
        ------
        TooManyTriesError
            If the peer has sent too many wrong passwords.
        """
        self._refresh()
        hashed = self._passwords.get(user)
        key = hmac.new(self._salt, _bytes(f"{user}\0{hashed}\0{password}"), "sha256").digest()
        if self._known.get(key, 0.0) > time.monotonic():
            return True

        async def right() -> bool:
            # The check takes as long for unknown names, so that it does not reveal which exist.
            return await asyncio.to_thread(_matches, password, hashed or self._dummy) and hashed is not None

        if not await self._gate.check(peer, user, right):
            return False
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = time.monotonic() + REMEMBER_TIME
        return True

    def _refresh(self) -> None:
        """Read the file again if it has changed."""
        complaint = ""
        try:
            if stamp_of(self.path.stat()) == self._stamp:
                return
            self._read()
        except FileNotFoundError:
            self._stamp, self._passwords, self._tokens = None, {}, {}
            complaint = "it was deleted, so there are no users any more"
        except (OSError, ValueError) as error:
            complaint = f"{_reason(error)}; the former users remain valid"
        if complaint and complaint != self._complaint:
            self._log.error(f"http/auth/file {self.path}: {complaint}")
        self._complaint = complaint

    def _read(self) -> None:
        text, stamp = read_private_file(self.path)
        # Set even if the file is invalid, so that this is logged once.
        self._stamp = stamp
        try:
            users = parse_yaml(text)
        except ConfigError as error:
            # Leave out the part of the message that quotes the file.
            reason = str(error).partition(' in "<unicode string>"')[0]
            raise ValueError(f"it is {reason[:200]}") from None
        self._passwords, self._tokens = _parse(users)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _parse(document: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hashed passwords by name, and names by hashed token.

    Raises
    ------
    ValueError
        If the document is not valid; the text contains no secret.
    """
    users = document.get("users") if isinstance(document, dict) else None
    if not isinstance(users, dict):
        raise ValueError("expected the key users, a mapping of names with hashed secrets")
    passwords: dict[str, str] = {}
    tokens: dict[str, str] = {}
    for name, entry in users.items():
        if not isinstance(name, str) or not isinstance(entry, dict) or not entry:
            raise ValueError(f"users/{name}: expected a name with password or token")
        for kind, hashed in entry.items():
            form = {"password": _PASSWORD, "token": _TOKEN}.get(kind)
            if form is None or not isinstance(hashed, str) or not form.fullmatch(hashed):
                raise ValueError(f"users/{name}/{kind}: expected a hash that run_uws.py --hash makes")
            if kind == "password":
                passwords[name] = hashed
            elif hashed in tokens:
                raise ValueError(f"users/{name}/token: {tokens[hashed]} has the same")
            else:
                tokens[hashed] = name
    return passwords, tokens
