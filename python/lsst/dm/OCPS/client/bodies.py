# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent, and what is made of answers."""

from __future__ import annotations

__all__ = ["as_text", "json_of", "moved", "multipart", "parsed"]

import dataclasses
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

from .documents import DocumentError, RemoteJob
from .errors import ClientError, UnreachableError
from .link import Answer


def as_text(value: Any) -> str:
    """Return the value of a parameter as it is sent."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def parsed(parse: Any, answer: Answer) -> Any:
    """Return what ``parse`` makes of an answer."""
    try:
        return parse(answer.body, answer.url)
    except DocumentError as error:
        raise UnreachableError(f"{answer.url}: {error}", sent=True) from None


def json_of(answer: Answer) -> Any:
    """Return an answer that is JSON."""
    try:
        return json.loads(answer.body)
    except ValueError:
        raise UnreachableError(f"{answer.url} answered with something else than JSON", sent=True) from None


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
