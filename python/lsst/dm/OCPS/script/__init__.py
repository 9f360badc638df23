# SPDX-License-Identifier: GPL-3.0-or-later
"""For observing scripts: run jobs on an OCPS with one ``await``.

It needs nothing but salobj, 6 or 8, and hides their differences.
"""

from .errors import OcpsError, RefusedError, UnavailableError
from .ocps import Job, Ocps
from .result import DryRun, JobFailedError, JobResult, Metric, Output

__all__ = [
    "DryRun",
    "Job",
    "JobFailedError",
    "JobResult",
    "Metric",
    "Ocps",
    "OcpsError",
    "Output",
    "RefusedError",
    "UnavailableError",
]
