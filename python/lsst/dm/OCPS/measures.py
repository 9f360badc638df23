# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures that a part of OCPS offers to whoever watches it."""

from __future__ import annotations

__all__ = ["About", "Measure", "Measures"]

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure at one moment.

    Parameters
    ----------
    name : `str`
        Its name, with the unit, as Prometheus wants names.
    text : `str`
        What it is.
    value : `float`
        The figure.
    total : `bool`
        Whether it only ever grows while the process lives.
    """

    name: str
    text: str
    value: float
    total: bool = False


Measures = Callable[[], Iterable[Measure]]
"""Returns the figures of now; it is called in the event loop and must be quick."""

About = Callable[[], Mapping[str, Any]]
"""Returns, in JSON's types, what the CSC is that an engine belongs to: its state, index and versions."""
