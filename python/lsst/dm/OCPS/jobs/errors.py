# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the engine raises on purpose.

Every message is written for the person who made the request: what was wrong,
where, and what would be right. Messages use the field names of `JobRequest`;
a face with other names replaces them by `RequestError.renamed`.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "JobError",
    "NotAllowedError",
    "QueueFullError",
    "RequestError",
    "StoreError",
    "TransitionError",
    "UnknownJobError",
    "WouldFailError",
]


class JobError(Exception):
    """Base class of all errors that the engine raises on purpose."""


class RequestError(JobError):
    """The request is wrong; nothing was done.

    Parameters
    ----------
    message : `str`
        What is wrong, and what would be right.
    field : `str`
        The field of `JobRequest` that is wrong; empty if it is not one
        field. The text of the error is then ``field: message``.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field

    def renamed(self, names: dict[str, str]) -> RequestError:
        """Return the same error with a face's own name for the field."""
        return type(self)(self.message, names.get(self.field, self.field))


class QueueFullError(JobError):
    """The request is valid, but no more jobs are accepted at present."""


class UnknownJobError(JobError):
    """No job has this id.

    Parameters
    ----------
    job_id : `str`
        The id in the request.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No such job: {job_id!r}")
        self.job_id = job_id


class TransitionError(JobError):
    """The job's phase does not allow the change."""


class NotAllowedError(JobError):
    """The caller is not allowed to do this."""


class WouldFailError(JobError):
    """A dry run found that the job would be accepted, and would then fail.

    Parameters
    ----------
    reason : `str`
        Why it would.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The job would fail: {reason}")
        self.reason = reason


class StoreError(JobError):
    """The job store could not be read or written; nothing was changed."""


class BackendError(JobError):
    """The backend cannot work as configured, or cannot run a job.

    Parameters
    ----------
    message : `str`
        Why.
    may_still_run : `bool`
        Whether the job may start all the same, so that it must not be run again.
    """

    def __init__(self, message: str, may_still_run: bool = False) -> None:
        super().__init__(message)
        self.may_still_run = may_still_run
