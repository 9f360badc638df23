# SPDX-License-Identifier: GPL-3.0-or-later

"""Pictures of the whole focal plane."""

from __future__ import annotations

__all__ = ["focal_plane_png", "stretch_limits"]

from collections.abc import Mapping, Sequence

import numpy as np

from .camera import AMPLIFIERS, SHAPE
from .draw import MUTED, RULE, Canvas, Rectangle
from .image import DemoImage

_PANEL = 2 * SHAPE[1]  # pixels a detector takes on the picture; a multiple keeps its pixels square
_MARGIN = 32
_TOP = 112
_GAP = 20
_CAPTION = 78
_BAR = 112


def stretch_limits(images: Sequence[np.ndarray], percent: float) -> tuple[float, float]:
    """Choose the range of values to show.

    Parameters
    ----------
    images : `~collections.abc.Sequence` [ `numpy.ndarray` ]
        What will be shown with this range.
    percent : `float`
        How many of a hundred pixels fall below the lower limit, and how many above the upper one.

    Returns
    -------
    low, high : `float`
        ``low`` below ``high``, also for a constant image.
    """
    values = np.concatenate([image.ravel() for image in images])
    low, high = np.percentile(values[np.isfinite(values)], [percent, 100.0 - percent])
    return float(low), float(max(high, low + 1e-6))


def focal_plane_png(
    images: Sequence[DemoImage],
    *,
    title: str,
    subtitle: str,
    captions: Mapping[int, Sequence[str]],
    unit: str,
    percent: float = 0.5,
) -> bytes:
    """Show detectors side by side in one range of colours.

    Parameters
    ----------
    images : `~collections.abc.Sequence` [ `DemoImage` ]
        One per detector, at least one.
    title, subtitle : `str`
        Written above.
    captions : `~collections.abc.Mapping` [ `int`, `~collections.abc.Sequence` [ `str` ] ]
        Lines to write below a detector, by detector id.
    unit : `str`
        What the colours mean.
    percent : `float`, optional
        Share of pixels outside either end of the colours.

    Returns
    -------
    png : `bytes`
        Encoded PNG; its width depends on the number of detectors alone, its height is fixed.
    """
    images = sorted(images, key=lambda image: image.header["DETECTOR"])
    low, high = stretch_limits([image.array for image in images], percent)
    width = 2 * _MARGIN + len(images) * (_PANEL + _GAP) + _BAR
    canvas = Canvas(width, _TOP + _PANEL + _CAPTION)
    canvas.text(_MARGIN, 42, title, size=24)
    canvas.text(_MARGIN, 68, subtitle, size=15, colour=MUTED)

    for index, image in enumerate(images):
        x = _MARGIN + index * (_PANEL + _GAP)
        detector = image.header["DETECTOR"]
        canvas.text(x, _TOP - 10, f"{image.header['DETNAME']}  (detector {detector})", size=14)
        box = Rectangle(x, _TOP, _PANEL, _PANEL)
        canvas.image(image.array, box, low, high)
        canvas.rectangle(box)
        for amp in AMPLIFIERS:
            # Amplifier names under their half, where they hide no pixels.
            middle = (amp.image.start + amp.image.stop) / 2 / SHAPE[1]
            canvas.text(x + _PANEL * middle, _TOP + _PANEL + 6, amp.name, size=12, colour=MUTED, anchor="ma")
        boundary = x + _PANEL * AMPLIFIERS[0].image.stop / SHAPE[1]
        canvas.line([(boundary, _TOP + _PANEL), (boundary, _TOP + _PANEL + 8)], colour=RULE)
        for line, caption in enumerate(captions.get(int(detector), ())):
            canvas.text(x, _TOP + _PANEL + 40 + 20 * line, caption, size=14)

    bar = Rectangle(_MARGIN + len(images) * (_PANEL + _GAP) + 10, _TOP, 18, _PANEL)
    canvas.colour_bar(bar, low, high, unit)
    canvas.text(
        width - _MARGIN,
        _TOP + _PANEL + 60,
        f"linear, {percent:g} to {100.0 - percent:g} %",
        size=12,
        colour=MUTED,
        anchor="rs",
    )
    return canvas.png()
