# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the addresses of pipelines and configuration files before a job is accepted.

An address is first converted to a canonical form: variables replaced,
``file://`` removed, ``//`` and ``/./`` collapsed. Only that form is compared
with globs and directories, which are converted in the same way. Ambiguous
addresses (with ``..``, percent-encoded dots and slashes, or a slash after
``#``) are refused wherever something is compared.
"""

from __future__ import annotations

__all__ = ["check_allowed", "check_config_file", "check_exists", "check_outside"]

import fnmatch
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..jobs.errors import RequestError
from .environments import Environment

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ENCODED = re.compile(r"%(?:2[ef]|5c|25|00)", re.IGNORECASE)
_CONFIG_FILE = re.compile(r"[A-Za-z_][\w.]*:([^:,\[\]\s]+)")
_SUBSET = re.compile(r"[^/\\$%#?]*")


def check_allowed(pipeline: str, allowed: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Check a pipeline against the configured globs.

    Parameters
    ----------
    pipeline : `str`
        The pipeline in the request.
    allowed : `~collections.abc.Sequence` [`str`]
        Globs; if empty, every pipeline is allowed.
    variables : `~collections.abc.Mapping` [`str`, `str`] or `None`
        Environment variables of the job; `None` if they are not known here,
        so that ``$X_DIR`` is compared as it is written.

    Raises
    ------
    RequestError
        If it is empty, ambiguous, or matches no glob.
    """
    if not pipeline:
        raise RequestError("pipeline is empty; it must name a pipeline YAML file, for example $X_DIR/a.yaml")
    if pipeline.startswith("-") or not pipeline.isprintable():
        raise RequestError(f"pipeline: {pipeline!r} is not a file name")
    if not allowed:
        return
    address, mark, subset = pipeline.partition("#")
    if not _SUBSET.fullmatch(subset):
        raise RequestError(f"pipeline {pipeline!r}: what follows # must be the name of a subset")
    found = canonical("pipeline", address, variables) + mark + subset
    if not any(fnmatch.fnmatchcase(found, glob) for glob in _canonical_globs(allowed, variables)):
        raise RequestError(f"pipeline {pipeline!r} is not allowed here; allowed are: {', '.join(allowed)}")


def _canonical_globs(allowed: Sequence[str], variables: Mapping[str, str] | None) -> list[str]:
    globs = []
    for glob in allowed:
        address, mark, subset = glob.partition("#")
        globs.append(_normal(_filled(address, variables, escape=True)) + mark + subset)
    return globs


def canonical(name: str, address: str, variables: Mapping[str, str] | None) -> str:
    """Return the canonical form of an address.

    Parameters
    ----------
    name : `str`
        Name of the field, for the error.
    address : `str`
        A path or URI, without ``#subset``.
    variables : `~collections.abc.Mapping` [`str`, `str`] or `None`
        As for `check_allowed`.

    Raises
    ------
    RequestError
        If it is ambiguous.
    """
    found = _filled(address, variables)
    if ".." in re.split(r"[/\\]", found):
        raise RequestError(f"{name} {address!r}: .. cannot be used")
    if _ENCODED.search(found):
        raise RequestError(f"{name} {address!r}: percent-encoded dots and slashes cannot be used")
    scheme = found.partition("://")[0] if "://" in found else ""
    if scheme and any(character in found for character in "?;"):
        raise RequestError(f"{name} {address!r}: ? and ; cannot be used in a URI")
    # An unknown variable may be at the beginning only: its value could contain "..".
    if "$" in found[1:]:
        raise RequestError(f"{name} {address!r}: a variable that is not known here must be at the beginning")
    return _normal(found)


def _filled(text: str, variables: Mapping[str, str] | None, *, escape: bool = False) -> str:
    """Return a text with known variables replaced by their values, and unknown ones written as ``$X``."""

    def fill(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        value = None if variables is None else variables.get(name)
        if value is None:
            return f"${name}"
        return re.sub(r"([*?[])", r"[\1]", value) if escape else value

    return os.path.expanduser(_VARIABLE.sub(fill, text))


def _normal(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    if not mark or "/" in scheme:
        return posixpath.normpath(address)
    if scheme.lower() == "file":
        host, _, path = rest.partition("/")
        path = posixpath.normpath(f"/{unquote(path)}")
        return path if host in ("", "localhost") else f"file://{host}{path}"
    return f"{scheme.lower()}://{posixpath.normpath(rest)}"


def check_outside(name: str, address: str, directory: Path, variables: Mapping[str, str]) -> None:
    """Check that a file is not below a directory, even through links.

    Raises
    ------
    RequestError
        If it is: files that jobs write must not become code of other jobs.
    """
    text = os.path.expanduser(_filled(address, variables))
    path = unquote(urlsplit(text).path) if text.lower().startswith("file:") else text
    if "\0" in path or Path(path).resolve().is_relative_to(directory.resolve()):
        raise RequestError(f"{name} {address!r} is in work_dir, where jobs write; name a file elsewhere")


def check_config_file(value: str, directories: Sequence[str], variables: Mapping[str, str] | None) -> None:
    """Check that a configuration file (``-C``) is in one of the listed directories.

    Parameters
    ----------
    value : `str`
        ``label:file``. It may have only one colon and no comma, because
        pipetask splits it at these.
    directories : `~collections.abc.Sequence` [`str`]
        The directories.
    variables : `~collections.abc.Mapping` [`str`, `str`] or `None`
        As for `check_allowed`.

    Raises
    ------
    RequestError
        If it is in none of them.
    """
    match = _CONFIG_FILE.fullmatch(value)
    if match is None:
        raise RequestError(f"config: expected label:file for a configuration file, not {value!r}")
    found = canonical("config", file := match[1], variables)
    for directory in directories:
        base = canonical("config_directories", directory, variables)
        if found.startswith(f"{base.rstrip('/')}/"):
            if variables is None or not found.startswith("/"):
                return
            # A link in the directory must not lead out of it.
            if Path(found).resolve().is_relative_to(Path(base).resolve()):
                return
    listed = ", ".join(directories) or "none is listed"
    raise RequestError(
        f"config: the configuration file {file!r} is not in a directory that is allowed here "
        f"(config_directories: {listed})"
    )


def check_exists(pipeline: str, environment: Environment) -> None:
    """Check that the file of a pipeline exists, as far as this process can see.

    Parameters
    ----------
    pipeline : `str`
        The pipeline, as for pipetask: a path, perhaps with ``$NAME`` of the
        environment, ``file://`` or ``resource://``, perhaps with ``#subset``.
    environment : `Environment`
        The environment in which it would run.

    Raises
    ------
    RequestError
        If the file does not exist, or the address is of another kind.
    """
    if environment.config.setup:
        # Its variables are not known before its set-up commands have run.
        return
    address = os.path.expanduser(environment.expand(pipeline.partition("#")[0]))
    try:
        scheme = urlsplit(address).scheme
    except ValueError as error:
        raise RequestError(f"pipeline {pipeline!r}: {error}") from None
    if scheme == "resource":
        # Only the environment's own interpreter knows its packages.
        return
    if scheme not in ("", "file"):
        raise RequestError(f"pipeline {pipeline!r}: {scheme}:// is not supported; use a path or file://")
    path = Path(unquote(urlsplit(address).path) if scheme else address)
    where = "" if str(path) == pipeline else f" (that is {path})"
    if not os.path.isfile(path):
        raise RequestError(f"pipeline {pipeline!r}{where}: there is no such file")
    if not os.access(path, os.R_OK):
        raise RequestError(f"pipeline {pipeline!r}{where} cannot be read")
