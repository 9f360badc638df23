# SPDX-License-Identifier: GPL-3.0-or-later

"""Read interface definitions from XML files as ts_xml has them.

A directory has ``SALSubsystems.xml`` (one entry for each component), ``SALGenerics.xml`` (the generic topics)
and, for each component, ``<name>/<name>_Commands.xml``, ``_Events.xml`` and ``_Telemetry.xml`` where it has
such topics.
"""

from __future__ import annotations

import pathlib
import re
import xml.etree.ElementTree as ET

from .interface import Component, Enumeration, Field, Topic, one_line

__all__ = ["read_component", "read_component_names", "read_generics"]

_MAX_SIZE = 20_000_000
"""Largest file (bytes) that is read."""

# Suffix of a file -> element of a topic.
_FILES = {"Commands": "SALCommand", "Events": "SALEvent", "Telemetry": "SALTelemetry"}

# Types that are called otherwise in IDL.
_TYPES = {"byte": "octet", "int": "long", "unsigned int": "unsigned long", "unsigned byte": "octet"}


def read_component_names(directory: pathlib.Path) -> list[str]:
    """Return the names of all components, sorted.

    Raises
    ------
    ValueError
        If a file is not as expected.
    OSError
        If a file cannot be read.
    """
    root = _parse(directory / "SALSubsystems.xml")
    return sorted(_text(element, "Name") for element in root.iter("SALSubsystem"))


def read_generics(directory: pathlib.Path) -> dict[str, Topic]:
    """Return the generic topics by their names; see `read_component_names` for the errors."""
    path = directory / "SALGenerics.xml"
    topics = {}
    for tag in _FILES.values():
        for element in _parse(path).iter(tag):
            topic = _read_topic(path, element)
            topics[topic.name] = topic
    return topics


def read_component(directory: pathlib.Path, name: str) -> Component:
    """Return a component's interface; see `read_component_names` for the errors."""
    path = directory / "SALSubsystems.xml"
    entries = [entry for entry in _parse(path).iter("SALSubsystem") if _text(entry, "Name") == name]
    if len(entries) != 1:
        raise ValueError(f"{path}: {len(entries) or 'no'} entries for component {name}; expected one")
    topics: list[Topic] = []
    enumerations: dict[str, Enumeration] = {}
    try:
        component = Component(
            name,
            one_line(entries[0].findtext("Description")),
            tuple(filter(None, (w.strip() for w in _text(entries[0], "AddedGenerics").split(",")))),
            (),
            indexed=_text(entries[0], "IndexEnumeration") != "no",
        )
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None
    for suffix, tag in _FILES.items():
        path = directory / name / f"{name}_{suffix}.xml"
        if not path.exists():
            continue
        root = _parse(path)
        topics += [_read_topic(path, element) for element in root.iter(tag)]
        for enumeration in _read_enumerations(path, root, tag):
            same = enumerations.setdefault(enumeration.name, enumeration)
            if same != enumeration:
                raise ValueError(f"{path}: enumeration {enumeration.name} is given twice, with other values")
    names = [topic.name for topic in topics]
    if twice := {topic for topic in names if names.count(topic) > 1}:
        raise ValueError(f"{directory / name}: more than one topic {', '.join(sorted(twice))}")
    return Component(
        component.name,
        component.description,
        component.generics,
        tuple(topics),
        component.indexed,
        tuple(enumerations.values()),
    )


def _parse(path: pathlib.Path) -> ET.Element:
    """Return the root of an XML file."""
    if path.stat().st_size > _MAX_SIZE:
        raise ValueError(f"{path}: larger than {_MAX_SIZE} bytes")
    try:
        return ET.parse(path).getroot()
    except (ET.ParseError, LookupError, ValueError) as e:
        raise ValueError(f"{path}: not well-formed XML: {e}") from None


def _text(element: ET.Element, tag: str) -> str:
    """Return the text of a child, "" if there is none."""
    return (element.findtext(tag) or "").strip()


def _read_topic(path: pathlib.Path, element: ET.Element) -> Topic:
    name = _text(element, "EFDB_Topic")
    try:
        fields = tuple(_read_field(item) for item in element.iter("item"))
        # The name begins with that of the component, which may not contain an underscore.
        description = one_line(element.findtext("Description"))
        return Topic(name.partition("_")[2], description, fields, _text(element, "Category"))
    except ValueError as e:
        raise ValueError(f"{path}: topic {one_line(name)!r}: {e}") from None


def _read_field(item: ET.Element) -> Field:
    name = _text(item, "EFDB_Name")
    type_ = " ".join(_text(item, "IDL_Type").split())
    type_ = _TYPES.get(type_, type_)
    size, count = (_read_number(item, tag) for tag in ("IDL_Size", "Count"))
    # A size of 1 stands for a string of any length.
    if type_ == "string" and size > 1:
        type_ = f"string<{size}>"
    if count > 1:
        type_ = f"{type_}[{count}]"
    units = one_line(item.findtext("Units")) or "unitless"
    return Field(name, type_, one_line(item.findtext("Description")), units)


def _read_number(item: ET.Element, tag: str) -> int:
    text = _text(item, tag) or "1"
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"{tag} must be a number, not {text!r:.80}")
    return int(text)


def _read_enumerations(path: pathlib.Path, root: ET.Element, tag: str) -> list[Enumeration]:
    """Return those of a file (``Name_Value,…``) and those of its fields (``Value,…``, or as before)."""
    found = []
    try:
        found += [_read_enumeration(element.text or "", "") for element in root.findall("Enumeration")]
        for topic in root.iter(tag):
            for item in topic.iter("item"):
                if text := item.findtext("Enumeration"):
                    topic_name = _text(topic, "EFDB_Topic").partition("_")[2]
                    found.append(_read_enumeration(text, f"{topic_name}_{_text(item, 'EFDB_Name')}"))
    except ValueError as e:
        raise ValueError(f"{path}: enumeration: {e}") from None
    return found


def _read_enumeration(text: str, name: str) -> Enumeration:
    """Return an enumeration; without a name, all values begin with it."""
    values: dict[str, int] = {}
    number = 0
    for word in filter(None, (part.strip() for part in text.split(","))):
        key, equals, given = (part.strip() for part in word.partition("="))
        if equals:
            number = _read_value(given)
        else:
            number += 1
        if key in values:
            raise ValueError(f"the value {one_line(key)!r} is there twice")
        values[key] = number
    if not name:
        names = {key.partition("_")[0] for key in values}
        if len(names) != 1:
            raise ValueError(f"its values must begin with the same name: {one_line(text)!r:.80}")
        name = names.pop()
        values = {key.partition("_")[2]: number for key, number in values.items()}
    return Enumeration(name, tuple(values.items()))


def _read_value(text: str) -> int:
    match = re.fullmatch(r"(-?)(?:0[xX]([0-9a-fA-F]{1,16})|([0-9]{1,19}))", text)
    if match is None:
        raise ValueError(f"a value must be a whole number, not {text!r:.80}")
    sign, hexadecimal, decimal = match.groups()
    number = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return -number if sign else number
