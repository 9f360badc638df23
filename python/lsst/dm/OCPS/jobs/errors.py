# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong when a job is asked for or changed.

Every message is written for the person who asked: what was wrong, where,
and what would be right. Faces show the text as it is.
"""

__all__ = [
    "BackendError",
    "JobError",
    "NotAllowedError",
    "QueueFullError",
    "RequestError",
    "StoreError",
    "TransitionError",
    "UnknownJobError",
]


class JobError(Exception):
    """Base of all errors that the engine raises on purpose."""


class RequestError(JobError):
    """What was asked for is wrong; nothing was done."""


class QueueFullError(JobError):
    """The request is fine, but no more jobs are taken just now."""


class UnknownJobError(JobError):
    """No job has this id.

    Parameters
    ----------
    job_id : `str`
        The id that was asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No such job: {job_id!r}")
        self.job_id = job_id


class TransitionError(JobError):
    """The job's phase does not allow what was asked for."""


class NotAllowedError(JobError):
    """This caller may not do that."""


class StoreError(JobError):
    """The job store could not be read or written; nothing was changed."""


class BackendError(JobError):
    """The backend cannot work as configured, or could not take a job."""
