# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SAL scripts have in common: an OCPS, and jobs that must complete."""

from __future__ import annotations

__all__ = ["OcpsScript", "job_properties"]

from types import SimpleNamespace
from typing import Any

from lsst.ts import salobj

from .errors import OcpsError
from .ocps import RUN_TIMEOUT, Ocps
from .result import JobFailedError, JobResult

INSTRUMENTS = {1: "LATISS", 2: "LSSTComCam", 3: "LSSTCam"}
"""SAL index of an OCPS, and whose data it processes."""


DURATION = 60.0
"""Duration (s) that the queue expects, where a script does not say otherwise; run times are not known."""

CHECKPOINTS = 2
"""Number of checkpoints, where a script does not say otherwise: before the job and after it."""


def job_properties() -> dict[str, Any]:
    """Return the part of a configuration schema that describes a job."""
    return {
        "pipeline": {
            "description": "Address of the pipeline, or job: and the name of a definition.",
            "type": "string",
            "minLength": 1,
        },
        "data_query": {
            "description": "Which data to process; an expression as the Butler takes it.",
            "type": "string",
            "default": "",
        },
        "config": {
            "description": "Options of pipetask run, or parameters of a definition.",
            "type": "string",
            "default": "",
        },
        "version": {
            "description": "Environment of the Science Pipelines; empty for the default.",
            "type": "string",
            "default": "",
        },
    }


class OcpsScript(salobj.BaseScript):  # type: ignore[misc]
    """Base class of SAL scripts that run jobs on an OCPS.

    A script that is stopped aborts the jobs that it waits for.

    Parameters
    ----------
    index : `int`
        SAL index of the script.
    descr : `str`
        What it does, for operators.
    """

    def __init__(self, index: int, descr: str) -> None:
        super().__init__(index=index, descr=descr)
        self.config: SimpleNamespace | None = None
        self.ocps: Ocps | None = None

    @classmethod
    def make_schema(cls, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
        """Return a configuration schema with the given properties and those that every script has."""
        common = {
            "ocps_index": {
                "description": "SAL index of the OCPS: 1 LATISS, 2 LSSTComCam, 3 LSSTCam.",
                "type": "integer",
                "enum": sorted(INSTRUMENTS),
                "default": 1,
            },
            "timeout": {
                "description": "How long each job may take (s), waiting included.",
                "type": "number",
                "exclusiveMinimum": 0,
                "default": RUN_TIMEOUT,
            },
        }
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": f"{cls.__name__} v1",
            "description": f"Configuration of {cls.__name__}.",
            "type": "object",
            "properties": properties | common,
            "required": required,
            "additionalProperties": False,
        }

    async def configure(self, config: SimpleNamespace) -> None:
        """Use a configuration and connect to its OCPS."""
        self.config = config
        if self.ocps is None or self.ocps.index != config.ocps_index:
            if self.ocps is not None:
                await self.ocps.close()
            self.ocps = Ocps(self.domain, config.ocps_index)
            await self.ocps.start()

    def set_metadata(self, metadata: Any) -> None:
        """Set the metadata for the queue."""
        assert self.config is not None
        metadata.duration = DURATION
        metadata.totalCheckpoints = CHECKPOINTS
        # Older interfaces do not have it.
        if hasattr(metadata, "instrument"):
            metadata.instrument = INSTRUMENTS[self.config.ocps_index]

    def job_fields(self) -> dict[str, str]:
        """Return the configured fields of `job_properties`, as arguments of `run_job`."""
        return {name: getattr(self.config, name) for name in job_properties()}

    async def run_job(self, **fields: Any) -> JobResult:
        """Run a job that must complete.

        Parameters
        ----------
        **fields
            Arguments of `Ocps.run`.

        Returns
        -------
        result : `JobResult`
            Its result.

        Raises
        ------
        lsst.ts.salobj.ExpectedError
            If it does not complete, with the reason.
        """
        assert self.config is not None
        assert self.ocps is not None
        try:
            result = await self.ocps.run(timeout=self.config.timeout, **fields)
            result.raise_for_failure()
        except (OcpsError, JobFailedError, TimeoutError) as error:
            raise salobj.ExpectedError(str(error)) from None
        self.log.info(f"Job {result.job_id} completed: {fields['pipeline']}, {len(result.outputs)} outputs")
        return result
