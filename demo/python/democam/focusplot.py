# SPDX-License-Identifier: GPL-3.0-or-later

"""The picture of a focus sweep: what the stars look like, and how large they are."""

from __future__ import annotations

__all__ = ["focus_sweep_png", "rms_size_arcsec"]

from collections.abc import Mapping, Sequence

import numpy as np

from .camera import OPTICS
from .donuts import FocusFit, ImageSize
from .draw import ACCENTS, MUTED, Canvas, Rectangle
from .image import DemoImage

_WIDTH, _HEIGHT = 1120, 880
_LEFT, _RIGHT = 84, 40
_TOP = 112
_AXES_HEIGHT = 320
_RESIDUALS_HEIGHT = 120
_LARGEST_CUTOUT = 140
_FOCUS = (64, 128, 40)


def rms_size_arcsec(size2: np.ndarray | float) -> np.ndarray:
    """Turn a second moment along one axis (pixels²) into the rms radius of the image (arcsec)."""
    return np.sqrt(2.0 * np.maximum(size2, 0.0)) * OPTICS.pixel_scale


def focus_sweep_png(
    sizes: Mapping[int, Sequence[ImageSize]],
    pistons: Mapping[int, float],
    fit: FocusFit,
    cutouts: Sequence[DemoImage],
    *,
    day_obs: int,
) -> bytes:
    """Draw a focus sweep.

    Parameters
    ----------
    sizes : `~collections.abc.Mapping` [ `int`, `~collections.abc.Sequence` [ `ImageSize` ] ]
        Measured sizes by detector, positions relative to the detector's height.
    pistons : `~collections.abc.Mapping` [ `int`, `float` ]
        Height of each detector in mm.
    fit : `FocusFit`
        The fit to all of them.
    cutouts : `~collections.abc.Sequence` [ `DemoImage` ]
        A star of each frame; the first detector's are shown.
    day_obs : `int`
        The night.

    Returns
    -------
    png : `bytes`
        Encoded PNG of 1120x880 pixels.
    """
    canvas = Canvas(_WIDTH, _HEIGHT)
    canvas.text(_LEFT, 42, "DemoCam focus sweep", size=24)
    n_exposures = len({size.exposure for group in sizes.values() for size in group})
    canvas.text(_LEFT, 68, f"{day_obs}  ·  {n_exposures} exposures", size=15, colour=MUTED)
    canvas.text(
        _WIDTH - _RIGHT,
        42,
        f"best focus  {fit.best_focus:+.4f} ± {fit.best_focus_err:.4f} mm",
        size=24,
        colour=_FOCUS,
        anchor="rs",
    )
    quality = f"{rms_size_arcsec(fit.minimum):.2f} arcsec at focus  ·  chi2/dof {fit.chi2 / fit.dof:.2f}"
    canvas.text(_WIDTH - _RIGHT, 68, quality, size=15, colour=MUTED, anchor="rs")

    bottom = _draw_cutouts(canvas, cutouts)
    axes = Rectangle(_LEFT, bottom + 56, _WIDTH - _LEFT - _RIGHT, _AXES_HEIGHT)
    _draw_sizes(canvas, axes, sizes, pistons, fit)
    below = Rectangle(axes.x, axes.y + axes.height + 44, axes.width, _RESIDUALS_HEIGHT)
    _draw_residuals(canvas, below, sizes, pistons, fit)
    return canvas.png()


