# SPDX-License-Identifier: GPL-3.0-or-later

"""Just enough drawing for quick looks.

Pillow imports in a few hundredths of a second; a plotting library would cost each quantum about a second.
"""

from __future__ import annotations

__all__ = ["ACCENTS", "Canvas", "Rectangle", "nice_ticks", "to_rgb"]

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

INK: Colour = (34, 40, 49)
MUTED: Colour = (110, 118, 129)
RULE: Colour = (214, 219, 225)
PAPER: Colour = (255, 255, 255)

ACCENTS: tuple[Colour, ...] = ((31, 119, 180), (217, 95, 2), (27, 140, 90), (150, 70, 160))
"""Colours for data, distinct also to colour-blind eyes when used in this order."""

# Dark blue over teal to pale yellow: brightness grows evenly, so that grey prints and colour-blind eyes see
# the same.
_COLOUR_MAP = np.array(
    [
        (13, 17, 52),
        (38, 52, 112),
        (32, 92, 136),
        (34, 132, 141),
        (68, 171, 128),
        (150, 205, 98),
        (250, 240, 140),
    ],
    dtype=float,
)

# Everything is drawn at twice the size and reduced at the end, which smooths lines and points.
_OVERSAMPLING = 2


@dataclass(frozen=True)
class Rectangle:
    """A part of the canvas: left, top, width and height in pixels of the finished picture."""

    x: float
    y: float
    width: float
    height: float


