# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as a notebook shows them."""

from __future__ import annotations

__all__ = ["job_html"]

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .documents import RemoteJob

COLOURS = {"COMPLETED": "#2a7", "ERROR": "#c33", "ABORTED": "#c80", "EXECUTING": "#28c"}
"""Colour of a phase; others are grey."""


def job_html(job: RemoteJob) -> str:
    """Return a job as a small table, with a bar where progress is known."""
    colour = COLOURS.get(job.phase, "#888")
    rows = [("job", html.escape(job.id)), ("definition", html.escape(job.definition))]
    rows += [
        (name, html.escape(value)) for name, value in (("run id", job.run_id), ("owner", job.owner)) if value
    ]
    rows.append(("phase", f'<b style="color: {colour}">{html.escape(job.phase)}</b>'))
    progress = job.progress
    if progress.total:
        done = progress.done + progress.failed
        failed = f", {progress.failed} failed" if progress.failed else ""
        bar = f'<progress value="{done}" max="{progress.total}"></progress>'
        rows.append(("progress", f"{bar} {done}/{progress.total}{failed}"))
    for name, time in (("created", job.creation_time), ("started", job.start_time), ("ended", job.end_time)):
        if time:
            rows.append((name, f"{time:%Y-%m-%d %H:%M:%S} UTC"))
    if words := job.words:
        rows.append(("message", f'<pre style="margin: 0">{html.escape(words)}</pre>'))
    if job.results:
        rows.append(("results", ", ".join(html.escape(result.id) for result in job.results)))
    cells = "".join(
        f'<tr><th style="text-align: left">{name}</th><td style="text-align: left">{value}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"
