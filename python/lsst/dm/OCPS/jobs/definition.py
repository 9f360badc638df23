# SPDX-License-Identifier: GPL-3.0-or-later
"""Job definitions: what may be requested. Each is a UWS job list."""

from __future__ import annotations

__all__ = ["JobDefinition"]

import abc
import fnmatch
import uuid
from collections.abc import Sequence

from .errors import NotAllowedError
from .model import JobRequest
from .parameters import Parameter, check_parameters
from .retries import RetryPolicy
from .spec import Spec


class JobDefinition(abc.ABC):
    """One kind of job.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    parameters : `~collections.abc.Sequence` [`Parameter`]
        The parameters of such a job.
    description : `str`
        What such a job does.
    users : `~collections.abc.Sequence` [`str`]
        Globs of the owners who may request it; a request without an owner
        counts as of ``anonymous``.
    execution_duration, max_execution_duration : `int`
        Default and longest run time (s); 0 for those of `Limits`.
    priority : `int`
        Priority of its jobs where the request does not say one.
    retries : `RetryPolicy` or `None`
        Whether its jobs are run again after a transient failure.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter] = (),
        *,
        description: str = "",
        users: Sequence[str] = ("*",),
        execution_duration: int = 0,
        max_execution_duration: int = 0,
        priority: int = 0,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self.parameters = tuple(parameters)
        self.description = description
        self.users = tuple(users)
        self.execution_duration = execution_duration
        self.max_execution_duration = max_execution_duration
        self.priority = priority
        self.retries = retries

    runs_any_code = False
    """Whether everyone who may request it can run programs of their own as OCPS's account."""

    def allows(self, owner: str) -> bool:
        """Return whether an owner may request such jobs; ``owner`` is empty for anonymous."""
        return any(fnmatch.fnmatchcase(owner or "anonymous", glob) for glob in self.users)

    def check(self, request: JobRequest, *, complete: bool) -> None:
        """Check a request.

        Parameters
        ----------
        request : `JobRequest`
            The request.
        complete : `bool`
            Whether to refuse a request without all required parameters.

        Raises
        ------
        NotAllowedError
            If its owner may not request such jobs.
        RequestError
            If a parameter is wrong.
        """
        if not self.allows(request.owner):
            owner = request.owner or "anonymous"
            raise NotAllowedError(f"{owner} may not use the job definition {self.name}")
        if self.parameters:
            check_parameters(self.parameters, request.parameters, complete=complete)

    async def check_ready(self) -> None:  # noqa: B027 - most definitions need no files
        """Check that such jobs could run, as far as that can be known before one is requested.

        Raises
        ------
        JobError
            If such jobs could not run, with the reason.
        """

    def duration(self, wish: int | None) -> int | None:
        """Return the run time (s) to request of `Limits` for a requested one; `None` for its default."""
        chosen = (self.execution_duration or None) if wish is None else wish
        longest = self.max_execution_duration
        if not longest or (chosen is not None and chosen < 0):
            return chosen
        return min(chosen or longest, longest)

    def new_id(self, request: JobRequest) -> str:
        """Return an id for a new job.

        Hexadecimal digits only: safe in a URL, a Butler collection, a
        Kubernetes name and a Slurm comment, and no first letter that
        ``uws-client`` would strip.
        """
        return uuid.uuid4().hex

    @abc.abstractmethod
    async def resolve(self, request: JobRequest, job_id: str) -> Spec:
        """Check a request, and return what the backend must run.

        Parameters
        ----------
        request : `JobRequest`
            The request.
        job_id : `str`
            The id that the job has or will have.

        Returns
        -------
        spec : `Spec`
            All that is needed to run the job; later changes of the
            configuration have no effect on it.

        Raises
        ------
        RequestError
            If something in the request is wrong.
        """
