# SPDX-License-Identifier: GPL-3.0-or-later
"""For observing scripts: run jobs on an OCPS with one ``await``.

It needs nothing but salobj, 6 or 8, and hides their differences.
"""

from .ocps import Ocps, OcpsError, RefusedError, UnavailableError
from .result import DryRun, JobFailedError, JobResult, Metric, Output

__all__ = [
    "DryRun",
    "JobFailedError",
    "JobResult",
    "Metric",
    "Ocps",
    "OcpsError",
    "Output",
    "RefusedError",
    "UnavailableError",
]
