# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the IDL files of SAL components from interface definitions.

Definitions are YAML files as in ``data/interfaces``, or XML files as ts_xml has them (``--xml``).

A YAML file is named like its component and has: its description; the generic topics that it has beside the
mandatory ones (categories of ``generics.yaml``, or single topics); and its own topics by their SAL name. A
topic is a description and fields; a field is ``[type, description]`` or ``[type, units, description]``, its
type as in IDL (``string<256>``, ``long[5]``).
"""

from __future__ import annotations

import argparse
import hashlib
import keyword
import pathlib
import sys
import typing

import yaml

from . import get_data_dir, get_idl_dir
from .interface import Component, Enumeration, Field, Topic, one_line
from .xml_interface import read_component, read_component_names, read_generics

__all__ = ["main", "make_enumerations", "make_idl", "make_idl_from_xml"]

# The first line of an IDL file; a CSC publishes these as its versions. The generic topics are those of
# ts_xml 10.2.0, and ts_sal was not used.
_VERSIONS = "// SAL_VERSION=6.0.0+cyclone XML_VERSION=10.2.0+cyclone"

# Every topic begins with these.
_PRIVATE_FIELDS = (
    Field("private_revCode", "string<8>", "Revision of the topic."),
    Field("private_sndStamp", "double", "When it was sent (TAI, unix time).", "second"),
    Field("private_rcvStamp", "double", "When it was received (TAI, unix time).", "second"),
    Field("private_seqNum", "long", "Sequence number."),
    Field("private_identity", "string<128>", "Who sent it: component:index or user@host."),
    Field("private_origin", "long", "Process that sent it."),
)

_ACKCMD = Topic(
    "ackcmd",
    "Answer to a command.",
    (
        Field("ack", "long", "What became of the command; a SalRetCode."),
        Field("error", "long", "Error code; 0 if there is none."),
        Field("result", "string<256>", "What there is to say about it."),
        Field("identity", "string<128>", "Who sent the command."),
        Field("origin", "long", "Process that sent the command."),
        Field("cmdtype", "long", "Number of the command among the component's commands."),
        Field("timeout", "double", "How long the command will still take at most.", "second"),
    ),
)

_PRIORITY = Field("priority", "long", "Not used.")


def _read_topics(path: pathlib.Path, document: typing.Any) -> dict[str, Topic]:
    """Return the topics of a YAML document by their names.

    Raises
    ------
    ValueError
        If something is not as expected.
    """
    topics = {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected topics by their names, not {document!r:.80}")
    for name, topic in document.items():
        try:
            if not isinstance(topic, dict):
                raise ValueError("expected a description and fields")
            fields = []
            items = topic.get("fields") or {}
            if not isinstance(items, dict):
                raise ValueError("expected fields by their names")
            for field, words in items.items():
                if not isinstance(words, list) or len(words) not in (2, 3):
                    raise ValueError(
                        f"field {field!r:.80}: expected [type, description] or [type, units, description]"
                    )
                type_, *units, description = words
                fields.append(Field(field, type_, one_line(description), *map(one_line, units)))
            topics[name] = Topic(
                name, one_line(topic.get("description")), tuple(fields), str(topic.get("category", ""))
            )
        except ValueError as e:
            raise ValueError(f"{path}: topic {name!r:.80}: {e}") from None
    return topics


def _read_yaml(path: pathlib.Path) -> typing.Any:
    """Return the content of a YAML file; see `_read_topics` for the errors."""
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ValueError(f"{path}: not YAML: {' '.join(str(e).split())}") from None


def _read_definition(path: pathlib.Path) -> Component:
    """Return the component that a YAML file defines; see `_read_topics` for the errors."""
    document = _read_yaml(path)
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected description, generics and topics")
    generics = document.get("generics") or []
    if not isinstance(generics, list) or not all(isinstance(name, str) for name in generics):
        raise ValueError(f"{path}: generics must be a list of names")
    topics = _read_topics(path, document.get("topics") or {})
    try:
        description = one_line(document.get("description"))
        return Component(path.stem, description, tuple(generics), tuple(topics.values()))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def _collect_topics(component: Component, generics: dict[str, Topic]) -> list[Topic]:
    """Return all topics of a component: commands first, then events and telemetry.

    Raises
    ------
    ValueError
        If a generic topic or category does not exist.
    """
    wanted = {"mandatory", *component.generics}
    categories = {topic.category for topic in generics.values()}
    if unknown := wanted - categories - generics.keys():
        names = ", ".join(sorted(unknown))
        raise ValueError(f"component {component.name}: no such generic topic or category: {one_line(names)}")
    topics = {topic.name: topic for topic in generics.values() if {topic.category, topic.name} & wanted}
    topics |= {topic.name: topic for topic in component.topics}
    order = ("command_", "logevent_", "")
    result = sorted(
        topics.values(), key=lambda topic: next(i for i, p in enumerate(order) if topic.name.startswith(p))
    )
    return [_ACKCMD, *result] if any(topic.name.startswith("command_") for topic in result) else result


def _format_struct(component: Component, topic: Topic) -> str:
    """Return the IDL of one topic."""
    index = f"{component.name}ID"
    fields = [Field(index, "long", "Index of the component.")] if component.indexed else []
    fields += [*_PRIVATE_FIELDS, *topic.fields, *([_PRIORITY] if topic.name.startswith("logevent_") else [])]
    # Repeated names would not be noticed before the file is read.
    fields = list(Topic(topic.name, fields=tuple(fields)).fields)
    lines = []
    for field in fields:
        base, bracket, length = field.type.partition("[")
        metadata = f'Units="{field.units}",Description="{field.description}"'
        lines.append(f"    {base} {field.name}{bracket}{length}; // @Metadata=({metadata})")
    # The revision changes when and only when programs with another one could not understand each other.
    layout = ";".join(f"{field.type} {field.name}" for field in fields)
    revision = hashlib.md5(f"{component.name}::{topic.name};{layout}".encode()).hexdigest()[:8]
    struct = f"{topic.name}_{revision}"
    head = f'struct {struct} {{ // @Metadata=(Description="{topic.description}")'
    keys = f" {index}" if component.indexed else ""
    # salobj expects one white space and "};" at the end of a struct.
    return "\n".join([head, *lines, "\t};", f"#pragma keylist {struct}{keys}", ""])


def _format(component: Component, generics: dict[str, Topic]) -> str:
    """Return the text of an IDL file."""
    constants = [
        f"const {'long' if abs(value) < 2**31 else 'long long'} {enumeration.name}_{name} = {value};"
        for enumeration in component.enumerations
        for name, value in enumeration.values
    ]
    structs = [_format_struct(component, topic) for topic in _collect_topics(component, generics)]
    description = f"// {component.description}"
    return "\n".join([_VERSIONS, description, f"module {component.name} {{", *constants, *structs, "};", ""])


def make_idl(component: str, directory: pathlib.Path | None = None) -> str:
    """Return the text of a component's IDL file, from its YAML definition.

    Parameters
    ----------
    component
        Name of the component.
    directory
        Where the definitions are; by default in this package.

    Raises
    ------
    OSError
        If a definition cannot be read.
    ValueError
        If a definition is wrong.
    """
    directory = directory or get_data_dir() / "interfaces"
    return _format(_read_definition(directory / f"{component}.yaml"), _own_generics(directory))


def _own_generics(directory: pathlib.Path) -> dict[str, Topic]:
    path = directory / "generics.yaml"
    return _read_topics(path, _read_yaml(path))


def make_idl_from_xml(component: str, directory: pathlib.Path) -> str:
    """Return the text of a component's IDL file, from ts_xml's definitions.

    Parameters
    ----------
    component
        Name of the component.
    directory
        ts_xml's ``sal_interfaces``.

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If a file is not as expected.

    Notes
    -----
    The generic topics are those of this package, which salobj 6 needs; newer versions of ts_xml have others.
    What this package does not have is taken from the directory.
    """
    generics = read_generics(directory) | _own_generics(get_data_dir() / "interfaces")
    return _format(read_component(directory, component), generics)


def make_enumerations(component: str, directory: pathlib.Path) -> str:
    """Return a Python module with the enumerations of a component; see `make_idl_from_xml`."""
    enumerations = read_component(directory, component).enumerations
    names = ", ".join(f'"{enumeration.name}"' for enumeration in enumerations)
    parts = [f'"""Enumerations of {component}."""', "", "import enum", "", f"__all__ = [{names}]"]
    for enumeration in enumerations:
        parts += ["", "", *_format_class(enumeration)]
    return "\n".join([*parts, ""])


def _format_class(enumeration: Enumeration) -> list[str]:
    """Return the lines of a class of Python."""
    lines = [f"class {enumeration.name}(enum.IntEnum):"]
    lines += [f"    {_member_name(name)} = {value}" for name, value in enumeration.values]
    return lines if enumeration.values else [*lines, "    pass"]


def _member_name(name: str) -> str:
    """Return a name that a member of an enumeration may have in Python."""
    if keyword.iskeyword(name) or name in ("mro", "name", "value") or name.startswith("_"):
        return f"{name.strip('_')}_"
    return f"_{name}" if name[0].isdigit() else name


def main() -> int:
    """Write the files of the components named on the command line, or of all; return the exit code."""
    parser = argparse.ArgumentParser(description="Write IDL files from interface definitions.")
    parser.add_argument("component", nargs="*", help="component to write the file of (default: all)")
    parser.add_argument(
        "-o",
        "--output",
        type=pathlib.Path,
        default=get_idl_dir(),
        help="directory to write to (default: %(default)s)",
    )
    parser.add_argument(
        "--xml",
        type=pathlib.Path,
        metavar="DIR",
        help="read ts_xml's interfaces from DIR (its sal_interfaces)",
    )
    parser.add_argument(
        "--enums", type=pathlib.Path, metavar="DIR", help="with --xml: write Python enumerations to DIR, too"
    )
    args = parser.parse_args()
    if args.enums and not args.xml:
        parser.error("--enums needs --xml")
    try:
        definitions = (get_data_dir() / "interfaces").glob("[A-Z]*.yaml")
        every = read_component_names(args.xml) if args.xml else sorted(path.stem for path in definitions)
        for component in args.component or every:
            # Everything is made before anything is written.
            idl = make_idl_from_xml(component, args.xml) if args.xml else make_idl(component)
            files = {args.output / f"sal_revCoded_{component}.idl": idl}
            if args.enums:
                files[args.enums / f"{component}.py"] = make_enumerations(component, args.xml)
            for path, text in files.items():
                path.write_text(text)
                print(path)
    except (OSError, ValueError) as e:
        print(f"make_idl_files: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
