# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure donuts in each frame of a focus sweep and tell where the focus is."""

from __future__ import annotations

__all__ = [
    "FitFocusConfig",
    "FitFocusConnections",
    "FitFocusTask",
    "MeasureDonutsConfig",
    "MeasureDonutsConnections",
    "MeasureDonutsTask",
]

from collections.abc import Sequence
from typing import Any

import lsst.pipe.base.connectionTypes as cT
import numpy as np
from lsst.pex.config import Field
from lsst.pipe.base import NoWorkFound, PipelineTaskConfig, PipelineTaskConnections, Struct

from ..camera import AMPLIFIERS, DETECTORS, NAME, OPTICS, SHAPE
from ..donuts import Donut, FocusFit, ImageSize, fit_focus, mean_size, measure_donuts, repair
from ..focusplot import focus_sweep_png, rms_size_arcsec
from ..image import DemoImage
from ..statistics import clipped_mean_and_std
from .base import DemoTask, FrameConnections
from .isr import subtract_overscan


class MeasureDonutsConnections(FrameConnections, dimensions=("instrument", "exposure", "detector")):
    measurement = cT.Output(
        doc="Sizes of the stars of a frame.",
        name="donutMeasurement",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
    )
    cutout = cT.Output(
        doc="The brightest star and its surroundings.",
        name="donutCutout",
        storageClass="DemoCamImage",
        dimensions=("instrument", "exposure", "detector"),
    )


class MeasureDonutsConfig(PipelineTaskConfig, pipelineConnections=MeasureDonutsConnections):
    aperture = Field[float](doc="Radius in pixels that holds the largest donut.", default=23.0)
    threshold = Field[float](doc="How many times brighter than the noise a star must be.", default=10.0)
    cutoutRadius = Field[int](doc="Half the side of the cutout in pixels.", default=24)

    def validate(self) -> None:
        super().validate()
        if not 3.0 <= self.aperture <= 60.0:
            raise ValueError(f"aperture must be between 3 and 60 pixels, not {self.aperture}.")
        if not 1 <= self.cutoutRadius <= min(SHAPE) // 2:
            raise ValueError(f"cutoutRadius must be 1 to {min(SHAPE) // 2}, not {self.cutoutRadius}.")


class MeasureDonutsTask(DemoTask):
    """Find the stars of a frame, in focus or not, and measure their second moments."""

    ConfigClass = MeasureDonutsConfig
    _DefaultName = "measureDonuts"
    config: MeasureDonutsConfig

    def run(self, raw: DemoImage, **kwargs: Any) -> Struct:
        """Measure one frame.

        Parameters
        ----------
        raw : `DemoImage`
            Raw frame.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``measurement`` (`dict`, plain numbers with their unit in the name) and ``cutout`` (`DemoImage`,
            electrons).

        Raises
        ------
        NoWorkFound
            If the frame has no isolated stars.
        """
        image = subtract_overscan(raw).array
        for amp in AMPLIFIERS:
            image[:, amp.image] *= amp.gain
        _, noise = clipped_mean_and_std(image, n_sigma=3.0)
        image = repair(image, noise)
        donuts = measure_donuts(
            image, aperture=self.config.aperture, noise=noise, threshold=self.config.threshold
        )
        if not donuts:
            raise NoWorkFound(f"There are no isolated stars in {raw.header['OBSID']}.")
        size2, size2_err = mean_size(donuts)
        header = raw.header
        measurement = {
            "obs_id": str(header["OBSID"]),
            "day_obs": int(header["DAYOBS"]),
            "detector": int(header["DETECTOR"]),
            "focus_mm": float(header["FOCUSZ"]),
            "n_stars": len(donuts),
            "size2_px2": round(size2, 5),
            "size2_err_px2": round(size2_err, 5),
            "stars": [_describe(donut) for donut in donuts],
        }
        self.log.info(
            "%s detector %d at %+.2f mm: %d stars, second moment %.2f +- %.2f pixel^2.",
            measurement["obs_id"],
            measurement["detector"],
            measurement["focus_mm"],
            len(donuts),
            size2,
            size2_err,
        )
        return Struct(measurement=measurement, cutout=self._cut_out(image, donuts[0], header))

    def _cut_out(self, image: np.ndarray, donut: Donut, header: dict[str, Any]) -> DemoImage:
        """Return a square around a star, moved inwards where it would stick out of the image."""
        radius = self.config.cutoutRadius
        side = 2 * radius + 1
        top = min(max(round(donut.row) - radius, 0), image.shape[0] - side)
        left = min(max(round(donut.column) - radius, 0), image.shape[1] - side)
        kept = {key: header[key] for key in ("INSTRUME", "OBSID", "DETECTOR", "DETNAME", "FOCUSZ")}
        stamp = image[top : top + side, left : left + side].astype(np.float32)
        return DemoImage(stamp, kept | {"BUNIT": "electron"})


