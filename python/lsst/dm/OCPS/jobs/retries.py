# SPDX-License-Identifier: GPL-3.0-or-later
"""When a job that failed is run again: the policy of its definition, and what is kept of each attempt.

Only a transient cause counts: one that may be gone when the same job is run
again. These are

* what the backend reports as transient (`ErrorSummary.transient`). For the
  local pool: the job or its supervisor was killed (SIGKILL, SIGTERM, SIGINT
  or SIGHUP) by something other than OCPS, the machine was restarted
  meanwhile, or the memory did not suffice;
* an exit code that the definition lists in ``exit_codes``;
* a text of ``log_texts`` in the reason of the failure or among the last 20
  lines of the log.

A job is never run again if it was aborted, or ran longer than it may, or was
not heard of for too long: such a job may still run somewhere.
"""

from __future__ import annotations

__all__ = ["Attempt", "RetryPolicy", "transient_cause"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .times import Time


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a job is run again after a transient failure, and when.

    Parameters
    ----------
    max : `int`
        How often it is run again at most.
    delay : `float`
        How long to wait (s) before it is run the second time.
    factor : `float`
        By how much the wait grows with each attempt.
    max_delay : `float`
        The longest wait (s).
    exit_codes : `tuple` [`int`, ...]
        Exit codes that are transient; negative for signals.
    log_texts : `~collections.abc.Mapping` [`str`, `str`]
        Texts that show a transient cause when they are among the last lines
        of the log, by the name of that cause.
    """

    max: int
    delay: float = 10.0
    factor: float = 2.0
    max_delay: float = 600.0
    exit_codes: tuple[int, ...] = ()
    log_texts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any] | None) -> RetryPolicy | None:
        """Return the policy that a configuration describes, which its schema has checked."""
        if not entry or not entry["max"]:
            return None
        return cls(**{**entry, "exit_codes": tuple(entry.get("exit_codes", ()))})

    def wait(self, attempt: int) -> timedelta:
        """Return how long to wait after attempt number ``attempt``, which failed."""
        # The exponent is bounded: a float has no room for any power.
        seconds = self.delay * self.factor ** min(attempt - 1, 60)
        return timedelta(seconds=min(seconds, self.max_delay))


@dataclass(frozen=True, slots=True)
class Attempt:
    """A former attempt of a job.

    Parameters
    ----------
    number : `int`
        Which one; the first is 1.
    reason : `str`
        Why it failed.
    cause : `str`
        What made that count as transient.
    start_time, end_time : `datetime.datetime` or `None`
        UTC.
    exit_code : `int` or `None`
        As for `Job`.
    """

    number: int
    reason: str
    cause: str
    start_time: Time | None = None
    end_time: Time | None = None
    exit_code: int | None = None


def transient_cause(
    policy: RetryPolicy, *, transient: bool, exit_code: int | None, texts: tuple[str, ...]
) -> str:
    """Return what makes a failure transient, in words; empty if nothing does.

    Parameters
    ----------
    policy : `RetryPolicy`
        The policy of the job's definition.
    transient : `bool`
        Whether the backend says so.
    exit_code : `int` or `None`
        As for `Job`.
    texts : `tuple` [`str`, ...]
        The reason of the failure, and the last lines of the log.
    """
    if transient:
        return "marked as transient by the backend"
    if exit_code is not None and exit_code in policy.exit_codes:
        return f"exit code {exit_code}"
    return next((name for name, part in policy.log_texts.items() if any(part in text for text in texts)), "")
