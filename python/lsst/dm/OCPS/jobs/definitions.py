# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""What may be asked for: job definitions, the UWS job lists."""

from __future__ import annotations

__all__ = ["JobDefinition"]

import abc
import uuid
from collections.abc import Mapping
from typing import Any

from .model import JobRequest


class JobDefinition(abc.ABC):
    """One kind of job.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def new_id(self, request: JobRequest) -> str:
        """Return an id for a new job.

        Hexadecimal digits only: safe in a URL, a Butler collection, a
        Kubernetes name and a Slurm comment, and no first letter that
        ``uws-client`` would strip.
        """
        return uuid.uuid4().hex

    @abc.abstractmethod
    async def resolve(self, request: JobRequest, job_id: str) -> Mapping[str, Any]:
        """Check a request and say what the backend is to run.

        Parameters
        ----------
        request : `JobRequest`
            What was asked for.
        job_id : `str`
            The id that the job has or will have.

        Returns
        -------
        spec : `~collections.abc.Mapping`
            All that is needed to run the job, as JSON types; later changes
            of the configuration do not touch it.

        Raises
        ------
        RequestError
            If something in the request is wrong.
        """
