# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of jobs that clients poll, encoded once for each change of a job."""

from __future__ import annotations

__all__ = ["Documents"]

from collections.abc import Callable

from ..jobs.model import Job
from ..jobs.parameters import Parameter

KEPT = 1000
"""How many documents are kept."""

MAX_SIZE = 8192
"""Longest document (bytes) that is kept."""


class Documents:
    """The documents that were sent last."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[Job, tuple[Parameter, ...], bytes]] = {}

    def get(
        self, host: str, job: Job, parameters: tuple[Parameter, ...], compose: Callable[[], str]
    ) -> bytes:
        """Return the document of a job, encoded.

        Parameters
        ----------
        host : `str`
            The server as the client names it; it is part of the URLs in the document.
        job : `Job`
            The job; its record is never changed, but replaced by another.
        parameters : `tuple` [`Parameter`, ...]
            The parameters of its definition.
        compose : `~collections.abc.Callable`
            Returns the document; called if none is kept for this record.
        """
        key = (host, job.id)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is job and kept[1] is parameters:
            return kept[2]
        document = compose().encode()
        if len(document) <= MAX_SIZE:
            self._kept[key] = (job, parameters, document)
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        else:
            self._kept.pop(key, None)
        return document
