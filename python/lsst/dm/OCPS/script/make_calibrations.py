# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL script: make calibration products one after another, and verify them."""

from __future__ import annotations

__all__ = ["MakeCalibrations"]

from typing import Any

from lsst.ts import salobj

from .result import JobResult
from .sal_script import OcpsScript, job_properties

DURATION = 120.0
"""Expected duration (s) of one product, for the queue."""


class MakeCalibrations(OcpsScript):
    """Make calibration products from exposures that were taken before.

    Each product waits for the one before it; one that fails, or whose
    verification does not pass, ends the script. There is a checkpoint for each
    product and each verification.

    Parameters
    ----------
    index : `int`
        SAL index of the script.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index, "Make and verify calibration products with OCPS.")

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """Return the schema of the configuration."""
        limits = {
            "description": "Largest absolute value that each metric of the verification may have; "
            "keys are <dataset type>.<name>.",
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0},
        }
        # Without defaults: salobj would fill them in where there is no verification.
        job = {
            name: {key: value for key, value in item.items() if key != "default"}
            for name, item in job_properties().items()
        }
        verify = {
            "description": "Job that verifies the product.",
            "type": "object",
            "properties": job | {"limits": limits},
            "required": ["pipeline"],
            "additionalProperties": False,
        }
        product = {
            "type": "object",
            "properties": {
                "name": {"description": "For logs and checkpoints.", "type": "string", "minLength": 1},
                **job,
                "limits": limits,
                "verify": verify,
            },
            "required": ["name", "pipeline"],
            "additionalProperties": False,
        }
        products = {
            "description": "What to make, in this order.",
            "type": "array",
            "items": product,
            "minItems": 1,
        }
        return cls.make_schema({"products": products}, ["products"])

    def set_metadata(self, metadata: Any) -> None:
        """Tell the queue what to expect."""
        super().set_metadata(metadata)
        assert self.config is not None
        metadata.duration = DURATION * len(self.config.products)
        metadata.totalCheckpoints = sum(1 + ("verify" in product) for product in self.config.products)

    async def run(self) -> None:
        """Make the products."""
        assert self.config is not None
        before: list[str] = []
        for product in self.config.products:
            name = product["name"]
            await self.checkpoint(name)
            result = await self._run(name, product, before)
            before = [result.job_id]
            if verify := product.get("verify"):
                await self.checkpoint(f"verify {name}")
                await self._run(f"verification of {name}", verify, before)

    async def _run(self, name: str, job: dict[str, Any], before: list[str]) -> JobResult:
        """Run a job and compare its metrics with their limits."""
        words = ("data_query", "config", "version")
        fields = {word: job[word] for word in words if word in job}
        result = await self.run_job(pipeline=job["pipeline"], prereq_jobs=before, **fields)
        if faults := exceeded(result, job.get("limits") or {}):
            raise salobj.ExpectedError(f"{name} does not pass: {'; '.join(faults)} (job {result.job_id})")
        return result


def exceeded(result: JobResult, limits: dict[str, float]) -> list[str]:
    """Return in words which metrics of a result are beyond their limits, or are not there at all."""
    faults = []
    for key, limit in limits.items():
        dataset_type, _, name = key.rpartition(".")
        found = [
            (metric, metric.values[name])
            for metric in result.metrics
            if metric.dataset_type == dataset_type and name in metric.values
        ]
        if not found:
            faults.append(f"no metric {key}")
        for metric, value in found:
            # NaN is beyond every limit.
            if not isinstance(value, int | float) or not abs(value) <= limit:
                data_id = ", ".join(f"{dimension}={item}" for dimension, item in metric.data_id.items())
                faults.append(f"{key} is {value} for {data_id}; at most {limit:g} is allowed")
    return faults
