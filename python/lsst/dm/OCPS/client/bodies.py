# SPDX-License-Identifier: GPL-3.0-or-later
"""Forms with files, and jobs at another address."""

from __future__ import annotations

__all__ = ["moved", "multipart"]

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from .documents import RemoteJob
from .errors import ClientError


def multipart(
    fields: Mapping[str, str], files: Mapping[str, Path] | None, opened: ExitStack
) -> aiohttp.FormData:
    """Return a form with files, which stay open until ``opened`` is left."""
    form = aiohttp.FormData()
    for name, value in fields.items():
        form.add_field(name, value, content_type="text/plain; charset=utf-8")
    for name, path in (files or {}).items():
        try:
            file = opened.enter_context(path.open("rb"))
        except OSError as error:
            raise ClientError(f"{path}: {error.strerror}") from None
        form.add_field(name, f"param:{name}_file")
        form.add_field(f"{name}_file", file, filename=path.name)
    return form


def moved(job: RemoteJob, url: str) -> RemoteJob:
    """Return a job with another address, and its results there too."""
    results = tuple(
        dataclasses.replace(result, url=url + result.url.removeprefix(job.url))
        if result.url.startswith(job.url)
        else result
        for result in job.results
    )
    definition = url.rpartition("/")[0].rpartition("/")[2]
    return dataclasses.replace(job, url=url, definition=definition, results=results)
