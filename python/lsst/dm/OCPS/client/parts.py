# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of requests: forms with files, ids, phases; and jobs at another address."""

from __future__ import annotations

__all__ = ["id_of", "job_form", "moved", "multipart", "next_cursor", "wanted_phases"]

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from .documents import PHASES, RemoteJob, time_text
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


def job_form(
    parameters: Mapping[str, Any],
    *,
    run_id: str = "",
    execution_duration: int | None = None,
    destruction: datetime | None = None,
    prerequisites: Sequence[RemoteJob | str] = (),
    priority: int = 0,
) -> dict[str, str]:
    """Return the fields of the form that creates a job; parameters are those of `Client.submit`."""
    fields = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
    }
    if run_id:
        fields["RUNID"] = run_id
    if execution_duration is not None:
        fields["EXECUTIONDURATION"] = str(execution_duration)
    if destruction is not None:
        fields["DESTRUCTION"] = time_text(destruction, "destruction")
    if prerequisites:
        fields["PREREQ_JOBS"] = ",".join(map(id_of, prerequisites))
    if priority:
        fields["PRIORITY"] = str(priority)
    return fields


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


def id_of(job: RemoteJob | str) -> str:
    """Return the id of a job that is given as such, or as its address or id."""
    return job.id if isinstance(job, RemoteJob) else job.rstrip("/").rpartition("/")[2]


def wanted_phases(phases: str | Collection[str]) -> set[str]:
    """Return phases in upper case; a word alone is one phase."""
    wanted = {phase.upper() for phase in ([phases] if isinstance(phases, str) else phases)}
    if unknown := sorted(wanted - PHASES):
        raise ValueError(f"phases: {unknown[0]!r} is not one of {', '.join(sorted(PHASES))}")
    return wanted


def next_cursor(response: aiohttp.ClientResponse) -> str:
    """Return the cursor of the next page that a list names; empty if it names none."""
    try:
        for link in response.links.values():
            if link.get("rel") == "next":
                return URL(str(link.get("url"))).query.get("cursor", "")
    except ValueError:
        pass
    return ""
