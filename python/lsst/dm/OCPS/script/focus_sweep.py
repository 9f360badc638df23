# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL script: evaluate a focus sweep."""

from __future__ import annotations

__all__ = ["FocusSweep"]

import math
from typing import Any

from lsst.ts import salobj

from .sal_script import OcpsScript, job_properties


class FocusSweep(OcpsScript):
    """Find the best focus from exposures of a sweep that was taken before.

    Checkpoints: ``evaluate`` before the job is submitted, ``best focus`` when the position is known.
    The position is logged, and kept in `best_focus` for scripts that build on this one.

    Parameters
    ----------
    index : `int`
        SAL index of the script.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index, "Find the best focus of a sweep with OCPS.")
        self.best_focus = math.nan
        """Position of the best focus (mm)."""

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """Return the schema of the configuration."""
        own = {
            "metric": {
                "description": "Dataset type of the metric with best_focus and best_focus_err (mm).",
                "type": "string",
                "default": "focusSweepMetrics",
            },
            "max_error": {
                "description": "Largest uncertainty of the best focus (mm) with which the script succeeds.",
                "type": "number",
                "exclusiveMinimum": 0,
                "default": 0.1,
            },
        }
        return cls.make_schema(job_properties() | own, ["pipeline", "data_query"])

    async def run(self) -> None:
        """Evaluate the sweep."""
        config = self.config
        assert config is not None
        await self.checkpoint("evaluate")
        result = await self.run_job(
            **self.job_fields(),
        )
        try:
            values = result.metric(config.metric)
            position, error = float(values["best_focus"]), float(values["best_focus_err"])
        except (LookupError, TypeError, ValueError) as problem:
            raise salobj.ExpectedError(f"The best focus is not known: {problem}") from None
        if not error <= config.max_error:
            raise salobj.ExpectedError(
                f"The best focus, {position:.4f} mm, is uncertain by {error:.4f} mm;"
                f" at most {config.max_error:g} mm is allowed (job {result.job_id})"
            )
        self.best_focus = position
        self.log.info(f"Best focus: {position:.4f} ± {error:.4f} mm (job {result.job_id})")
        await self.checkpoint("best focus")
