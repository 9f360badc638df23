# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL script: run one pipeline, or any other job."""

from __future__ import annotations

__all__ = ["RunPipeline"]

from typing import Any

from .sal_script import OcpsScript, job_properties


class RunPipeline(OcpsScript):
    """Run a pipeline on an OCPS and wait until it has completed.

    Checkpoints: ``submit`` before the job is submitted, ``completed`` after its end.

    Parameters
    ----------
    index : `int`
        SAL index of the script.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index, "Run a pipeline on OCPS.")

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """Return the schema of the configuration."""
        names = {"type": "array", "items": {"type": "string", "minLength": 1}, "default": []}
        own = {
            "prereq_jobs": names | {"description": "Ids of jobs that must end first."},
            "output_dataset_types": names | {"description": "Globs of what to capture."},
        }
        return cls.make_schema(job_properties() | own, ["pipeline"])

    async def run(self) -> None:
        """Run the pipeline."""
        config = self.config
        assert config is not None
        await self.checkpoint("submit")
        result = await self.run_job(
            **self.job_fields(),
            prereq_jobs=config.prereq_jobs,
            output_dataset_types=config.output_dataset_types,
        )
        for metric in result.metrics:
            self.log.info(f"{metric.dataset_type} of {dict(metric.data_id)}: {dict(metric.values)}")
        await self.checkpoint("completed")
