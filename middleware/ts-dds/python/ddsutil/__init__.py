# SPDX-License-Identifier: GPL-3.0-or-later

"""Python classes for the topics of an IDL file: the part of OpenSplice's ``ddsutil`` that salobj uses."""

from __future__ import annotations

import copy
import dataclasses
import functools
import keyword
import os
import pathlib
import re
import struct
import types
import typing
from collections.abc import Collection

import cyclonedds.idl
import cyclonedds.topic
from cyclonedds.idl import types as idl_types

if typing.TYPE_CHECKING:
    import dds

__all__ = ["TopicClass", "make_dds_topic_class", "parse_idl_file"]

# IDL type -> type of Cyclone, default of a field.
_TYPES: dict[str, tuple[typing.Any, typing.Any]] = {
    "boolean": (bool, False),
    "octet": (idl_types.uint8, 0),
    "short": (idl_types.int16, 0),
    "unsigned short": (idl_types.uint16, 0),
    "int": (idl_types.int32, 0),
    "unsigned int": (idl_types.uint32, 0),
    "long": (idl_types.int32, 0),
    "unsigned long": (idl_types.uint32, 0),
    "long long": (idl_types.int64, 0),
    "unsigned long long": (idl_types.uint64, 0),
    "float": (idl_types.float32, 0.0),
    "double": (idl_types.float64, 0.0),
    "string": (str, ""),
}

_STRUCT = re.compile(r"^\s*struct\s+(\w+)\s*\{(.*?)\s\};", re.DOTALL | re.MULTILINE)
_KEYLIST = re.compile(r"^\s*#pragma\s+keylist\s+(\w+)((?:[ \t]+\w+)*)", re.MULTILINE)
_FIELD = re.compile(
    r"(?P<type>[a-z][a-z ]*?) ?(?:< ?(?P<bound>[0-9]{1,9}) ?>)? "
    r"(?P<name>\w+) ?(?:\[ ?(?P<length>[0-9]{1,9}) ?\])?"
)


_MAX_LENGTH = 100_000
"""Largest number of elements of an array; every sample has a default of this size."""


class Field(typing.NamedTuple):
    """A field of a topic."""

    name: str
    type_name: str
    """The type in IDL."""
    length: int | None
    """Number of elements of an array; None of a scalar."""
    bound: int | None
    """Largest number of characters of a string; None for no limit."""
    is_key: bool
    """Whether the field is part of the key, that is, distinguishes instances."""


def parse_idl_file(path: str | os.PathLike[str]) -> dict[str, tuple[Field, ...]]:
    """Return the topics of an IDL file in the form that SAL uses: one module of flat structs.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    topics
        The fields of each struct by its name, ``<module>::<struct>``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If something in the file is not as expected.
    """
    try:
        text = pathlib.Path(path).read_text()
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not UTF-8: {e}") from None
    # Comments may contain anything, braces and semicolons too.
    text = re.sub(r"//.*", "", text)
    module = re.search(r"\bmodule\s+(\w+)", text)
    if module is None:
        raise ValueError(f"{path}: no module")
    keys = {name: words.split() for name, words in _KEYLIST.findall(text)}
    topics: dict[str, tuple[Field, ...]] = {}
    for name, body in _STRUCT.findall(text):
        if f"{module[1]}::{name}" in topics:
            raise ValueError(f"{path}: more than one struct {name}")
        try:
            statements = filter(None, (" ".join(words.split()) for words in body.split(";")))
            fields = [_parse_field(statement, keys.get(name, ())) for statement in statements]
            names = [field.name for field in fields]
            if twice := {field for field in names if names.count(field) > 1}:
                raise ValueError(f"more than one field {', '.join(sorted(twice))}")
        except ValueError as e:
            raise ValueError(f"{path}: struct {name}: {e}") from None
        topics[f"{module[1]}::{name}"] = tuple(fields)
    return topics


def _parse_field(statement: str, keys: Collection[str]) -> Field:
    """Return the field that a statement of IDL declares; raise ValueError if it is not as expected."""
    match = _FIELD.fullmatch(statement)
    if match is None or match["type"] not in _TYPES:
        raise ValueError(f"cannot understand {statement!r:.200}")
    length, bound = (int(match[part]) if match[part] else None for part in ("length", "bound"))
    if length is not None and not 0 < length <= _MAX_LENGTH:
        raise ValueError(f"{statement!r:.200}: an array must have 1 to {_MAX_LENGTH} elements")
    if bound is not None and match["type"] != "string":
        raise ValueError(f"{statement!r:.200}: only a string can be bounded")
    name = match["name"]
    if keyword.iskeyword(name) or hasattr(Sample, name) or not name.isidentifier() or name.startswith("_"):
        raise ValueError(f"{name!r} cannot be the name of a field")
    return Field(name, match["type"], length, bound, name in keys)


