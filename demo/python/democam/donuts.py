# SPDX-License-Identifier: GPL-3.0-or-later

"""Find out-of-focus stars, measure how large they are, and tell from a sweep where the focus is."""

from __future__ import annotations

__all__ = ["Donut", "FocusFit", "ImageSize", "fit_focus", "measure_donuts", "mean_size", "repair"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Donut:
    """One star, in focus or not.

    Attributes
    ----------
    row, column : `float`
        Centroid in pixels.
    flux : `float`
        Electrons within the aperture.
    mxx, myy, mxy : `float`
        Second moments in pixels²; x runs along columns of increasing number.
    size2_err : `float`
        Uncertainty of `size2` in pixels².
    """

    row: float
    column: float
    flux: float
    mxx: float
    myy: float
    mxy: float
    size2_err: float

    @property
    def size2(self) -> float:
        """Mean second moment along an axis in pixels² (`float`)."""
        return (self.mxx + self.myy) / 2.0


def repair(image: np.ndarray, noise: float) -> np.ndarray:
    """Replace hot pixels, cosmic rays of one pixel, and bright columns by what is beside them.

    Parameters
    ----------
    image : `numpy.ndarray`
        Electrons, sky included.
    noise : `float`
        Standard deviation of the sky in electrons.

    Returns
    -------
    repaired : `numpy.ndarray`
        A copy.
    """
    image = image.astype(float)
    level = np.median(image, axis=0)
    beside = (np.roll(level, 1) + np.roll(level, -1)) / 2.0
    # A donut changes a column's median too, but that of its neighbours about as much.
    bright = np.flatnonzero(level - beside > 2.0 * noise)
    for column in bright.tolist():
        left, right = max(column - 1, 0), min(column + 1, image.shape[1] - 1)
        image[:, column] = (image[:, left] + image[:, right]) / 2.0

    padded = np.pad(image, 1, mode="reflect") - np.median(image)
    around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4.0
    # The sharpest star falls to half its peak one pixel off; a hot pixel falls to nothing.
    hot = padded[1:-1, 1:-1] > 8.0 * noise + 4.0 * np.maximum(around, 0.0)
    return np.where(hot, around + np.median(image), image)


def measure_donuts(
    image: np.ndarray, *, aperture: float, noise: float, threshold: float = 10.0, limit: int = 20
) -> list[Donut]:
    """Find isolated stars and measure their second moments.

    Parameters
    ----------
    image : `numpy.ndarray`
        Electrons, sky included.
    aperture : `float`
        Radius in pixels within which to measure; must hold the largest donut. The sky is measured in the
        eight pixels around it.
    noise : `float`
        Standard deviation of the sky in electrons per pixel.
    threshold : `float`, optional
        Stars must be this many times brighter than the noise of the box they are searched with.
    limit : `int`, optional
        Stop after so many stars.

    Returns
    -------
    donuts : `list` [ `Donut` ]
        Brightest first; may be empty. Stars near an edge are left out.
    """
    box = max(3, int(aperture))
    # Less what lies around: light that is wider than a donut, such as the glow of the first rows, is no star.
    found = _box_sum(image, box) - _box_sum(image, 2 * box) * _box_area(box) / _box_area(2 * box)
    margin = int(np.ceil(aperture + _SKY_WIDTH)) + 1
    # The box hardly changes while it holds all of a star: the maximum may be half a box from the star itself.
    border = margin - box // 2
    searched = np.full_like(found, -np.inf)
    searched[border:-border, border:-border] = found[border:-border, border:-border]
    donuts: list[Donut] = []
    for _ in range(limit):
        row, column = divmod(int(np.argmax(searched)), searched.shape[1])
        if searched[row, column] < threshold * noise * box:
            break
        donut = _measure_one(image, float(row), float(column), aperture, noise, margin)
        if donut is not None and all(_distance(donut, other) > aperture for other in donuts):
            donuts.append(donut)
            row, column = round(donut.row), round(donut.column)
        # Far enough that nothing of this star is found again, near enough to leave its neighbours.
        reach = int(1.5 * aperture)
        searched[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach] = -np.inf
    if donuts:
        donuts = _measure_closer(image, donuts, aperture, noise)
    return sorted(donuts, key=lambda donut: -donut.flux)


_SKY_WIDTH = 8.0


def _measure_closer(image: np.ndarray, donuts: list[Donut], aperture: float, noise: float) -> list[Donut]:
    """Measure again with an aperture that fits: near focus, a wide one gathers little but noise."""
    typical = max(0.5, float(np.median([donut.size2 for donut in donuts])))
    # 2 sqrt(size2) is the radius of a ring with that moment, and not far from the edge of a filled disc.
    closer = min(aperture, 1.25 * 2.0 * np.sqrt(typical) + 6.0)
    margin = int(np.ceil(closer + _SKY_WIDTH)) + 1
    again = [_measure_one(image, donut.row, donut.column, closer, noise, margin) for donut in donuts]
    return [donut for donut in again if donut is not None]


def _distance(donut: Donut, other: Donut) -> float:
    return float(np.hypot(donut.row - other.row, donut.column - other.column))


def _box_area(box: int) -> int:
    return (2 * (box // 2) + 1) ** 2


def _box_sum(image: np.ndarray, box: int) -> np.ndarray:
    """Return the sum over a square of about ``box`` pixels, an odd number, around each pixel."""
    half = box // 2
    padded = np.pad(image, half, mode="reflect")
    total = np.pad(padded, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    size = 2 * half + 1
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def _measure_one(
    image: np.ndarray, row: float, column: float, aperture: float, noise: float, margin: int
) -> Donut | None:
    """Measure one star from a first guess of its position; `None` if it is too near an edge or fades away."""
    last_row, last_column = image.shape[0] - 1 - margin, image.shape[1] - 1 - margin
    for _ in range(20):
        # A first guess may lie too near the edge although the star does not.
        row, column = min(max(row, margin), last_row), min(max(column, margin), last_column)
        top, left = round(row) - margin, round(column) - margin
        stamp = image[top : top + 2 * margin + 1, left : left + 2 * margin + 1]
        y, x = np.indices(stamp.shape, dtype=float)
        y, x = y + top - row, x + left - column
        radius = np.hypot(y, x)
        ring = (radius > aperture) & (radius <= aperture + _SKY_WIDTH)
        # A plane, not a constant: the glow of the first rows would pull on the centroid.
        terms = np.stack([np.ones_like(x), y, x], axis=-1)
        around = terms[ring]
        sky = terms @ np.linalg.solve(around.T @ around, around.T @ stamp[ring])
        light = np.where(radius <= aperture, stamp - sky, 0.0)
        flux = float(light.sum())
        if flux <= 0.0:
            return None
        shift_y, shift_x = float((light * y).sum() / flux), float((light * x).sum() / flux)
        row, column = row + shift_y, column + shift_x
        if max(abs(shift_y), abs(shift_x)) < 0.01:
            break
    if not (margin <= row <= last_row and margin <= column <= last_column):
        return None
    mxx, myy = float((light * x * x).sum() / flux), float((light * y * y).sum() / flux)
    mxy = float((light * x * y).sum() / flux)

    # How the size answers to each pixel, and to the sky that all pixels share.
    response = np.where(radius <= aperture, (radius**2 - mxx - myy) / (2.0 * flux), 0.0)
    variance = noise**2 + np.maximum(light, 0.0)
    from_pixels = float((response**2 * variance).sum())
    from_sky = float(response.sum() ** 2 * noise**2 / ring.sum())
    return Donut(row, column, flux, mxx, myy, mxy, float(np.sqrt(from_pixels + from_sky)))


def mean_size(donuts: Sequence[Donut]) -> tuple[float, float]:
    """Average the sizes of the stars of an image.

    Parameters
    ----------
    donuts : `~collections.abc.Sequence` [ `Donut` ]
        At least one.

    Returns
    -------
    size2, size2_err : `float`
        Weighted mean of `Donut.size2` and its uncertainty, in pixels². Where the stars scatter more than
        their own uncertainties allow, the uncertainty is larger by that factor.
    """
    values = np.array([donut.size2 for donut in donuts])
    weights = np.array([donut.size2_err for donut in donuts]) ** -2.0
    mean = float((weights * values).sum() / weights.sum())
    error = float(weights.sum() ** -0.5)
    if len(donuts) > 1:
        error *= max(1.0, float(np.sqrt((weights * (values - mean) ** 2).sum() / (len(donuts) - 1))))
    return mean, error


@dataclass(frozen=True)
class ImageSize:
    """Mean size of the stars of one image.

    Attributes
    ----------
    exposure : `str`
        Exposure the image belongs to; images of one exposure share their seeing.
    position : `float`
        Height of the detector above its best focus at camera position zero, in mm.
    size2, size2_err : `float`
        Second moment along an axis and its uncertainty in pixels².
    """

    exposure: str
    position: float
    size2: float
    size2_err: float


@dataclass(frozen=True)
class FocusFit:
    """A parabola through second moments.

    Attributes
    ----------
    best_focus, best_focus_err : `float`
        Camera position at the minimum and its uncertainty in mm.
    curvature : `float`
        Growth of the second moment with defocus squared, in pixels² per mm².
    minimum : `float`
        Second moment at best focus in pixels²: seeing, mostly.
    chi2 : `float`
        Sum of squared residuals over their uncertainties.
    dof : `int`
        Number of degrees of freedom.
    """

    best_focus: float
    best_focus_err: float
    curvature: float
    minimum: float
    chi2: float
    dof: int

    def size2(self, position: np.ndarray | float) -> np.ndarray:
        """Return the second moment in pixels² expected at positions in mm."""
        return self.minimum + self.curvature * (np.asarray(position) - self.best_focus) ** 2


def fit_focus(sizes: Sequence[ImageSize], seeing_scatter: float = 0.0) -> FocusFit:
    """Find the position at which stars are smallest.

    The second moments of a donut and of the seeing that blurs it add up, and the donut's grows with defocus
    squared: a parabola in position, without approximation, from far inside to far outside focus.

    Parameters
    ----------
    sizes : `~collections.abc.Sequence` [ `ImageSize` ]
        From at least four exposures at different positions.
    seeing_scatter : `float`, optional
        Standard deviation of the second moment of the seeing from one exposure to the next, in pixels².
        Near focus it outweighs photon noise, and no number of stars or detectors averages it out.

    Returns
    -------
    fit : `FocusFit`
        Its uncertainty is scaled up where the points scatter more than they should.

    Raises
    ------
    ValueError
        If there are too few exposures or positions, or the sizes have no minimum.
    """
    n_positions = min(len({size.position for size in sizes}), len({size.exposure for size in sizes}))
    if n_positions < 4:
        raise ValueError(f"A focus sweep needs at least 4 camera positions; this one has {n_positions}.")
    position = np.array([size.position for size in sizes])
    values = np.array([size.size2 for size in sizes])
    exposures = np.array([size.exposure for size in sizes])

    noise = np.diag([size.size2_err**2 for size in sizes])
    noise += seeing_scatter**2 * (exposures[:, None] == exposures[None, :])
    weight = np.linalg.inv(noise)
    # Around the middle of the sweep the three coefficients hardly depend on each other.
    middle = position.mean()
    design = np.vander(position - middle, 3)
    covariance = np.linalg.inv(design.T @ weight @ design)
    coefficients = covariance @ design.T @ weight @ values
    residuals = values - design @ coefficients
    chi2, dof = float(residuals @ weight @ residuals), len(sizes) - 3
    a, b, c = coefficients
    if a <= 0.0:
        raise ValueError("The stars have no smallest size within this sweep: it did not go through focus.")

    gradient = np.array([b / (2.0 * a**2), -1.0 / (2.0 * a), 0.0])
    error = float(np.sqrt(gradient @ covariance @ gradient)) * max(1.0, float(np.sqrt(chi2 / dof)))
    return FocusFit(
        best_focus=float(middle - b / (2.0 * a)),
        best_focus_err=error,
        curvature=float(a),
        minimum=float(c - b**2 / (4.0 * a)),
        chi2=chi2,
        dof=dof,
    )
