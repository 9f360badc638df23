# SPDX-License-Identifier: GPL-3.0-or-later
"""Checking a pipeline's address before a job is accepted."""

from __future__ import annotations

__all__ = ["check_allowed", "check_exists"]

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..jobs.errors import RequestError
from .environments import Environment


def check_allowed(pipeline: str, allowed: Sequence[str]) -> None:
    """Check a pipeline against the configured globs.

    Parameters
    ----------
    pipeline : `str`
        As asked for.
    allowed : `~collections.abc.Sequence` [`str`]
        Globs; with none, every pipeline is allowed.

    Raises
    ------
    RequestError
        If it is empty, climbs with ``..``, or matches none.
    """
    if not pipeline:
        raise RequestError("pipeline is empty; it must name a pipeline YAML file, for example $X_DIR/a.yaml")
    if pipeline.startswith("-") or "\0" in pipeline:
        raise RequestError(f"pipeline: {pipeline!r} is no file name")
    if not allowed:
        return
    # A pattern that ends in a folder must not be left by "..".
    climbs = ".." in Path(pipeline.partition("#")[0]).parts
    if climbs or not any(fnmatch.fnmatchcase(pipeline, pattern) for pattern in allowed):
        raise RequestError(f"pipeline {pipeline!r} is not allowed here; allowed are: {', '.join(allowed)}")


def check_exists(pipeline: str, environment: Environment) -> None:
    """Check that a pipeline is there, as far as this process can see.

    Parameters
    ----------
    pipeline : `str`
        As pipetask takes it: a path, with ``$NAME`` of the environment,
        ``file://`` or ``resource://``, perhaps with ``#subset``.
    environment : `Environment`
        Where it would run.

    Raises
    ------
    RequestError
        If it is not, or its address is of another kind.
    """
    if environment.config.setup:
        # Its variables are made by commands that have not run.
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
        raise RequestError(f"pipeline {pipeline!r}: {scheme}:// is not supported; give a path or file://")
    path = Path(unquote(urlsplit(address).path) if scheme else address)
    where = "" if str(path) == pipeline else f" (that is {path})"
    if not os.path.isfile(path):
        raise RequestError(f"pipeline {pipeline!r}{where}: there is no such file")
    if not os.access(path, os.R_OK):
        raise RequestError(f"pipeline {pipeline!r}{where} cannot be read")
