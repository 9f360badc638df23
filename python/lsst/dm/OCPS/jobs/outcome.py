# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backend saw, put into terms of the job."""

from __future__ import annotations

__all__ = ["apply_update", "stopped"]

from typing import Any

from .backend import BackendUpdate
from .model import TRANSITIONS, ErrorSummary, ExecutionPhase, Job

Phase = ExecutionPhase


def apply_update(job: Job, update: BackendUpdate) -> dict[str, Any] | None:
    """Say what changes in a job by what its backend saw.

    Parameters
    ----------
    job : `Job`
        The job as it is.
    update : `BackendUpdate`
        What was seen.

    Returns
    -------
    fields : `dict` or `None`
        The fields that change; `None` if none does. A job that has ended
        does not change any more, whatever is seen of it.
    """
    if job.terminal:
        return None
    fields: dict[str, Any] = {}
    for name in ("exit_code", "progress", "results", "error", "handle"):
        value = getattr(update, name)
        if value is not None and value != getattr(job, name):
            fields[name] = value
    if update.message is not None and not job.stopping and update.message != job.message:
        fields["message"] = update.message
    if update.info:
        fields["info"] = {**job.info, **update.info}
    if update.phase is not None and update.phase != job.phase:
        if update.phase == Phase.ABORTED:
            fields |= stopped(job, "")
        elif update.phase in TRANSITIONS[job.phase] and update.phase != Phase.HELD:
            fields["phase"] = update.phase
    phase = fields.get("phase")
    if phase == Phase.COMPLETED:
        fields |= {"error": None, "message": update.message or ""}
    elif phase == Phase.ERROR:
        fields.setdefault("error", job.error or ErrorSummary(update.message or "failed without a reason"))
        fields["message"] = ""
    return fields or None


def stopped(job: Job, doubt: str) -> dict[str, Any]:
    """Say what a job becomes that was stopped.

    Parameters
    ----------
    job : `Job`
        The job as it is.
    doubt : `str`
        What is not certain about it; added to the reason. Empty if the
        backend has confirmed that nothing of it runs any more.
    """
    remark = f" ({doubt})" if doubt else ""
    if job.deadline_passed:
        # ERROR, not ABORTED: a script must be able to read the result, and it
        # raises on CMD_ABORTED before it does.
        words = f"ran longer than its executionDuration of {job.execution_duration} s and was stopped"
        return {"phase": Phase.ERROR, "error": ErrorSummary(words + remark), "message": ""}
    reason = job.abort_reason or "stopped by something other than OCPS"
    return {"phase": Phase.ABORTED, "message": reason + remark}
