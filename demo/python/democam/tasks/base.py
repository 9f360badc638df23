# SPDX-License-Identifier: GPL-3.0-or-later

"""What all of DemoCam's tasks have in common."""

from __future__ import annotations

__all__ = ["DemoTask", "FrameConnections"]

import logging
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.pipe.base import PipelineTask, PipelineTaskConnections


class FrameConnections(PipelineTaskConnections, dimensions=("instrument", "exposure", "detector")):
    """Connections of tasks that process raw frames one by one."""

    raw = cT.Input(
        doc="Raw frame from the camera.",
        name="raw",
        storageClass="DemoCamImage",
        dimensions=("instrument", "exposure", "detector"),
    )


class DemoTask(PipelineTask):
    """A PipelineTask that logs as ``lsst.democam.<label>``.

    pipetask shows information of loggers below ``lsst`` and warnings of all others; a task of another package
    would be silent unless whoever runs it asks for its messages.

    Parameters
    ----------
    log : `logging.Logger`, optional
        Parent of the task's own logger.
    **kwargs
        Passed on.
    """

    def __init__(self, *, log: Any = None, **kwargs: Any):
        super().__init__(log=logging.getLogger("lsst.democam") if log is None else log, **kwargs)