class Sample:
    """Base class of all samples.

    Samples behave as OpenSplice's do, because scripts rely on it: fields can be set to anything, two samples
    are equal only if they are the same object (so a sample can be put into a set), and ``str`` lists the
    fields. In addition they can be pickled.

    Cyclone is stricter than OpenSplice about the values of fields; `to_wire` and `from_wire` convert them.
    """

    _fields: typing.ClassVar[tuple[Field, ...]]
    """All fields."""

    _special_fields: typing.ClassVar[tuple[Field, ...]]
    """The fields that need conversion: arrays and strings."""

    def get_vars(self) -> dict[str, typing.Any]:
        """Return the value of each field by its name."""
        return {field.name: getattr(self, field.name) for field in self._fields}

    def print_vars(self) -> None:
        """Print all fields with their values."""
        print(self)

    def __str__(self) -> str:
        return ", ".join(f"{name}: {_format(value)}" for name, value in self.get_vars().items())

    def __copy__(self) -> typing.Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __reduce__(self) -> tuple[typing.Any, ...]:
        name: str = self.__idl_typename__  # type: ignore[attr-defined]
        return _make_empty, (name, self._fields), self.__dict__.copy()

    def to_wire(self) -> typing.Self:
        """Return a copy with values of the types that Cyclone needs.

        Raises
        ------
        IndexError
            If an array is too short. One that is too long is cut.
        struct.error
            If a number or a string does not fit its field.
        TypeError
            If a value is of a wrong type.
        """
        wire = copy.copy(self)
        for field in self._special_fields:
            setattr(wire, field.name, _convert(field, getattr(self, field.name)))
        return wire

    def from_wire(self) -> typing.Self:
        """Turn arrays of bytes into lists, in place, and return self.

        Raises
        ------
        ValueError
            If a string is too long or contains a NUL, which `to_wire` and DDS would not let through.
        """
        for field in self._special_fields:
            value = getattr(self, field.name)
            if field.type_name == "octet":
                setattr(self, field.name, list(value))
            elif field.type_name == "string":
                for text in [value] if field.length is None else value:
                    _check_received(field, text)
        return self


def _format(value: typing.Any) -> str:
    """Return a value as `Sample.__str__` shows it; no control character is left in it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    text = str(value)
    return text if text.isprintable() else repr(text)[1:-1]


def _check_received(field: Field, text: str) -> None:
    """Raise ValueError if a received string could not have been written by `Sample.to_wire`."""
    if "\0" in text:
        raise ValueError(f"{field.name} contains a NUL")
    if field.bound is not None and len(text) > field.bound:
        raise ValueError(f"{field.name} has {len(text)} characters; at most {field.bound} are allowed")


def _convert(field: Field, value: typing.Any) -> typing.Any:
    """Return the value of an array or string as Cyclone needs it; see `Sample.to_wire` for the errors."""
    if field.length is not None:
        if len(value) < field.length:
            raise IndexError(f"{field.name} has {len(value)} elements, not {field.length}")
        elements = [_convert(field._replace(length=None), element) for element in value[: field.length]]
        # Cyclone expects bytes for an array of octets.
        return struct.pack(f"{field.length}B", *elements) if field.type_name == "octet" else elements
    if field.type_name != "string":
        return value
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{field.name} must be a string, not {value!r}")
    if field.bound is not None and len(value) > field.bound:
        raise struct.error(f"{field.name} has {len(value)} characters; at most {field.bound} fit")
    return value


class TopicClass:
    """The class of a topic's samples, with the means to create the topic.

    Attributes
    ----------
    topic_data_class
        The class of the topic's samples: every field is an attribute and may be a keyword argument; it has a
        default (0, False, "" or a list of these).
    """

    def __init__(self, data_class: type[Sample]) -> None:
        self.topic_data_class = data_class

    def register_topic(
        self, participant: dds.DomainParticipant, name: str, qos: dds.Qos
    ) -> cyclonedds.topic.Topic[typing.Any]:
        """Return the topic with this class and the given name and QoS."""
        return participant.create_topic(name, self.topic_data_class, qos)


@functools.cache
def _make_data_class(name: str, fields: tuple[Field, ...]) -> type[Sample]:
    """Return the class for a struct; the same struct always has the same class."""

    def fill(namespace: dict[str, typing.Any]) -> None:
        for field in fields:
            type_, default = _TYPES[field.type_name]
            if field.length is not None:
                type_ = idl_types.array[type_, field.length]  # type: ignore
                default = dataclasses.field(default_factory=functools.partial(list, [default] * field.length))
            namespace["__annotations__"][field.name] = type_
            namespace[field.name] = default
            if field.is_key:
                namespace["__idl_field_annotations__"][field.name] = {"key": True}
        namespace["_fields"] = fields
        namespace["_special_fields"] = tuple(
            field for field in fields if field.length is not None or field.type_name == "string"
        )

    class_name = name.rpartition("::")[2]
    # Cyclone expects a base class of its own to be the first.
    bases = (cyclonedds.idl.IdlStruct, Sample)
    return dataclasses.dataclass(eq=False)(types.new_class(class_name, bases, {"typename": name}, fill))


def _make_empty(name: str, fields: tuple[Field, ...]) -> Sample:
    """Return a sample with no values, for `pickle` to fill in."""
    return object.__new__(_make_data_class(name, fields))


def make_dds_topic_class(parsed_idl: dict[str, tuple[Field, ...]], revname: str) -> TopicClass:
    """Return the class of a topic.

    Parameters
    ----------
    parsed_idl
        The topics, as returned by `parse_idl_file`.
    revname
        Name of the struct with its module, for example ``OCPS::command_execute_1a2b3c4d``.

    Raises
    ------
    KeyError
        If there is no such struct.
    """
    return TopicClass(_make_data_class(revname, parsed_idl[revname]))