def _draw_cutouts(canvas: Canvas, cutouts: Sequence[DemoImage]) -> float:
    """Draw a row of stars, each in its own stretch, and return where it ends."""
    first = min(int(cutout.header["DETECTOR"]) for cutout in cutouts)
    shown = sorted(
        (cutout for cutout in cutouts if cutout.header["DETECTOR"] == first),
        key=lambda cutout: float(cutout.header["FOCUSZ"]),
    )
    gap = 8
    room = _WIDTH - _LEFT - _RIGHT
    side = min(_LARGEST_CUTOUT, (room - gap * (len(shown) - 1)) // len(shown))
    # Stars spread over the full width, as their positions do below.
    step = (room - side) / max(len(shown) - 1, 1)
    for index, cutout in enumerate(shown):
        box = Rectangle(_LEFT + index * step, _TOP, side, side)
        sky, peak = np.percentile(cutout.array, [30.0, 99.8])
        # The square root brings the faint outer parts up without drowning the core.
        scaled = np.sqrt(np.clip((cutout.array - sky) / max(peak - sky, 1e-6), 0.0, None))
        canvas.image(scaled, box, 0.0, 1.0)
        canvas.rectangle(box)
        label = f"{float(cutout.header['FOCUSZ']):+.2f} mm"
        canvas.text(box.x + side / 2, _TOP + side + 8, label, size=13, anchor="ma")
    note = f"brightest star of detector {first}, each to its own peak, square root"
    canvas.text(_LEFT, _TOP - 9, note, size=13, colour=MUTED)
    return _TOP + side + 24


def _x_limits(sizes: Mapping[int, Sequence[ImageSize]], pistons: Mapping[int, float]) -> tuple[float, float]:
    """Return the camera positions at which the axes begin and end, in mm."""
    positions = [size.position + pistons[detector] for detector in sizes for size in sizes[detector]]
    margin = 0.06 * (max(positions) - min(positions))
    return min(positions) - margin, max(positions) + margin


def _draw_sizes(
    canvas: Canvas,
    box: Rectangle,
    sizes: Mapping[int, Sequence[ImageSize]],
    pistons: Mapping[int, float],
    fit: FocusFit,
) -> None:
    """Draw sizes over camera position, and what the fit expects of each detector at its height."""
    x_limits = _x_limits(sizes, pistons)
    top = 1.1 * max(float(rms_size_arcsec(size.size2)) for group in sizes.values() for size in group)
    place = canvas.axes(box, x_limits, (0.0, top), "", "rms radius of the stars (arcsec)")
    if x_limits[0] < fit.best_focus < x_limits[1]:
        x, _ = place(fit.best_focus, 0.0)
        canvas.line([(x, box.y), (x, box.y + box.height)], colour=_FOCUS, width=1.5)

    curve = np.linspace(*x_limits, 200)
    for index, (detector, group) in enumerate(sorted(sizes.items())):
        colour = ACCENTS[index % len(ACCENTS)]
        model = rms_size_arcsec(fit.size2(curve - pistons[detector]))
        inside = model < top
        points = [place(x, y) for x, y in zip(curve[inside], model[inside], strict=True)]
        canvas.line(points, colour=colour, width=1.2)
        for size in group:
            canvas.dot(
                *place(size.position + pistons[detector], float(rms_size_arcsec(size.size2))), colour=colour
            )
        # The legend stands above the axes, where no sweep, however lopsided, runs into it.
        right = box.x + box.width - 214 * (len(sizes) - 1 - index)
        label = f"detector {detector}, height {pistons[detector]:+.3f} mm"
        canvas.text(right, box.y - 12, label, size=13, anchor="rs")
        canvas.dot(right - 186, box.y - 16, colour=colour)


def _draw_residuals(
    canvas: Canvas,
    box: Rectangle,
    sizes: Mapping[int, Sequence[ImageSize]],
    pistons: Mapping[int, float],
    fit: FocusFit,
) -> None:
    """Draw measured minus expected sizes with their uncertainties, too small to be seen above."""
    points = []
    for index, (detector, group) in enumerate(sorted(sizes.items())):
        for size in group:
            low, middle, high = rms_size_arcsec(size.size2 + np.array([-1.0, 0.0, 1.0]) * size.size2_err)
            residual = float(middle - rms_size_arcsec(fit.size2(size.position)))
            # A little apart, so that detectors of the same exposure do not hide each other.
            x = size.position + pistons[detector] + 0.008 * (2 * index - len(sizes) + 1)
            points.append((x, residual, float(high - low) / 2.0, ACCENTS[index % len(ACCENTS)]))
    reach = 1.15 * max(abs(residual) + error for _, residual, error, _ in points)
    place = canvas.axes(
        box,
        _x_limits(sizes, pistons),
        (-reach, reach),
        "camera position (mm)",
        "measured minus fit (arcsec)",
    )
    canvas.line([(box.x, box.y + box.height / 2), (box.x + box.width, box.y + box.height / 2)], colour=MUTED)
    for x, residual, error, colour in points:
        canvas.line([place(x, residual - error), place(x, residual + error)], colour=colour, width=1.5)
        canvas.dot(*place(x, residual), colour=colour, radius=3.5)
