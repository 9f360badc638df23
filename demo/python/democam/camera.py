# SPDX-License-Identifier: GPL-3.0-or-later

"""What is fixed by construction: the detectors, their amplifiers and the optics."""

from __future__ import annotations

__all__ = [
    "AMPLIFIERS",
    "DETECTORS",
    "FILTERS",
    "NAME",
    "RAW_SHAPE",
    "SHAPE",
    "Amplifier",
    "Detector",
    "Optics",
    "OPTICS",
]

from dataclasses import dataclass

NAME = "DemoCam"

SHAPE = (256, 256)
"""Rows and columns of a detector without overscan, in pixels."""

_HALF = SHAPE[1] // 2
_OVERSCAN = 16

RAW_SHAPE = (SHAPE[0], SHAPE[1] + 2 * _OVERSCAN)
"""Rows and columns of a raw frame, in pixels."""


@dataclass(frozen=True)
class Amplifier:
    """One of the two halves of a detector.

    The left half is read out to the left and the right half to the right, so that both overscans meet in
    the middle of the raw frame.

    Attributes
    ----------
    name : `str`
        Name as it appears in metrics.
    image : `slice`
        Columns in the trimmed image.
    data : `slice`
        Columns in the raw frame that saw light.
    overscan : `slice`
        Columns in the raw frame that were read after the last real pixel.
    gain : `float`
        Electrons per ADU.
    read_noise : `float`
        Nominal read noise in electrons.
    """

    name: str
    image: slice
    data: slice
    overscan: slice
    gain: float
    read_noise: float


AMPLIFIERS = (
    Amplifier(
        name="C00",
        image=slice(0, _HALF),
        data=slice(0, _HALF),
        overscan=slice(_HALF, _HALF + _OVERSCAN),
        gain=1.4,
        read_noise=6.0,
    ),
    Amplifier(
        name="C01",
        image=slice(_HALF, 2 * _HALF),
        data=slice(_HALF + 2 * _OVERSCAN, 2 * (_HALF + _OVERSCAN)),
        overscan=slice(_HALF + _OVERSCAN, _HALF + 2 * _OVERSCAN),
        gain=1.5,
        read_noise=8.0,
    ),
)
"""The amplifiers, the same on each detector."""


@dataclass(frozen=True)
class Detector:
    """A detector's place in the focal plane.

    Attributes
    ----------
    id : `int`
        The ``detector`` of a data id.
    name : `str`
        Full name.
    x_offset : `float`
        Position of the detector's centre along x, in pixels from the optical axis.
    piston : `float`
        Height above the nominal focal plane, in mm: its best focus lies that much higher than the camera's.
    """

    id: int
    name: str
    x_offset: float
    piston: float


DETECTORS = (
    Detector(id=0, name="R00_S00", x_offset=-140.0, piston=-0.02),
    Detector(id=1, name="R00_S01", x_offset=140.0, piston=0.02),
)
"""The detectors, side by side. Their mean height is zero: the camera's best focus is the mean of theirs."""

FILTERS = {"empty": "white", "r_demo": "r", "i_demo": "i"}
"""Physical filter to band."""


@dataclass(frozen=True)
class Optics:
    """The telescope, as far as defocused images depend on it.

    Attributes
    ----------
    f_ratio : `float`
        Focal length over aperture.
    obscuration : `float`
        Diameter of the central obscuration over that of the aperture.
    pixel_size : `float`
        Side of a pixel in mm.
    pixel_scale : `float`
        Side of a pixel on the sky in arcsec.
    """

    f_ratio: float
    obscuration: float
    pixel_size: float
    pixel_scale: float

    @property
    def radius_per_mm(self) -> float:
        """Growth of a donut's outer radius with defocus, in pixels per mm (`float`)."""
        return 1.0 / (2.0 * self.f_ratio * self.pixel_size)

    @property
    def variance_per_mm2(self) -> float:
        """Growth of a donut's second moment along an axis with defocus squared, pixels² per mm² (`float`).

        A uniform annulus of outer radius R and inner radius εR has the second moment R² (1 + ε²) / 4.
        """
        return self.radius_per_mm**2 * (1.0 + self.obscuration**2) / 4.0


OPTICS = Optics(f_ratio=3.0, obscuration=0.45, pixel_size=0.0135, pixel_scale=0.55)
