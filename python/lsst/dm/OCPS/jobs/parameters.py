# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of job definitions, and checks of the values in requests."""

from __future__ import annotations

__all__ = ["UPLOAD_PREFIX", "Parameter", "check_parameters", "parse_words"]

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..programs.fetch import check as check_url
from .errors import RequestError

UPLOAD_PREFIX = "param:"
"""Prefix of the value of a file parameter whose file was sent with the request."""

MAX_LENGTH = 65_536
"""Longest text (characters) that one parameter may have."""

_INT = re.compile(r"[+-]?\d{1,18}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRUE = ("true", "yes", "1", "t")
_FALSE = ("false", "no", "0", "f", "")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a job definition.

    Parameters
    ----------
    name : `str`
        Its name.
    type : `str`
        ``string``, ``int``, ``float``, ``bool`` or ``file``.
    unit : `str`
        Unit of a number; empty if it has none.
    default : `str` or `None`
        Value if the request has none; `None` if the parameter is required.
    min, max : `float` or `None`
        Range of a number, both ends included.
    options : `tuple` [`str`, ...]
        The allowed values; empty if all are.
    pattern : `str`
        Regular expression that the whole text must match; empty for any text.
    references : `tuple` [`str`, ...]
        Globs of the URLs from which a file may be fetched; empty if the file
        must be sent with the request.
    description : `str`
        Meaning of the parameter.
    """

    name: str
    type: Literal["string", "int", "float", "bool", "file"] = "string"
    unit: str = ""
    default: str | None = None
    min: float | None = None
    max: float | None = None
    options: tuple[str, ...] = ()
    pattern: str = ""
    references: tuple[str, ...] = ()
    description: str = ""

    def check(self, text: str) -> str:
        """Check a value, and return it in its standard form.

        Raises
        ------
        ValueError
            If the value is wrong; the text says what would be right.
        """
        if "\0" in text:
            raise ValueError("contains a NUL character")
        if _SURROGATE.search(text):
            raise ValueError("contains half a character (a surrogate)")
        if len(text) > MAX_LENGTH:
            raise ValueError(f"longer than {MAX_LENGTH} characters")
        value = getattr(self, f"_{self.type}")(text)
        if self.options and value not in self.options:
            raise ValueError(f"{text[:80]!r} is not one of {', '.join(self.options)}")
        return str(value)

    def _string(self, text: str) -> str:
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise ValueError(f"{text[:80]!r} does not match the pattern {self.pattern}")
        return text

    def _int(self, text: str) -> str:
        if not _INT.fullmatch(text.strip()):
            raise ValueError(f"{text[:80]!r} is not a whole number")
        value = int(text)
        self._check_range(value)
        return str(value)

    def _float(self, text: str) -> str:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{text[:80]!r} is not a number")
        self._check_range(value)
        return repr(value)

    def _bool(self, text: str) -> str:
        word = text.strip().lower()
        if word not in _TRUE + _FALSE:
            raise ValueError(f"{text[:80]!r} is neither true nor false")
        return "true" if word in _TRUE else "false"

    def _file(self, text: str) -> str:
        if text.startswith(UPLOAD_PREFIX) or text == self.default:
            return text
        try:
            if self.references:
                check_url(text, self.references)
                return text
        except ValueError:
            pass
        where = f"a URL of {', '.join(self.references)}, or " if self.references else ""
        raise ValueError(f"{text[:80]!r} is not a file; expected {where}a file sent with the request")

    def _check_range(self, value: float) -> None:
        if (self.min is not None and value < self.min) or (self.max is not None and value > self.max):
            raise ValueError(f"{_number_text(value)} is not {self._range_text()}")

    def _range_text(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.min is not None and self.max is not None:
            return f"between {_number_text(self.min)} and {_number_text(self.max)}{unit}"
        if self.min is not None:
            return f"{_number_text(self.min)}{unit} or more"
        return f"{_number_text(self.max or 0)}{unit} or less"


def _number_text(value: float) -> str:
    """Return a number in decimal notation: 20000100, not 2.00001e+07."""
    return str(int(value)) if value == int(value) and abs(value) < 10**15 else repr(value)


def parse_words(text: str) -> dict[str, str]:
    """Return parameters that are written as ``key=value`` words or as a JSON object.

    Words are split by the rules of a shell, but no shell is run.

    Raises
    ------
    RequestError
        If the text is neither.
    """
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"not a JSON object: {error}", "parameters") from None
        return {name: _as_text(name, value) for name, value in values.items()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RequestError(f"{error} in {text!r}", "parameters") from None
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in found:
            problem = "is given twice" if equals else "is not of the form key=value"
            raise RequestError(f"{word[:80]!r} {problem}", "parameters")
        found[name] = value
    return found


def _as_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise RequestError(f"{name[:80]}: expected a text, a number, true or false", "parameters")


def check_parameters(
    parameters: Sequence[Parameter], given: Mapping[str, str], *, complete: bool = True
) -> dict[str, str]:
    """Check the values in a request.

    Parameters
    ----------
    parameters : `~collections.abc.Sequence` [`Parameter`]
        The parameters of the job definition.
    given : `~collections.abc.Mapping` [`str`, `str`]
        The values by name.
    complete : `bool`
        Whether a missing required parameter is a mistake.

    Returns
    -------
    values : `dict` [`str`, `str`]
        A value for every parameter that has one or has a default.

    Raises
    ------
    RequestError
        With all mistakes at once.
    """
    known = {parameter.name: parameter for parameter in parameters}
    mistakes = [
        f"{name[:80]}: no such parameter; there are: {', '.join(known) or 'none'}"
        for name in given
        if name not in known
    ]
    values = {}
    for name, parameter in known.items():
        text = given.get(name, parameter.default)
        if text is None:
            if complete:
                mistakes.append(f"{name}: must be given")
            continue
        try:
            values[name] = parameter.check(text)
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
    if mistakes:
        raise RequestError("; ".join(mistakes))
    return values
