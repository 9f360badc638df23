# SPDX-License-Identifier: GPL-3.0-or-later
"""The XML documents of UWS 1.1.

They are composed without a library, because clients poll jobs every second,
and a document model would take longer than all the rest of a request. The
tests validate them with the schema and with independent models.
"""

from __future__ import annotations

__all__ = [
    "LIST_END",
    "job_document",
    "job_reference",
    "list_start",
    "parameters_document",
    "results_document",
    "time_text",
]

import re
from datetime import datetime
from urllib.parse import quote

from ..jobs.model import ExecutionPhase, Job, Result
from ..jobs.parameters import UPLOAD_PREFIX, Parameter
from ..jobs.store import JobSummary

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACES = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
OWN = "https://github.com/lsst-dm/dm_OCPS/jobInfo/v1"
"""Namespace of OCPS's elements in jobInfo."""

LIST_END = "</uws:jobs>\n"

# Characters that XML 1.0 cannot represent at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile("[&<>\"'\t\n\r]")
_TEXT = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_ATTRIBUTE = _TEXT | {'"': "&quot;", "'": "&#39;", "\t": "&#9;", "\n": "&#10;"}


def text(value: str) -> str:
    """Return a text as the content of an element."""
    return _SPECIAL.sub(lambda match: _TEXT.get(match[0], match[0]), _FORBIDDEN.sub("\ufffd", value))


def attribute(value: str) -> str:
    """Return a text as the value of an attribute."""
    return _SPECIAL.sub(lambda match: _ATTRIBUTE[match[0]], _FORBIDDEN.sub("\ufffd", value))


def time_text(time: datetime | None) -> str:
    """Return a time (UTC) as UWS writes it; empty if there is none."""
    return "" if time is None else time.isoformat(timespec="milliseconds")[:23] + "Z"


def job_document(job: Job, url: str, parameters: tuple[Parameter, ...] = ()) -> str:
    """Return the document of a job.

    Parameters
    ----------
    job : `Job`
        The job.
    url : `str`
        Its address.
    parameters : `tuple` [`Parameter`, ...]
        The parameters of its definition, if that is still known.
    """
    parts = [
        DECLARATION,
        f'<uws:job {NAMESPACES} version="1.1">\n',
        _element("jobId", job.id),
        _element("runId", job.run_id) if job.run_id else "",
        _element("ownerId", job.owner) if job.owner else _nil("ownerId"),
        _element("phase", job.phase),
        _nil("quote"),
        _element("creationTime", time_text(job.creation_time)),
        _time("startTime", job.start_time),
        _time("endTime", job.end_time),
        _element("executionDuration", str(job.execution_duration)),
        _time("destruction", job.destruction),
        _parameters(job, url, parameters),
        _results(job, url),
        _error(job),
        _info(job),
        "</uws:job>\n",
    ]
    return "".join(parts)


def parameters_document(job: Job, url: str, parameters: tuple[Parameter, ...] = ()) -> str:
    """Return the document of a job's parameters; arguments as for `job_document`."""
    return DECLARATION + _parameters(job, url, parameters, NAMESPACES)


def results_document(job: Job, url: str) -> str:
    """Return the document of a job's results; arguments as for `job_document`."""
    return DECLARATION + _results(job, url, NAMESPACES)


def list_start() -> str:
    """Return the beginning of a job list; `job_reference` and `LIST_END` follow."""
    return f'{DECLARATION}<uws:jobs {NAMESPACES} version="1.1">\n'


def job_reference(job: JobSummary, list_url: str) -> str:
    """Return the entry of a job in its list; ``list_url`` must be escaped for XML."""
    run_id = f"<uws:runId>{text(job.run_id)}</uws:runId>" if job.run_id else ""
    owner = f"<uws:ownerId>{text(job.owner)}</uws:ownerId>" if job.owner else '<uws:ownerId xsi:nil="true"/>'
    return (
        f'<uws:jobref id="{job.id}" xlink:type="simple" xlink:href="{list_url}/{job.id}">'
        f"<uws:phase>{job.phase}</uws:phase>{run_id}{owner}"
        f"<uws:creationTime>{time_text(job.creation_time)}</uws:creationTime></uws:jobref>\n"
    )


def result_url(result: Result, url: str) -> str:
    """Return the URL of a result of the job at ``url``."""
    # File names need not be UTF-8; other bytes are represented by surrogates.
    return f"{url}/results/{quote(result.id, safe='/', errors='surrogateescape')}"


def _element(name: str, value: str) -> str:
    return f"<uws:{name}>{text(value)}</uws:{name}>\n"


def _nil(name: str) -> str:
    return f'<uws:{name} xsi:nil="true"/>\n'


def _time(name: str, time: datetime | None) -> str:
    return _nil(name) if time is None else _element(name, time_text(time))


def _parameters(job: Job, url: str, parameters: tuple[Parameter, ...], namespaces: str = "") -> str:
    files = {parameter.name for parameter in parameters if parameter.type == "file"}
    entries = []
    for name, value in job.parameters.items():
        reference = ""
        if name in files:
            reference = ' byReference="true"'
            if value.startswith(UPLOAD_PREFIX):
                value = f"{url}/parameters/{name}"
        entries.append(f'<uws:parameter id="{attribute(name)}"{reference}>{text(value)}</uws:parameter>\n')
    return _holder("parameters", entries, namespaces)


def _results(job: Job, url: str, namespaces: str = "") -> str:
    entries = []
    for result in job.results:
        size = "" if result.size is None else f' size="{result.size}"'
        kind = "" if result.mime_type is None else f' mime-type="{attribute(result.mime_type)}"'
        href = attribute(result_url(result, url))
        entries.append(
            f'<uws:result id="{attribute(result.id)}" xlink:type="simple" xlink:href="{href}"{kind}{size}/>\n'
        )
    return _holder("results", entries, namespaces)


def _holder(name: str, entries: list[str], namespaces: str) -> str:
    start = f"<uws:{name}{' ' if namespaces else ''}{namespaces}"
    if not entries:
        return f"{start}/>\n"
    return f"{start}>\n{''.join(entries)}</uws:{name}>\n"


def _error(job: Job) -> str:
    """Return the error summary, which a job has only in phase ERROR."""
    if job.phase != ExecutionPhase.ERROR or job.error is None:
        return ""
    kind = "transient" if job.error.transient else "fatal"
    return (
        f'<uws:errorSummary type="{kind}" hasDetail="true">\n'
        f"{_element('message', job.error.message)}</uws:errorSummary>\n"
    )


def _info(job: Job) -> str:
    """Return the message and progress of a job, in elements, because the schema allows no text."""
    parts = [f"<ocps:message>{text(job.message)}</ocps:message>\n"] if job.message else []
    if job.progress.total:
        done, failed, total = job.progress.done, job.progress.failed, job.progress.total
        words = f"{done} of {total} quanta done" + (f", {failed} failed" if failed else "")
        parts.append(
            f'<ocps:progress done="{done}" failed="{failed}" total="{total}">{words}</ocps:progress>\n'
        )
    if job.retries:
        number, most = job.attempt, job.retries.max + 1
        words = f"attempt {number} of {most}"
        parts.append(f'<ocps:attempt number="{number}" of="{most}">{words}</ocps:attempt>\n')
    for former in job.attempts:
        reason = text(former.reason)
        parts.append(f'<ocps:formerAttempt number="{former.number}">{reason}</ocps:formerAttempt>\n')
    return f'<uws:jobInfo xmlns:ocps="{OWN}">\n{"".join(parts)}</uws:jobInfo>\n' if parts else ""
