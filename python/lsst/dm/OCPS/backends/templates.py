# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Texts with places for values: ``--duration={duration}``.

One pass, by name only: what a value contains is never looked at again, and
nothing of Python's own formatting is offered.
"""

from __future__ import annotations

__all__ = ["fill", "names"]

import re
from collections.abc import Mapping

_PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\}")


def names(template: str) -> set[str]:
    """Return the names of the values that a text has places for."""
    return {match[1] for match in _PLACE.finditer(template) if match[1]}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return a text with its places filled; ``{{`` and ``}}`` stand for braces.

    Raises
    ------
    KeyError
        If there is no value for a place.
    """
    return _PLACE.sub(lambda match: values[match[1]] if match[1] else match[0][0], template)
