# SPDX-License-Identifier: GPL-3.0-or-later

"""Combine biases, measure how good they are, and show them."""

from __future__ import annotations

__all__ = [
    "BiasQuickLookConfig",
    "BiasQuickLookConnections",
    "BiasQuickLookTask",
    "CombineBiasConfig",
    "CombineBiasConnections",
    "CombineBiasTask",
]

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import lsst.pipe.base.connectionTypes as cT
import numpy as np
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTaskConfig, PipelineTaskConnections, Struct

from ..camera import AMPLIFIERS, SHAPE
from ..image import DemoImage
from ..quicklook import focal_plane_png
from ..statistics import clipped_mean_and_std
from .base import DemoTask


class CombineBiasConnections(PipelineTaskConnections, dimensions=("instrument", "detector")):
    frames = cT.Input(
        doc="Biases without overscan.",
        name="biasProc",
        storageClass="DemoCamImage",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    bias = cT.Output(
        doc="Combined bias.",
        name="bias",
        storageClass="DemoCamImage",
        dimensions=("instrument", "detector"),
    )
    metrics = cT.Output(
        doc="Quality of the biases and of their combination.",
        name="biasMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )


class CombineBiasConfig(PipelineTaskConfig, pipelineConnections=CombineBiasConnections):
    clip = Field[float](
        doc="A pixel of a frame is left out where it is further than this many times the read noise from "
        "the median of all frames.",
        default=5.0,
    )
    hotThreshold = Field[float](
        doc="A pixel of the combined bias is hot when it exceeds its row and column by this many times the "
        "read noise.",
        default=10.0,
    )

    def validate(self) -> None:
        super().validate()
        if self.clip <= 0 or self.hotThreshold <= 0:
            raise ValueError("clip and hotThreshold must be positive.")


class CombineBiasTask(DemoTask):
    """Average a detector's biases with cosmic rays left out."""

    ConfigClass = CombineBiasConfig
    _DefaultName = "combineBias"
    config: CombineBiasConfig

    def run(self, frames: Sequence[DemoImage], **kwargs: Any) -> Struct:
        """Combine a detector's biases.

        Parameters
        ----------
        frames : `~collections.abc.Sequence` [ `DemoImage` ]
            Frames of one detector without overscan, at least one, in ADU.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``bias``, the mean (`DemoImage`, ADU), and ``metrics`` (`dict`, plain numbers with their unit
            in the name).
        """
        frames = sorted(frames, key=lambda frame: frame.header["OBSID"])
        stack = np.stack([frame.array for frame in frames])
        noise = [_read_noise(stack[:, :, amp.image], frames, amp.name) for amp in AMPLIFIERS]
        noise_map = np.empty(SHAPE, dtype=np.float32)
        for amp, sigma in zip(AMPLIFIERS, noise, strict=True):
            noise_map[:, amp.image] = sigma

        bad = np.abs(stack - np.median(stack, axis=0)) > self.config.clip * noise_map
        combined = np.ma.masked_array(stack, mask=bad).mean(axis=0).filled(np.nan)
        # Two frames that disagree leave none: there the median is as good as it gets.
        combined = np.where(np.isnan(combined), np.median(stack, axis=0), combined).astype(np.float32)

        hot = _above_surroundings(combined) > self.config.hotThreshold * noise_map
        first = frames[0].header
        metrics = {
            "instrument": str(first["INSTRUME"]),
            "detector": int(first["DETECTOR"]),
            "day_obs": int(first["DAYOBS"]),
            "n_exposures": len(frames),
            "hot_pixels": int(hot.sum()),
            "rejected_pixels": int(bad.sum()),
            "structure_rms_adu": round(clipped_mean_and_std(combined)[1], 3),
            "amplifiers": {
                amp.name: _amplifier_metrics(frames, amp.name, sigma, amp.gain)
                for amp, sigma in zip(AMPLIFIERS, noise, strict=True)
            },
            "residuals": {
                str(frame.header["OBSID"]): _residual_metrics(frame.array - combined) for frame in frames
            },
        }
        self.log.info(
            "Detector %d: %d frames, %d pixels left out, %d hot pixels.",
            metrics["detector"],
            len(frames),
            metrics["rejected_pixels"],
            metrics["hot_pixels"],
        )
        header = {key: first[key] for key in ("INSTRUME", "DETECTOR", "DETNAME", "DAYOBS", "BUNIT")}
        return Struct(
            bias=DemoImage(combined, header | {"IMGTYPE": "bias", "NCOMBINE": len(frames)}), metrics=metrics
        )


def _read_noise(stack: np.ndarray, frames: Sequence[DemoImage], name: str) -> float:
    """Return an amplifier's read noise in ADU.

    Differences of frames have no structure left, only noise; a single frame has its overscan to ask.
    """
    if len(stack) == 1:
        return float(frames[0].header[f"OSSD{name}"])
    variances = [clipped_mean_and_std(b - a)[1] ** 2 / 2.0 for a, b in combinations(stack, 2)]
    return float(np.sqrt(np.mean(variances)))


def _above_surroundings(image: np.ndarray) -> np.ndarray:
    """Return the image with the median of each row and then of each column taken away."""
    image = image - np.median(image, axis=1, keepdims=True)
    return image - np.median(image, axis=0, keepdims=True)


def _amplifier_metrics(frames: Sequence[DemoImage], name: str, noise: float, gain: float) -> dict[str, float]:
    levels = np.array([frame.header[f"OSLV{name}"] for frame in frames], dtype=float)
    return {
        "overscan_level_adu": round(float(levels.mean()), 3),
        "overscan_drift_adu": round(float(np.ptp(levels)), 3),
        "read_noise_adu": round(noise, 3),
        "read_noise_electron": round(noise * gain, 3),
    }


def _residual_metrics(residual: np.ndarray) -> dict[str, float]:
    mean, std = clipped_mean_and_std(residual)
    return {"mean_adu": round(mean, 4), "std_adu": round(std, 3)}


class BiasQuickLookConnections(PipelineTaskConnections, dimensions=("instrument",)):
    bias = cT.Input(
        doc="Combined biases.",
        name="bias",
        storageClass="DemoCamImage",
        dimensions=("instrument", "detector"),
        multiple=True,
    )
    metrics = cT.Input(
        doc="Their metrics.",
        name="biasMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
        multiple=True,
    )
    quickLook = cT.Output(
        doc="The focal plane at a glance.",
        name="biasQuickLook",
        storageClass="PngImage",
        dimensions=("instrument",),
    )


class BiasQuickLookConfig(PipelineTaskConfig, pipelineConnections=BiasQuickLookConnections):
    pass


class BiasQuickLookTask(DemoTask):
    """Draw all detectors' combined biases side by side."""

    ConfigClass = BiasQuickLookConfig
    _DefaultName = "biasQuickLook"
    config: BiasQuickLookConfig

    def run(self, bias: Sequence[DemoImage], metrics: Sequence[dict[str, Any]], **kwargs: Any) -> Struct:
        """Draw the picture.

        Parameters
        ----------
        bias : `~collections.abc.Sequence` [ `DemoImage` ]
            Combined biases in ADU.
        metrics : `~collections.abc.Sequence` [ `dict` ]
            What `CombineBiasTask` found, for the same detectors.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``quickLook``: an encoded PNG (`bytes`).
        """
        captions = {}
        for found in metrics:
            noise = "  ".join(
                f"{name} {amp['read_noise_electron']:.2f} e-" for name, amp in found["amplifiers"].items()
            )
            captions[found["detector"]] = [
                f"read noise  {noise}",
                f"{found['hot_pixels']} hot pixels, {found['rejected_pixels']} samples clipped",
            ]
        days = sorted({found["day_obs"] for found in metrics})
        n_exposures = sorted({found["n_exposures"] for found in metrics})
        png = focal_plane_png(
            bias,
            title="DemoCam combined bias",
            subtitle=f"{_join(days)}  ·  {_join(n_exposures)} exposures",
            captions=captions,
            unit="ADU above overscan",
        )
        return Struct(quickLook=png)


def _join(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
