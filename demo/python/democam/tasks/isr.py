# SPDX-License-Identifier: GPL-3.0-or-later

"""Instrument signature removal: overscan and, if asked for, bias."""

from __future__ import annotations

__all__ = ["IsrConfig", "IsrConnections", "IsrTask", "subtract_overscan"]

from typing import Any

import lsst.pipe.base.connectionTypes as cT
import numpy as np
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTaskConfig, Struct

from ..camera import AMPLIFIERS, RAW_SHAPE, SHAPE
from ..image import DemoImage
from ..statistics import clipped_mean_and_std
from .base import DemoTask, FrameConnections


def subtract_overscan(raw: DemoImage) -> DemoImage:
    """Subtract each amplifier's overscan level and trim the overscan off.

    Parameters
    ----------
    raw : `DemoImage`
        Raw frame, shape `~democam.camera.RAW_SHAPE`.

    Returns
    -------
    image : `DemoImage`
        Shape `~democam.camera.SHAPE`, ``float32``, ADU. For each amplifier the header has the overscan's
        level (``OSLV`` and the amplifier's name, ADU) and noise (``OSSD``, ADU).

    Raises
    ------
    ValueError
        If the raw frame has another shape.
    """
    if raw.array.shape != RAW_SHAPE:
        raise ValueError(f"A DemoCam raw is {RAW_SHAPE[0]}x{RAW_SHAPE[1]} pixels, not {raw.array.shape}.")
    array = np.empty(SHAPE, dtype=np.float32)
    header = dict(raw.header)
    for amp in AMPLIFIERS:
        level, noise = clipped_mean_and_std(raw.array[:, amp.overscan])
        array[:, amp.image] = raw.array[:, amp.data] - np.float32(level)
        header[f"OSLV{amp.name}"] = round(level, 4)
        header[f"OSSD{amp.name}"] = round(noise, 4)
    return DemoImage(array=array, header=header)


class IsrConnections(FrameConnections, dimensions=("instrument", "exposure", "detector")):
    bias = cT.PrerequisiteInput(
        doc="Combined bias to subtract.",
        name="bias",
        storageClass="DemoCamImage",
        dimensions=("instrument", "detector"),
    )
    output = cT.Output(
        doc="Trimmed frame without overscan (and bias).",
        name="postIsr",
        storageClass="DemoCamImage",
        dimensions=("instrument", "exposure", "detector"),
    )

    def __init__(self, *, config: IsrConfig | None = None):
        super().__init__(config=config)
        if config is not None and not config.doBias:
            del self.bias


class IsrConfig(PipelineTaskConfig, pipelineConnections=IsrConnections):
    doBias = Field[bool](doc="Subtract a combined bias?", default=True)


class IsrTask(DemoTask):
    """Turn a raw frame into an image whose zero means no light."""

    ConfigClass = IsrConfig
    _DefaultName = "isr"
    config: IsrConfig

    def run(self, raw: DemoImage, bias: DemoImage | None = None, **kwargs: Any) -> Struct:
        """Process one frame.

        Parameters
        ----------
        raw : `DemoImage`
            Raw frame.
        bias : `DemoImage`, optional
            Combined bias, in ADU.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``output``: the processed frame (`DemoImage`, ADU).
        """
        output = subtract_overscan(raw)
        if bias is not None:
            output.array -= bias.array
        self.metadata["mean"] = float(output.array.mean())
        self.log.info("Mean of %s is %.2f ADU.", raw.header.get("OBSID"), output.array.mean())
        return Struct(output=output)