def _describe(donut: Donut) -> dict[str, float]:
    return {
        "row_px": round(donut.row, 3),
        "column_px": round(donut.column, 3),
        "flux_electron": round(donut.flux, 1),
        "mxx_px2": round(donut.mxx, 4),
        "myy_px2": round(donut.myy, 4),
        "mxy_px2": round(donut.mxy, 4),
        "size2_err_px2": round(donut.size2_err, 4),
    }


class FitFocusConnections(PipelineTaskConnections, dimensions=("instrument", "group")):
    measurements = cT.Input(
        doc="Sizes of the stars of each frame.",
        name="donutMeasurement",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    cutouts = cT.Input(
        doc="The brightest star of each frame.",
        name="donutCutout",
        storageClass="DemoCamImage",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    metrics = cT.Output(
        doc="Best focus and its uncertainty.",
        name="focusSweepMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "group"),
    )
    plot = cT.Output(
        doc="Sizes over position with the fit, and what the stars look like.",
        name="focusSweepPlot",
        storageClass="PngImage",
        dimensions=("instrument", "group"),
    )


class FitFocusConfig(PipelineTaskConfig, pipelineConnections=FitFocusConnections):
    seeingScatter = Field[float](
        doc="Standard deviation of the seeing's second moment from exposure to exposure, in pixel^2.",
        default=0.1,
        check=lambda value: value >= 0.0,
    )


class FitFocusTask(DemoTask):
    """Fit the sizes of a sweep, which is a group of exposures, with all detectors at once."""

    ConfigClass = FitFocusConfig
    _DefaultName = "fitFocus"
    config: FitFocusConfig

    def run(
        self, measurements: Sequence[dict[str, Any]], cutouts: Sequence[DemoImage], **kwargs: Any
    ) -> Struct:
        """Find the best focus of a sweep.

        Parameters
        ----------
        measurements : `~collections.abc.Sequence` [ `dict` ]
            What `MeasureDonutsTask` found in each frame.
        cutouts : `~collections.abc.Sequence` [ `DemoImage` ]
            The brightest star of each frame.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``metrics`` (`dict`) and ``plot`` (an encoded PNG as `bytes`).

        Raises
        ------
        ValueError
            If the sweep has too few positions or no focus.
        """
        pistons = {detector.id: detector.piston for detector in DETECTORS}
        sizes: dict[int, list[ImageSize]] = {}
        for found in sorted(measurements, key=lambda found: (found["detector"], found["focus_mm"])):
            # A detector that sits higher has its focus at a higher camera position.
            position = found["focus_mm"] - pistons[found["detector"]]
            size = ImageSize(found["obs_id"], position, found["size2_px2"], found["size2_err_px2"])
            sizes.setdefault(found["detector"], []).append(size)

        fit = fit_focus([size for group in sizes.values() for size in group], self.config.seeingScatter)
        fits = {detector: fit_focus(group, self.config.seeingScatter) for detector, group in sizes.items()}
        positions = [found["focus_mm"] for found in measurements]
        within = min(positions) <= fit.best_focus <= max(positions)
        if not within:
            self.log.warning("Best focus %.3f mm lies outside the sweep.", fit.best_focus)
        metrics = {
            "instrument": NAME,
            "day_obs": measurements[0]["day_obs"],
            "n_exposures": len({found["obs_id"] for found in measurements}),
            "n_stars": sum(found["n_stars"] for found in measurements),
            **_describe_fit(fit),
            "within_sweep": within,
            "unit": "mm",
            "detectors": {str(detector): _describe_fit(fits[detector]) for detector in fits},
        }
        self.log.info("Best focus is %.4f +- %.4f mm.", fit.best_focus, fit.best_focus_err)
        plot = focus_sweep_png(sizes, pistons, fit, cutouts, day_obs=metrics["day_obs"])
        return Struct(metrics=metrics, plot=plot)


def _describe_fit(fit: FocusFit) -> dict[str, float]:
    return {
        "best_focus": round(fit.best_focus, 5),
        "best_focus_err": round(fit.best_focus_err, 5),
        "smallest_rms_radius_arcsec": round(float(rms_size_arcsec(fit.minimum)), 3),
        "growth_arcsec_per_mm": round(float(np.sqrt(2.0 * fit.curvature)) * OPTICS.pixel_scale, 3),
        "chi2_per_dof": round(fit.chi2 / fit.dof, 3),
    }
