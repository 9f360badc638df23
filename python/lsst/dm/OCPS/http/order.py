# SPDX-License-Identifier: GPL-3.0-or-later
"""Prerequisites and priority in requests."""

from __future__ import annotations

__all__ = ["order_of"]

import re
from typing import Any

from ..jobs.errors import NotAllowedError, RequestError
from .auth import Caller

MAX_PRIORITY = 1000
"""Largest priority, and the negative of the smallest."""

MAX_PREREQUISITES = 1000


def order_of(caller: Caller, prerequisites: Any, priority: Any) -> dict[str, Any]:
    """Return the fields of a `JobRequest` for prerequisites and priority.

    Parameters
    ----------
    caller : `Caller`
        The caller.
    prerequisites : `object`
        ``PREREQ_JOBS``: ids of jobs that must end first, separated by commas;
        in JSON it may be a list.
    priority : `object`
        ``PRIORITY``: a whole number; jobs with a larger one start earlier.

    Raises
    ------
    RequestError
        If one of them is not valid.
    NotAllowedError
        If the priority is above 0 and the caller is not an operator.
    """
    found: dict[str, Any] = {}
    if prerequisites:
        ids = prerequisites.split(",") if isinstance(prerequisites, str) else prerequisites
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise RequestError("PREREQ_JOBS: expected ids of jobs, separated by commas")
        if len(ids) > MAX_PREREQUISITES:
            raise RequestError(f"PREREQ_JOBS: expected at most {MAX_PREREQUISITES} ids")
        found["prerequisites"] = tuple(dict.fromkeys(one.strip() for one in ids if one.strip()))
    if priority:
        if not re.fullmatch(r"[+-]?[0-9]{1,4}", str(priority)) or abs(int(priority)) > MAX_PRIORITY:
            raise RequestError(
                f"PRIORITY: expected a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}, "
                f"not {str(priority)[:40]!r}"
            )
        if int(priority) > 0 and not caller.operator:
            raise NotAllowedError("PRIORITY: only operators may set a priority above 0")
        found["priority"] = int(priority)
    return found
