# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials for a server, and the certificates to trust."""

from __future__ import annotations

__all__ = ["basic", "bearer", "read_token", "reason", "trusted"]

import base64
import ssl
from pathlib import Path

from yarl import URL

from .errors import ClientError, UnreachableError


def bearer(token: str) -> str:
    """Return the header of a bearer token; raise `ClientError` if it is none."""
    if not token.isascii() or not token.isprintable():
        raise ClientError("The token contains characters that are not allowed in tokens")
    return f"Bearer {token}"


def basic(base: URL) -> str:
    """Return the header for the name and password in a URL; empty if it has none."""
    if not base.user:
        return ""
    return "Basic " + base64.b64encode(f"{base.user}:{base.password or ''}".encode()).decode()


def read_token(name: str) -> str:
    """Return the token in a file; raise `UnreachableError` if it cannot be read."""
    try:
        token = Path(name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreachableError(f"token_file {name}: {reason(error)}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise UnreachableError(f"token_file {name}: it does not contain a token")
    return token


def trusted(ca_file: str) -> ssl.SSLContext | bool:
    """Return which certificates to trust: those of a file, or the system's if ``ca_file`` is empty."""
    if not ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UnreachableError(f"ca_file {ca_file}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Return the reason of an error in words, without the file or address."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
