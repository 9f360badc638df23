# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of a backend: how many jobs are accepted, and how long each may run and be kept."""

from __future__ import annotations

__all__ = ["Limits"]

from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .errors import RequestError


class Limits(BaseModel):
    """Limits of one backend.

    The configuration has the same fields (`InstanceConfig` inherits them), so
    that each default is written here alone.

    Parameters
    ----------
    max_workers : `int`
        Jobs passed to the backend at a time.
    max_queued : `int`
        Jobs that may wait; one more is refused.
    max_jobs_per_owner : `int`
        Jobs of one owner that may be live at a time; 0 for no limit. Does
        not apply to requests with `JobRequest.exempt`.
    reserved_places, reserved_workers : `int`
        How many of ``max_queued`` and ``max_workers`` only requests with
        `JobRequest.reserved` may use.
    mode : `str`
        ``async``: a queue; ``sync``: one job at a time, others refused.
    newest_first : `bool`
        Whether of two jobs of the same priority the newer one runs first:
        wavefront work wants the present exposure, not the last one.
    prerequisite_policy : `str`
        ``finished``: a prerequisite may end in any way; ``completed``: it
        must have completed.
    execution_duration, max_execution_duration : `int`
        Default and longest run time of a job (s); 0 means no limit.
    retention : `float`
        How long after its creation a job's files are kept (s).
    max_retention : `float`
        The longest that may be requested instead (s).
    keep_jobs : `int`
        How many ended jobs are kept, whatever their age.
    keep_records : `int`
        How many records of archived jobs, whose files have been removed, are kept.
    keep_space, keep_space_per_owner : `int`
        How much (bytes) of the disk the files of ended jobs may take, all
        together and of one owner; 0 for no limit. The files of the jobs that
        ended first are removed first.
    abort_grace : `float`
        How long (s) the backend may take to confirm that a job has stopped.
    unknown_grace : `float`
        How long (s) a job may be UNKNOWN before it ends as ERROR.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_workers: int = 2
    max_queued: int = 1000
    max_jobs_per_owner: int = 250
    reserved_places: int = 100
    reserved_workers: int = 0
    mode: Literal["async", "sync"] = "async"
    newest_first: bool = False
    prerequisite_policy: Literal["finished", "completed"] = "finished"
    execution_duration: int = 0
    max_execution_duration: int = 0
    retention: float = 30 * 86400.0
    max_retention: float = 365 * 86400.0
    keep_jobs: int = 100_000
    keep_records: int = 1_000_000
    keep_space: int = 107_374_182_400
    keep_space_per_owner: int = 53_687_091_200
    abort_grace: float = 8.0
    unknown_grace: float = 3600.0

    @property
    def ordinary_places(self) -> int:
        """Places in the queue for requests without `JobRequest.reserved`; at least half of them."""
        return self.max_queued - min(self.reserved_places, self.max_queued // 2)

    @property
    def ordinary_workers(self) -> int:
        """Workers for jobs without `JobRequest.reserved`; at least one."""
        return max(1, self.max_workers - self.reserved_workers)

    def duration(self, wish: int | None) -> int:
        """Return the longest run time (s) of a job for the requested one; 0 means no limit.

        A longer time than allowed is reduced, as UWS requires; `None` is the
        default.

        Raises
        ------
        RequestError
            If the requested time is negative.
        """
        chosen = self.execution_duration if wish is None else wish
        if chosen < 0:
            raise RequestError(f"{chosen} s; it must be 0 (no limit) or more", "execution_duration")
        longest = self.max_execution_duration
        return min(chosen or longest, longest) if longest else chosen

    def destruction(self, wish: datetime | None, at: datetime) -> datetime:
        """Return the destruction time (UTC) of a job for the requested one.

        A later time than allowed is reduced; `None` is the default.

        Parameters
        ----------
        wish : `datetime.datetime` or `None`
            The requested time (UTC).
        at : `datetime.datetime`
            The present time (UTC).

        Raises
        ------
        RequestError
            If the requested time is in the past.
        """
        if wish is None:
            return at + timedelta(seconds=self.retention)
        if wish <= at:
            raise RequestError(f"{wish:%Y-%m-%dT%H:%M:%SZ} is in the past", "destruction")
        return min(wish, at + timedelta(seconds=self.max_retention))
