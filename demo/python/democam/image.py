# SPDX-License-Identifier: GPL-3.0-or-later

"""The one image type of DemoCam."""

from __future__ import annotations

__all__ = ["DemoImage", "HeaderValue"]

from dataclasses import dataclass, field

import numpy as np

HeaderValue = str | int | float | bool


@dataclass
class DemoImage:
    """Pixels and the header that goes with them.

    Attributes
    ----------
    array : `numpy.ndarray`
        Pixels, rows first. Raw frames are ``uint16`` in ADU; everything processed is ``float32``.
    header : `dict` [ `str`, `str` | `int` | `float` | `bool` ]
        FITS keywords (at most eight capital characters) and their values.
    """

    array: np.ndarray
    header: dict[str, HeaderValue] = field(default_factory=dict)
