# SPDX-License-Identifier: GPL-3.0-or-later

"""Raw frames from nothing but a seed.

All randomness comes from generators keyed by the seed and by what is drawn: the same seed always gives the
same frames, in whatever order they are asked for.
"""

from __future__ import annotations

__all__ = [
    "DetectorModel",
    "Star",
    "bias_frame",
    "flat_frame",
    "focus_frame",
    "star_field",
    "true_best_focus",
]

from dataclasses import dataclass
from functools import cache

import numpy as np

from .camera import AMPLIFIERS, DETECTORS, OPTICS, RAW_SHAPE, SHAPE

# Stream numbers for the random generators: one per kind of draw, so that adding one never shifts another.
_MODEL, _READOUT, _COSMICS, _STARS, _SEEING, _FOCUS, _FLUX = range(7)

_SATURATION = 65535

SKY = 40.0
"""Sky background of a focus exposure in electrons per pixel."""

SEEING = 0.9
"""Sigma of the seeing in pixels (about 1.2 arcsec FWHM)."""

_FLAT_LEVEL = 25000.0  # electrons on the optical axis


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng([seed, *key])


@dataclass(frozen=True)
class DetectorModel:
    """A detector with all its flaws.

    Attributes
    ----------
    levels : `tuple` [ `float`, ... ]
        Electronic offset of each amplifier in ADU.
    read_noise : `tuple` [ `float`, ... ]
        Read noise of each amplifier in electrons.
    structure : `numpy.ndarray`
        What a bias frame shows above its overscan, shape `SHAPE`, in ADU, hot pixels included.
    hot_pixels : `tuple` [ `tuple` [ `int`, `int` ], ... ]
        Row and column of each hot pixel.
    bad_column : `int`
        A column that is bright from top to bottom.
    response : `numpy.ndarray`
        Relative response of each pixel, shape `SHAPE`, mean near one, vignetting and dust included.
    """

    levels: tuple[float, ...]
    read_noise: tuple[float, ...]
    structure: np.ndarray
    hot_pixels: tuple[tuple[int, int], ...]
    bad_column: int
    response: np.ndarray

    @staticmethod
    @cache
    def build(seed: int, detector: int) -> DetectorModel:
        """Draw a detector.

        Parameters
        ----------
        seed : `int`
            Seed of the simulation.
        detector : `int`
            Detector id.

        Returns
        -------
        model : `DetectorModel`
            The same for the same arguments.
        """
        rng = _generator(seed, _MODEL, detector)
        rows, columns = np.indices(SHAPE)

        levels = tuple(float(level) for level in rng.uniform(980.0, 1080.0, len(AMPLIFIERS)))
        read_noise = tuple(float(amp.read_noise * rng.uniform(0.9, 1.1)) for amp in AMPLIFIERS)

        # Columns differ a little, and the first rows glow while the output stage settles.
        structure = np.broadcast_to(rng.normal(0.0, 1.5, SHAPE[1]), SHAPE) + 12.0 * np.exp(-rows / 25.0)
        bad_column = int(rng.integers(20, SHAPE[1] - 20))
        structure[:, bad_column] += 35.0

        flat_index = rng.choice(SHAPE[0] * SHAPE[1], size=int(rng.integers(18, 30)), replace=False)
        hot_pixels = tuple((int(i) // SHAPE[1], int(i) % SHAPE[1]) for i in sorted(flat_index))
        # A hot pixel in the bad column would be counted as part of the column.
        hot_pixels = tuple(pixel for pixel in hot_pixels if pixel[1] != bad_column)
        for row, column in hot_pixels:
            structure[row, column] += 10.0 ** rng.uniform(2.0, 3.5)

        radius2 = (columns - SHAPE[1] / 2 + DETECTORS[detector].x_offset) ** 2 + (rows - SHAPE[0] / 2) ** 2
        vignetting = 1.0 - 0.22 * radius2 / 300.0**2
        response = vignetting * (1.0 + rng.normal(0.0, 0.006, SHAPE))
        for _ in range(4):
            response *= 1.0 - _dust_ring(rng, rows, columns)
        return DetectorModel(levels, read_noise, structure, hot_pixels, bad_column, response)


def _dust_ring(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the fraction of light that one out-of-focus speck of dust takes away, shape of ``rows``."""
    y, x = rng.uniform(20.0, SHAPE[0] - 20.0), rng.uniform(20.0, SHAPE[1] - 20.0)
    outer = rng.uniform(7.0, 14.0)
    distance = np.hypot(rows - y, columns - x)
    depth = rng.uniform(0.03, 0.06)
    return depth * (_edge(outer - distance) - _edge(0.45 * outer - distance))


def _edge(inside: np.ndarray) -> np.ndarray:
    """Return 1 well inside, 0 well outside, and a ramp one pixel wide between."""
    return np.clip(inside + 0.5, 0.0, 1.0)


def _read_out(seed: int, exposure: int, detector: int, electrons: np.ndarray | float) -> np.ndarray:
    """Turn electrons into a raw frame.

    Parameters
    ----------
    seed, exposure, detector : `int`
        What to draw the noise for.
    electrons : `numpy.ndarray` or `float`
        Collected charge, shape `SHAPE`, photon noise included.

    Returns
    -------
    raw : `numpy.ndarray`
        Shape `RAW_SHAPE`, ``uint16``, in ADU.
    """
    model = DetectorModel.build(seed, detector)
    rng = _generator(seed, _READOUT, exposure, detector)
    electrons = np.broadcast_to(electrons, SHAPE)
    raw = np.empty(RAW_SHAPE)
    for amp, level, noise in zip(AMPLIFIERS, model.levels, model.read_noise, strict=True):
        # The electronics drift from frame to frame; the overscan is there to follow them.
        offset = level + rng.normal(0.0, 2.0)
        raw[:, amp.data] = offset + model.structure[:, amp.image] + electrons[:, amp.image] / amp.gain
        raw[:, amp.overscan] = offset
        for part in (amp.data, amp.overscan):
            raw[:, part] += rng.normal(0.0, noise / amp.gain, raw[:, part].shape)
    return np.clip(np.rint(raw), 0, _SATURATION).astype(np.uint16)


def bias_frame(seed: int, exposure: int, detector: int) -> np.ndarray:
    """Simulate a bias with a few cosmic rays, which a good combination rejects.

    Parameters
    ----------
    seed, exposure, detector : `int`
        Seed of the simulation and what to draw.

    Returns
    -------
    raw : `numpy.ndarray`
        Shape `RAW_SHAPE`, ``uint16``, in ADU.
    """
    rng = _generator(seed, _COSMICS, exposure, detector)
    electrons = np.zeros(SHAPE)
    for _ in range(rng.poisson(4)):
        length = rng.uniform(2.0, 12.0)
        angle = rng.uniform(0.0, np.pi)
        steps = np.arange(0.0, length, 0.5)
        rows = np.rint(rng.uniform(0, SHAPE[0]) + steps * np.sin(angle)).astype(int)
        columns = np.rint(rng.uniform(0, SHAPE[1]) + steps * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < SHAPE[0]) & (columns >= 0) & (columns < SHAPE[1])
        electrons[rows[inside], columns[inside]] += rng.uniform(400.0, 2500.0)
    return _read_out(seed, exposure, detector, electrons)


def flat_frame(seed: int, exposure: int, detector: int) -> np.ndarray:
    """Simulate a dome flat whose lamp is a little different each time.

    Parameters
    ----------
    seed, exposure, detector : `int`
        Seed of the simulation and what to draw.

    Returns
    -------
    raw : `numpy.ndarray`
        Shape `RAW_SHAPE`, ``uint16``, in ADU.
    """
    # Both detectors see the same lamp: its brightness depends on the exposure alone.
    lamp = _FLAT_LEVEL * _generator(seed, _FLUX, exposure).uniform(0.95, 1.05)
    rng = _generator(seed, _FLUX, exposure, detector)
    electrons = rng.poisson(lamp * DetectorModel.build(seed, detector).response)
    return _read_out(seed, exposure, detector, electrons.astype(float))


def true_best_focus(seed: int, day_obs: int) -> float:
    """Return the camera position of best focus on a night.

    Parameters
    ----------
    seed, day_obs : `int`
        Seed of the simulation and the night, as YYYYMMDD.

    Returns
    -------
    best_focus : `float`
        In mm, within 0.3 of zero.
    """
    return float(_generator(seed, _FOCUS, day_obs).uniform(-0.3, 0.3))


@dataclass(frozen=True)
class Star:
    """A star on a detector: centre (pixels, row and column) and flux (electrons)."""

    row: float
    column: float
    flux: float


def star_field(seed: int, day_obs: int, detector: int) -> list[Star]:
    """Draw the stars of a night's focus field, far enough apart for their donuts not to touch.

    Parameters
    ----------
    seed, day_obs, detector : `int`
        Seed of the simulation, the night as YYYYMMDD, and the detector.

    Returns
    -------
    stars : `list` [ `Star` ]
        At most nine, brightest first.
    """
    rng = _generator(seed, _STARS, day_obs, detector)
    stars: list[Star] = []
    for _ in range(500):
        row, column = rng.uniform(36.0, SHAPE[0] - 36.0), rng.uniform(36.0, SHAPE[1] - 36.0)
        flux = 1.2e4 * 10.0 ** rng.uniform(0.0, 0.8)
        if all(np.hypot(row - star.row, column - star.column) > 58.0 for star in stars):
            stars.append(Star(row, column, flux))
        if len(stars) == 9:
            break
    return sorted(stars, key=lambda star: -star.flux)


def focus_frame(seed: int, exposure: int, detector: int, day_obs: int, position: float) -> np.ndarray:
    """Simulate an exposure of the focus field with the camera at a position.

    Parameters
    ----------
    seed, exposure, detector, day_obs : `int`
        Seed of the simulation and what to draw; the night fixes the stars and the best focus.
    position : `float`
        Camera position along the optical axis in mm.

    Returns
    -------
    raw : `numpy.ndarray`
        Shape `RAW_SHAPE`, ``uint16``, in ADU.
    """
    defocus = position - true_best_focus(seed, day_obs) - DETECTORS[detector].piston
    # The air is never the same twice; seeing belongs to the exposure, not to the detector.
    seeing = SEEING * _generator(seed, _SEEING, exposure).uniform(0.9, 1.1)
    radius = OPTICS.radius_per_mm * abs(defocus)
    electrons = np.full(SHAPE, SKY)
    for star in star_field(seed, day_obs, detector):
        _add_donut(electrons, star, radius, seeing)
    rng = _generator(seed, _FLUX, exposure, detector)
    return _read_out(seed, exposure, detector, rng.poisson(electrons).astype(float))


def _add_donut(electrons: np.ndarray, star: Star, radius: float, seeing: float) -> None:
    """Add a star to an image.

    The pupil is an annulus of the given outer radius, blurred by Gaussian seeing (both in pixels). It is
    summed up from a few hundred spots spread evenly over the annulus: second moments then come out
    exactly as geometry says, which is what the focus fit is held against.
    """
    n_spots = 1 if radius == 0.0 else int(60 + 12 * radius**1.5)
    index = np.arange(n_spots) + 0.5
    inner2 = OPTICS.obscuration**2
    spot_radius = radius * np.sqrt(inner2 + (1.0 - inner2) * index / n_spots)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))  # the golden angle covers a disc without rows or spokes
    rows = _reach(star.row, radius + 7.0 * seeing, electrons.shape[0])
    columns = _reach(star.column, radius + 7.0 * seeing, electrons.shape[1])
    y = rows[None, :] - star.row - (spot_radius * np.sin(angle))[:, None]
    x = columns[None, :] - star.column - (spot_radius * np.cos(angle))[:, None]
    # A Gaussian is a product of its axes, so the sum over spots is a matrix product.
    profile_y, profile_x = np.exp(-0.5 * (y / seeing) ** 2), np.exp(-0.5 * (x / seeing) ** 2)
    light = star.flux * (profile_y.T @ profile_x) / (2.0 * np.pi * seeing**2 * n_spots)
    electrons[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += light


def _reach(centre: float, distance: float, size: int) -> np.ndarray:
    """Return the indices of pixels within a distance of a centre that lies on the image."""
    return np.arange(max(0, int(centre - distance)), min(size, int(centre + distance) + 2))
