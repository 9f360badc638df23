# SPDX-License-Identifier: GPL-3.0-or-later

"""What an interface definition says: components, topics, fields and enumerations, all checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Component", "Enumeration", "Field", "Topic", "one_line"]

SCALAR_TYPES = (
    *("boolean", "octet", "short", "unsigned short", "int", "unsigned int", "long", "unsigned long"),
    *("long long", "unsigned long long", "float", "double"),
)
"""Types of fields in IDL, beside strings."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TYPE = re.compile(rf"(?:{'|'.join(SCALAR_TYPES)}|string(?:<[1-9]\d{{0,8}}>)?)(?:\[[1-9]\d{{0,8}}\])?")


def one_line(text: Any) -> str:
    """Return a description as one line that can stand between quotes in a comment of an IDL file."""
    words = " ".join(str(text or "").split()).replace('"', "'")
    return "".join(c for c in words if c.isprintable())


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"the name of a {what} must be letters, digits and underscores, not {name!r:.80}")


@dataclass(frozen=True)
class Field:
    """A field of a topic.

    Raises
    ------
    ValueError
        If the name or the type is not valid.
    """

    name: str
    type: str
    """As in IDL, with the length of a string and the size of an array: ``string<8>``, ``long[5]``."""
    description: str = ""
    units: str = "unitless"

    def __post_init__(self) -> None:
        _check_name("field", self.name)
        if not isinstance(self.type, str) or not _TYPE.fullmatch(self.type):
            raise ValueError(f"field {self.name}: {self.type!r:.80} is no type of a field")


@dataclass(frozen=True)
class Topic:
    """A command, an event or a kind of telemetry.

    Raises
    ------
    ValueError
        If a name is not valid or two fields have the same.
    """

    name: str
    """SAL name: ``command_start``, ``logevent_heartbeat``, ``timestamp``."""
    description: str = ""
    fields: tuple[Field, ...] = ()
    category: str = ""
    """Of a generic topic: which components have it."""

    def __post_init__(self) -> None:
        _check_name("topic", self.name)
        names = [item.name for item in self.fields]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"topic {self.name}: more than one field {', '.join(sorted(twice))}")


@dataclass(frozen=True)
class Enumeration:
    """Names for the values of a field.

    Raises
    ------
    ValueError
        If a name is not valid.
    """

    name: str
    values: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        _check_name("enumeration", self.name)
        for name, _ in self.values:
            # A value may begin with a digit.
            _check_name("value", f"v{name}" if name else name)


@dataclass(frozen=True)
class Component:
    """The interface of a SAL component."""

    name: str
    description: str
    generics: tuple[str, ...]
    """Categories of generic topics, or single generic topics, beside the mandatory ones."""
    topics: tuple[Topic, ...]
    indexed: bool = True
    enumerations: tuple[Enumeration, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_name("component", self.name)
