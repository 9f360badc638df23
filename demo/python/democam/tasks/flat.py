# SPDX-License-Identifier: GPL-3.0-or-later

"""Combine flats, measure gain from them, and show them."""

from __future__ import annotations

__all__ = [
    "CombineFlatConfig",
    "CombineFlatConnections",
    "CombineFlatTask",
    "FlatQuickLookConfig",
    "FlatQuickLookConnections",
    "FlatQuickLookTask",
]

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import lsst.pipe.base.connectionTypes as cT
import numpy as np
from lsst.pipe.base import NoWorkFound, PipelineTaskConfig, PipelineTaskConnections, Struct

from ..camera import AMPLIFIERS
from ..image import DemoImage
from ..quicklook import focal_plane_png
from ..statistics import clipped_mean_and_std
from .base import DemoTask


class CombineFlatConnections(
    PipelineTaskConnections, dimensions=("instrument", "physical_filter", "detector")
):
    frames = cT.Input(
        doc="Flats without overscan and bias.",
        name="flatProc",
        storageClass="DemoCamImage",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    flat = cT.Output(
        doc="Combined flat with a mean of one.",
        name="flat",
        storageClass="DemoCamImage",
        dimensions=("instrument", "physical_filter", "detector"),
    )
    metrics = cT.Output(
        doc="Quality of the flats, and the gain that their noise tells.",
        name="flatMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "physical_filter", "detector"),
    )


class CombineFlatConfig(PipelineTaskConfig, pipelineConnections=CombineFlatConnections):
    pass


class CombineFlatTask(DemoTask):
    """Bring a detector's flats of one filter to the same level and take their median."""

    ConfigClass = CombineFlatConfig
    _DefaultName = "combineFlat"
    config: CombineFlatConfig

    def run(self, frames: Sequence[DemoImage], **kwargs: Any) -> Struct:
        """Combine a detector's flats of one filter.

        Parameters
        ----------
        frames : `~collections.abc.Sequence` [ `DemoImage` ]
            Frames without overscan and bias, at least one, in ADU.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``flat``, the normalised median (`DemoImage`), and ``metrics`` (`dict`, plain numbers with their
            unit in the name).

        Raises
        ------
        NoWorkFound
            If no frame saw any light.
        """
        frames = sorted(frames, key=lambda frame: str(frame.header["OBSID"]))
        levels = {str(frame.header["OBSID"]): clipped_mean_and_std(frame.array)[0] for frame in frames}
        lit = [frame for frame in frames if levels[str(frame.header["OBSID"])] > 0.0]
        if not lit:
            raise NoWorkFound("None of the flats saw any light.")
        normalised = [frame.array / np.float32(levels[str(frame.header["OBSID"])]) for frame in lit]
        combined = np.median(normalised, axis=0)
        combined = (combined / clipped_mean_and_std(combined)[0]).astype(np.float32)

        first = lit[0].header
        metrics: dict[str, Any] = {
            "instrument": str(first["INSTRUME"]),
            "detector": int(first["DETECTOR"]),
            "physical_filter": str(first["FILTER"]),
            "day_obs": int(first["DAYOBS"]),
            "n_exposures": len(lit),
            "level_adu": {name: round(level, 2) for name, level in levels.items()},
            "peak_to_peak": round(float(np.subtract(*np.percentile(combined, [99.0, 1.0]))), 4),
        }
        if len(lit) > 1:
            metrics["gain_electron_per_adu"] = {
                amp.name: round(_gain([frame.array[:, amp.image] for frame in lit]), 4) for amp in AMPLIFIERS
            }
        self.log.info(
            "Detector %d, filter %s: %d flats, gain %s.",
            metrics["detector"],
            metrics["physical_filter"],
            len(lit),
            metrics.get("gain_electron_per_adu", "unknown from a single flat"),
        )
        header = {key: first[key] for key in ("INSTRUME", "DETECTOR", "DETNAME", "DAYOBS", "FILTER")}
        return Struct(
            flat=DemoImage(combined, header | {"IMGTYPE": "flat", "NCOMBINE": len(lit)}), metrics=metrics
        )


def _gain(parts: Sequence[np.ndarray]) -> float:
    """Return an amplifier's gain in electrons per ADU from at least two flats in ADU.

    Photons arrive one by one: the variance of a signal of S ADU is S / gain ADU². Differences of frames are
    free of structure, and dividing each pixel by its own expected spread makes vignetting harmless. Read
    noise adds a thousandth to the variance at the level of DemoCam's flats.
    """
    inverse = []
    for first, second in combinations(parts, 2):
        scale = first.mean() / second.mean()
        expected = np.sqrt(np.maximum(first + scale**2 * second, 1.0))
        inverse.append(clipped_mean_and_std((first - scale * second) / expected)[1] ** 2)
    return float(1.0 / np.mean(inverse))


class FlatQuickLookConnections(PipelineTaskConnections, dimensions=("instrument", "physical_filter")):
    flat = cT.Input(
        doc="Combined flats.",
        name="flat",
        storageClass="DemoCamImage",
        dimensions=("instrument", "physical_filter", "detector"),
        multiple=True,
    )
    metrics = cT.Input(
        doc="Their metrics.",
        name="flatMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "physical_filter", "detector"),
        multiple=True,
    )
    quickLook = cT.Output(
        doc="The focal plane at a glance.",
        name="flatQuickLook",
        storageClass="PngImage",
        dimensions=("instrument", "physical_filter"),
    )


class FlatQuickLookConfig(PipelineTaskConfig, pipelineConnections=FlatQuickLookConnections):
    pass


class FlatQuickLookTask(DemoTask):
    """Draw all detectors' combined flats of one filter side by side."""

    ConfigClass = FlatQuickLookConfig
    _DefaultName = "flatQuickLook"
    config: FlatQuickLookConfig

    def run(self, flat: Sequence[DemoImage], metrics: Sequence[dict[str, Any]], **kwargs: Any) -> Struct:
        """Draw the picture.

        Parameters
        ----------
        flat : `~collections.abc.Sequence` [ `DemoImage` ]
            Normalised flats.
        metrics : `~collections.abc.Sequence` [ `dict` ]
            What `CombineFlatTask` found, for the same detectors.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``quickLook``: an encoded PNG (`bytes`).
        """
        captions = {}
        for found in metrics:
            levels = list(found["level_adu"].values())
            gains = found.get("gain_electron_per_adu", {})
            described = "  ".join(f"{name} {gain:.3f} e-/ADU" for name, gain in gains.items())
            captions[found["detector"]] = [
                f"level  {min(levels):.0f} to {max(levels):.0f} ADU",
                f"gain  {described or 'unknown'}",
            ]
        png = focal_plane_png(
            flat,
            title=f"DemoCam combined flat, {metrics[0]['physical_filter']}",
            subtitle=f"{metrics[0]['day_obs']}  ·  {metrics[0]['n_exposures']} exposures",
            captions=captions,
            unit="relative response",
        )
        return Struct(quickLook=png)
