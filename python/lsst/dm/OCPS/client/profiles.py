# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles: URLs of servers, and credentials for them.

``$XDG_CONFIG_HOME/ocps/profiles.toml`` (``~/.config/ocps/profiles.toml``):

.. code-block:: toml

    default = "summit"

    [profiles.summit]
    url = "https://ocps.example"
    token_file = "~/.config/ocps/summit.token"

    [profiles.local]
    url = "http://localhost:8080"
    token_env = "LOCAL_OCPS_TOKEN"

The variables OCPS_URL, OCPS_TOKEN and OCPS_PROFILE take precedence over the
file, and options over the variables. Tokens are never written into the file.
"""

from __future__ import annotations

__all__ = ["DEFAULT_URL", "Profile", "ProfileError", "find_profile", "profiles_path"]

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ClientError

DEFAULT_URL = "http://localhost:8080"
"""The default server."""

_FIELDS = ("url", "token_file", "token_env", "ca_file")


class ProfileError(ClientError):
    """The profiles cannot be used; the text says where and why."""


@dataclass(frozen=True)
class Profile:
    """One server.

    Parameters
    ----------
    url : `str`
        Its URL.
    token : `str`
        Bearer token; empty for none.
    ca_file : `str`
        Certificates to trust instead of the system's.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_file: str = ""


def profiles_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the file of profiles."""
    return Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "ocps" / "profiles.toml"


def find_profile(url: str = "", name: str = "", environ: Mapping[str, str] = os.environ) -> Profile:
    """Find the server to use.

    Parameters
    ----------
    url, name : `str`
        The URL, or the name of a profile, from options.
    environ : `~collections.abc.Mapping`
        Environment variables.

    Raises
    ------
    ProfileError
        If there is no such profile, or it cannot be used.
    """
    path = profiles_path(environ)
    name = name or ("" if url else environ.get("OCPS_PROFILE", ""))
    if not name and (address := url or environ.get("OCPS_URL", "")):
        # A token in the file is only for the server in the file.
        return Profile(address, environ.get("OCPS_TOKEN", ""))
    document = _read(path)
    profiles = document.get("profiles", {})
    name = name or document.get("default", "")
    if not isinstance(profiles, dict) or not isinstance(name, str):
        raise ProfileError(f"{path}: expected default, a text, and profiles, a table of tables")
    if not name:
        return Profile(DEFAULT_URL, environ.get("OCPS_TOKEN", ""))
    entry = profiles.get(name)
    if not isinstance(entry, dict):
        known = ", ".join(sorted(profiles)) or "none"
        raise ProfileError(f"{path}: no profile {name!r}; there are: {known}")
    if unknown := sorted(entry.keys() - set(_FIELDS)):
        raise ProfileError(f"{path}: profiles.{name}: {unknown[0]} is not one of {', '.join(_FIELDS)}")
    if any(not isinstance(value, str) for value in entry.values()) or not (url or entry.get("url")):
        raise ProfileError(f"{path}: profiles.{name}: expected texts, and a url among them")
    ca_file = os.path.expanduser(entry.get("ca_file", ""))
    return Profile(url or entry["url"], _token(entry, f"{path}: profiles.{name}", environ), ca_file)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: {error}") from None


def _token(entry: Mapping[str, str], place: str, environ: Mapping[str, str]) -> str:
    if token := environ.get("OCPS_TOKEN"):
        return token
    if variable := entry.get("token_env"):
        if not environ.get(variable):
            raise ProfileError(f"{place}: token_env: the variable {variable} is not set")
        return environ[variable]
    if not entry.get("token_file"):
        return ""
    path = Path(os.path.expanduser(entry["token_file"]))
    try:
        if path.stat().st_mode & 0o077:
            raise ProfileError(f"{place}: token_file {path} can be read by others; chmod 600 it")
        return path.read_text().strip()
    except (OSError, ValueError) as error:
        raise ProfileError(f"{place}: token_file {path}: {getattr(error, 'strerror', error)}") from None
