# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts with places for values: ``--duration={duration}``.

One pass, by name only: what a value contains is never looked at again, and
nothing of Python's own formatting is offered.
"""

from __future__ import annotations

__all__ = ["check_words", "fill", "names"]

import re
from collections.abc import Mapping, Sequence

from ..jobs.errors import RequestError
from ..jobs.parameters import Parameter

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


def check_words(words: Sequence[str], parameters: Sequence[Parameter], values: Mapping[str, str]) -> None:
    """Refuse a text that a program would take for an option of its own.

    Raises
    ------
    RequestError
        If one that is a word by itself begins with a hyphen.
    """
    texts = {parameter.name for parameter in parameters if parameter.type == "string"}
    for word in words:
        name = word[1:-1]
        if word == f"{{{name}}}" and name in texts and values[name].startswith("-"):
            raise RequestError(f"{name}: {values[name][:80]!r} must not begin with a hyphen")
