# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks without astronomy: one that does next to nothing, one that takes its time, one that fails."""

from __future__ import annotations

__all__ = [
    "BrokenConfig",
    "BrokenConnections",
    "BrokenTask",
    "OneQuantumConfig",
    "OneQuantumConnections",
    "OneQuantumTask",
    "SlowConfig",
    "SlowConnections",
    "SlowTask",
]

import time
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTaskConfig, PipelineTaskConnections, Struct

from ..image import DemoImage
from .base import DemoTask, FrameConnections


class OneQuantumConnections(PipelineTaskConnections, dimensions=("instrument",)):
    metrics = cT.Output(
        doc="Something small, so that the quantum has an output.",
        name="oneQuantumMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument",),
    )


class OneQuantumConfig(PipelineTaskConfig, pipelineConnections=OneQuantumConnections):
    value = Field[int](doc="Number to write into the output.", default=42)


class OneQuantumTask(DemoTask):
    """Do next to nothing, once per instrument: what is left is the cost of running anything at all."""

    ConfigClass = OneQuantumConfig
    _DefaultName = "oneQuantum"
    config: OneQuantumConfig

    def run(self, **kwargs: Any) -> Struct:
        """Return ``metrics``, a `dict` with the configured ``value``."""
        return Struct(metrics={"value": self.config.value})


class SlowConnections(FrameConnections, dimensions=("instrument", "exposure", "detector")):
    metrics = cT.Output(
        doc="How long it took.",
        name="slowMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )


class SlowConfig(PipelineTaskConfig, pipelineConnections=SlowConnections):
    duration = Field[float](doc="How long each quantum sleeps, in seconds.", default=1.0)
    steps = Field[int](doc="How many log messages it writes meanwhile.", default=4)

    def validate(self) -> None:
        super().validate()
        if self.duration < 0 or self.steps < 1:
            raise ValueError("duration must not be negative and steps must be at least 1.")


class SlowTask(DemoTask):
    """Take a while over each frame and say so in the log."""

    ConfigClass = SlowConfig
    _DefaultName = "slow"
    config: SlowConfig

    def run(self, raw: DemoImage, **kwargs: Any) -> Struct:
        """Sleep.

        Parameters
        ----------
        raw : `DemoImage`
            Raw frame, looked at only for its name.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``metrics``: a `dict` with ``duration_s``, the time it took.
        """
        begin = time.monotonic()
        for step in range(self.config.steps):
            time.sleep(self.config.duration / self.config.steps)
            self.log.info("%s: step %d of %d.", raw.header["OBSID"], step + 1, self.config.steps)
        return Struct(metrics={"duration_s": round(time.monotonic() - begin, 3)})


class BrokenConnections(FrameConnections, dimensions=("instrument", "exposure", "detector")):
    metrics = cT.Output(
        doc="What the frames that do not fail leave behind.",
        name="brokenMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )


class BrokenConfig(PipelineTaskConfig, pipelineConnections=BrokenConnections):
    detector = Field[int](doc="The detector whose frames fail.", default=1)


class BrokenTask(DemoTask):
    """Fail for one detector and succeed for the others, as a bug in real code would."""

    ConfigClass = BrokenConfig
    _DefaultName = "broken"
    config: BrokenConfig

    def run(self, raw: DemoImage, **kwargs: Any) -> Struct:
        """Measure the mean of a frame unless its detector is the broken one.

        Parameters
        ----------
        raw : `DemoImage`
            Raw frame.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``metrics``: a `dict` with ``mean_adu``.

        Raises
        ------
        ValueError
            For frames of the configured detector.
        """
        if raw.header["DETECTOR"] == self.config.detector:
            raise ValueError(
                f"Detector {self.config.detector} of exposure {raw.header['OBSID']} cannot be processed: "
                "this pipeline is broken on purpose."
            )
        return Struct(metrics={"mean_adu": round(float(raw.array.mean()), 3)})