def to_rgb(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour an array.

    Parameters
    ----------
    values : `numpy.ndarray`
        Any shape.
    low, high : `float`
        Values of the darkest and the brightest colour; beyond them the colour stays.

    Returns
    -------
    rgb : `numpy.ndarray`
        The shape of ``values`` and one axis of three, ``uint8``.
    """
    anchors = np.linspace(0.0, 255.0, len(_COLOUR_MAP))
    table = np.stack(
        [np.interp(np.arange(256), anchors, _COLOUR_MAP[:, channel]) for channel in range(3)], axis=-1
    ).astype(np.uint8)
    scaled = (np.asarray(values, dtype=float) - low) / max(high - low, 1e-12)
    return table[(np.clip(np.nan_to_num(scaled), 0.0, 1.0) * 255.0).astype(np.uint8)]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Choose round numbers within an interval.

    Parameters
    ----------
    low, high : `float`
        The interval, ``low`` below ``high``.
    about : `int`, optional
        How many numbers are wanted, roughly.

    Returns
    -------
    ticks : `list` [ `float` ]
        Multiples of 1, 2 or 5 times a power of ten.
    """
    rough = (high - low) / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = min((factor * power for factor in (1.0, 2.0, 5.0, 10.0)), key=lambda step: abs(step - rough))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(index * step, 10) for index in range(first, last + 1)]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class Canvas:
    """A white picture to draw on.

    Parameters
    ----------
    width, height : `int`
        Size of the finished picture in pixels; all coordinates are in these pixels, from the top left.
    """

    def __init__(self, width: int, height: int):
        size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
        self._image = Image.new("RGB", size, PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        colour: Colour = INK,
        anchor: str = "ls",
    ) -> None:
        """Write a line of text.

        Parameters
        ----------
        x, y : `float`
            Where the anchor lies.
        text : `str`
            What to write.
        size : `int`, optional
            Height of the font in pixels.
        colour : `tuple` [ `int`, `int`, `int` ], optional
            Its colour.
        anchor : `str`, optional
            Pillow's two letters: l, m, r for left, middle, right; s, m, a for baseline, middle, top.
        """
        position = (x * _OVERSAMPLING, y * _OVERSAMPLING)
        self._draw.text(position, text, font=_font(size * _OVERSAMPLING), fill=colour, anchor=anchor)

    def line(
        self, points: Sequence[tuple[float, float]], *, colour: Colour = INK, width: float = 1.0
    ) -> None:
        """Draw a line through points.

        Parameters
        ----------
        points : `~collections.abc.Sequence` [ `tuple` [ `float`, `float` ] ]
            At least two.
        colour : `tuple` [ `int`, `int`, `int` ], optional
            Its colour.
        width : `float`, optional
            Its width in pixels.
        """
        scaled = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * _OVERSAMPLING)), joint="curve")

    def rectangle(self, box: Rectangle, *, outline: Colour | None = RULE, fill: Colour | None = None) -> None:
        """Draw a rectangle, its edge one pixel wide.

        Parameters
        ----------
        box : `Rectangle`
            Where.
        outline, fill : `tuple` [ `int`, `int`, `int` ] or `None`, optional
            Colours of edge and area; `None` leaves them as they are.
        """
        corners = [value * _OVERSAMPLING for value in (box.x, box.y, box.x + box.width, box.y + box.height)]
        self._draw.rectangle(corners, outline=outline, fill=fill, width=_OVERSAMPLING)

    def dot(self, x: float, y: float, *, colour: Colour, radius: float = 4.0) -> None:
        """Draw a filled circle with a white rim, so that overlapping dots stay apart."""
        for r, fill in ((radius + 1.0, PAPER), (radius, colour)):
            corners = [value * _OVERSAMPLING for value in (x - r, y - r, x + r, y + r)]
            self._draw.ellipse(corners, fill=fill)

    def image(self, values: np.ndarray, box: Rectangle, low: float, high: float) -> None:
        """Show an array, its first row at the bottom as astronomers expect.

        Parameters
        ----------
        values : `numpy.ndarray`
            Two axes, rows first.
        box : `Rectangle`
            Where; pixels are enlarged to fill it, without smoothing.
        low, high : `float`
            Values of the darkest and the brightest colour.
        """
        picture = Image.fromarray(np.ascontiguousarray(to_rgb(values[::-1], low, high)))
        size = (round(box.width * _OVERSAMPLING), round(box.height * _OVERSAMPLING))
        corner = (round(box.x * _OVERSAMPLING), round(box.y * _OVERSAMPLING))
        self._image.paste(picture.resize(size, Image.Resampling.NEAREST), corner)

    def colour_bar(self, box: Rectangle, low: float, high: float, label: str) -> None:
        """Draw a vertical scale of the colours, its ticks to the right and its label above.

        Parameters
        ----------
        box : `Rectangle`
            Where the bar itself lies.
        low, high : `float`
            Values at its ends.
        label : `str`
            Unit.
        """
        ramp = np.linspace(low, high, 256)[:, None]
        self.image(ramp, box, low, high)
        self.rectangle(box)
        for tick in nice_ticks(low, high):
            y = box.y + box.height * (1.0 - (tick - low) / (high - low))
            self.line([(box.x + box.width, y), (box.x + box.width + 5, y)], colour=MUTED)
            self.text(box.x + box.width + 9, y, f"{tick:g}", size=13, anchor="lm")
        self.text(box.x, box.y - 10, label, size=13, colour=MUTED)

    def axes(
        self,
        box: Rectangle,
        x_limits: tuple[float, float],
        y_limits: tuple[float, float],
        x_label: str,
        y_label: str,
    ) -> Callable[[float, float], tuple[float, float]]:
        """Draw axes with a light grid.

        Parameters
        ----------
        box : `Rectangle`
            The area within the axes.
        x_limits, y_limits : `tuple` [ `float`, `float` ]
            Lowest and highest values.
        x_label, y_label : `str`
            Written below and above the axes; without a label for x its numbers are left out, too.

        Returns
        -------
        place : `~collections.abc.Callable`
            Turns a pair of values into a position on the canvas.
        """

        def place(x: float, y: float) -> tuple[float, float]:
            return (
                box.x + box.width * (x - x_limits[0]) / (x_limits[1] - x_limits[0]),
                box.y + box.height * (1.0 - (y - y_limits[0]) / (y_limits[1] - y_limits[0])),
            )

        for tick in nice_ticks(*x_limits, about=8):
            x, _ = place(tick, y_limits[0])
            self.line([(x, box.y), (x, box.y + box.height)], colour=RULE, width=0.5)
            if x_label:
                self.text(x, box.y + box.height + 9, f"{tick:g}", size=13, anchor="ma")
        for tick in nice_ticks(*y_limits, about=max(2, round(box.height / 70))):
            _, y = place(x_limits[0], tick)
            self.line([(box.x, y), (box.x + box.width, y)], colour=RULE, width=0.5)
            self.text(box.x - 9, y, f"{tick:g}", size=13, anchor="rm")
        self.rectangle(box, outline=MUTED)
        self.text(box.x + box.width / 2, box.y + box.height + 34, x_label, size=14, anchor="ma")
        self.text(box.x, box.y - 12, y_label, size=14)
        return place

    def png(self) -> bytes:
        """Return the finished picture as an encoded PNG (`bytes`)."""
        buffer = io.BytesIO()
        # Fast compression: a quick look is worth more early than small.
        self._image.reduce(_OVERSAMPLING).save(buffer, format="PNG", compress_level=4)
        return buffer.getvalue()
