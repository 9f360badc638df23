# SPDX-License-Identifier: GPL-3.0-or-later
"""What a notification says: a compact document, and the e-mail made of it."""

from __future__ import annotations

__all__ = ["end_document", "mail"]

from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any

from ..jobs.model import Job

MAX_TEXT = 2000
"""How much (characters) of a text that a user or a job wrote is sent on."""


def end_document(job: Job, source: str) -> dict[str, Any]:
    """Return the document about a job's end; ``source`` names the instance of OCPS."""
    reason = job.error.message if job.error else job.message
    return {
        "type": "job.ended",
        "timestamp": _time(job.end_time),
        "source": source,
        "data": {
            "jobId": job.id,
            "runId": job.run_id[:MAX_TEXT],
            "owner": job.owner,
            "definition": job.definition,
            "phase": str(job.final_phase),
            "message": reason[:MAX_TEXT],
            "exitCode": job.exit_code,
            "attempt": job.attempt,
            "progress": {
                "done": job.progress.done,
                "failed": job.progress.failed,
                "total": job.progress.total,
            },
            "creationTime": _time(job.creation_time),
            "startTime": _time(job.start_time),
            "endTime": _time(job.end_time),
        },
    }


def mail(
    document: dict[str, Any], notification_id: str, sender: str, recipients: tuple[str, ...]
) -> EmailMessage:
    """Return the e-mail about a job's end.

    Its headers have nothing in them that a user or a job wrote; and the
    `email` package refuses line breaks in headers.
    """
    job = document["data"]
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = f"OCPS {document['source']}: {job['definition']} {job['phase']} (job {job['jobId']})"
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{notification_id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    names = {
        "phase": "phase",
        "definition": "definition",
        "owner": "owner",
        "run id": "runId",
        "created": "creationTime",
        "started": "startTime",
        "ended": "endTime",
        "exit code": "exitCode",
        "attempt": "attempt",
    }
    lines = [f"{label + ':':12}{job[name]}" for label, name in names.items() if job[name] not in (None, "")]
    message.set_content("\n".join([f"Job {job['jobId']} has ended.", "", *lines, "", job["message"]]) + "\n")
    return message


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
