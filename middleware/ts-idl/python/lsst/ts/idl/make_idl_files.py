# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the IDL files of SAL components from the interface definitions in ``data/interfaces``.

A definition is a YAML file named like the component: its description, the generic topics it takes beside the
mandatory ones (categories of ``generics.yaml``, or single topics), and its own topics by their SAL name. A
topic is a description and fields; a field is ``[type, description]`` or ``[type, units, description]``, its
type as in IDL (``string<256>``, ``long[5]``).
"""

import argparse
import hashlib
import pathlib
import typing

import yaml

from . import get_data_dir, get_idl_dir

__all__ = ["main", "make_idl"]

# What the first line of an IDL file says, and a CSC then reports as its versions: the generic topics are
# those of ts_xml 10.2.0, and no ts_sal was needed.
_VERSIONS = "// SAL_VERSION=6.0.0+cyclone XML_VERSION=10.2.0+cyclone"

_Topic: typing.TypeAlias = dict[str, typing.Any]

# Every topic begins with these.
_PRIVATE_FIELDS = {
    "private_revCode": ["string<8>", "Revision of the topic."],
    "private_sndStamp": ["double", "second", "When it was sent (TAI, unix time)."],
    "private_rcvStamp": ["double", "second", "When it was received (TAI, unix time)."],
    "private_seqNum": ["long", "Sequence number."],
    "private_identity": ["string<128>", "Who sent it: component:index or user@host."],
    "private_origin": ["long", "Process that sent it."],
}

_ACKCMD = {
    "description": "Answer to a command.",
    "fields": {
        "ack": ["long", "What became of the command; a SalRetCode."],
        "error": ["long", "Error code; 0 if there is none."],
        "result": ["string<256>", "What there is to say about it."],
        "identity": ["string<128>", "Who sent the command."],
        "origin": ["long", "Process that sent the command."],
        "cmdtype": ["long", "Number of the command among the component's commands."],
        "timeout": ["double", "second", "How long the command will still take at most."],
    },
}

_PRIORITY = {"priority": ["long", "Not used."]}


def _collect_topics(definition: _Topic, generics: _Topic) -> dict[str, _Topic]:
    """Return all topics of a component by their SAL name: commands first, then events and telemetry.

    Raises
    ------
    ValueError
        If a generic topic or category does not exist.
    """
    wanted = {"mandatory", *definition["generics"]}
    categories = {topic["category"] for topic in generics.values()}
    unknown = wanted - categories - generics.keys()
    if unknown:
        raise ValueError(f"No such generic topic or category: {', '.join(sorted(unknown))}")
    topics = {name: t for name, t in generics.items() if t["category"] in wanted or name in wanted}
    topics |= definition["topics"]
    order = ("command_", "logevent_", "")
    topics = dict(
        sorted(topics.items(), key=lambda item: next(i for i, p in enumerate(order) if item[0].startswith(p)))
    )
    return {"ackcmd": _ACKCMD} | topics if any(name.startswith("command_") for name in topics) else topics


def _format_struct(component: str, name: str, topic: _Topic) -> str:
    """Return the IDL of one topic."""
    fields = {f"{component}ID": ["long", "Index of the component."]} | _PRIVATE_FIELDS
    fields |= topic.get("fields", {}) | (_PRIORITY if name.startswith("logevent_") else {})
    lines = []
    for field, (type_, *units, description) in fields.items():
        base, bracket, length = type_.partition("[")
        metadata = f'Units="{units[0] if units else "unitless"}",Description="{description}"'
        lines.append(f"    {base} {field}{bracket}{length}; // @Metadata=({metadata})")
    # The revision changes when and only when programs with another one could not understand each other.
    layout = ";".join(f"{fields[field][0]} {field}" for field in fields)
    struct = f"{name}_{hashlib.md5(f'{component}::{name};{layout}'.encode()).hexdigest()[:8]}"
    head = f'struct {struct} {{ // @Metadata=(Description="{topic["description"]}")'
    # salobj finds the end by one white space and "};".
    return "\n".join([head, *lines, "\t};", f"#pragma keylist {struct} {component}ID", ""])


def make_idl(component: str, directory: pathlib.Path | None = None) -> str:
    """Return the text of a component's IDL file.

    Parameters
    ----------
    component
        Name of the component.
    directory
        Where the definitions are; by default in this package.

    Raises
    ------
    FileNotFoundError
        If there is no definition of this name.
    ValueError
        If the definition is wrong.
    """
    directory = directory or get_data_dir() / "interfaces"
    definition, generics = (
        yaml.safe_load((directory / f"{name}.yaml").read_text()) for name in (component, "generics")
    )
    topics = _collect_topics(definition, generics)
    structs = [_format_struct(component, name, topic) for name, topic in topics.items()]
    return "\n".join(
        [_VERSIONS, f"// {definition['description']}", f"module {component} {{", *structs, "};", ""]
    )


def main() -> None:
    """Write the files of the components named on the command line, or of all."""
    parser = argparse.ArgumentParser(description="Write IDL files from interface definitions.")
    parser.add_argument("component", nargs="*", help="component to write the file of (default: all)")
    parser.add_argument(
        "-o", "--output", type=pathlib.Path, default=get_idl_dir(), help="directory to write to"
    )
    args = parser.parse_args()
    definitions = (get_data_dir() / "interfaces").glob("[A-Z]*.yaml")
    for component in args.component or sorted(path.stem for path in definitions):
        path = args.output / f"sal_revCoded_{component}.idl"
        path.write_text(make_idl(component))
        print(path)


if __name__ == "__main__":
    main()
