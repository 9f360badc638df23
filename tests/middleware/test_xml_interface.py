# SPDX-License-Identifier: GPL-3.0-or-later

"""IDL files and enumerations from interface definitions in ts_xml's format."""

import pathlib
import runpy
import subprocess
import sys

import ddsutil
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lsst.ts import idl, salobj
from lsst.ts.idl import make_idl_files, xml_interface

FILES = {
    "SALSubsystems.xml": """
        <SALSubsystemSet>
          <SALSubsystem><Name>Widget</Name><Description>A "widget"
            with two lines.</Description><IndexEnumeration>any</IndexEnumeration>
            <AddedGenerics>csc, logevent_largeFileObjectAvailable, logevent_unknownHere</AddedGenerics>
          </SALSubsystem>
          <SALSubsystem><Name>Single</Name><IndexEnumeration>no</IndexEnumeration>
            <AddedGenerics></AddedGenerics></SALSubsystem>
        </SALSubsystemSet>""",
    "SALGenerics.xml": """
        <SALObjects>
          <SALCommandSet><SALCommand><EFDB_Topic>SALGeneric_command_start</EFDB_Topic>
            <Category>csc</Category>
            <item><EFDB_Name>configurationOverride</EFDB_Name><IDL_Type>string</IDL_Type></item>
          </SALCommand></SALCommandSet>
          <SALEventSet><SALEvent><EFDB_Topic>SALGeneric_logevent_unknownHere</EFDB_Topic>
            <item><EFDB_Name>code</EFDB_Name><IDL_Type>int</IDL_Type><Units>unitless</Units></item>
          </SALEvent></SALEventSet>
        </SALObjects>""",
    "Widget/Widget_Commands.xml": """
        <SALCommandSet><SALCommand><EFDB_Topic>Widget_command_move</EFDB_Topic>
          <Description>Move it.</Description>
          <item><EFDB_Name>position</EFDB_Name><Description>Where to "go" to.</Description>
            <IDL_Type>double</IDL_Type><Units>degree</Units><Count>3</Count></item>
          <item><EFDB_Name>how</EFDB_Name><IDL_Type>unsigned int</IDL_Type><Count>1</Count>
            <Enumeration>Slowly, Fast = 0x10, Faster</Enumeration></item>
        </SALCommand></SALCommandSet>""",
    "Widget/Widget_Events.xml": """
        <SALEventSet>
          <Enumeration>State_Off=0,State_On=1,
            State_None=2, State_2nd=-5</Enumeration>
          <SALEvent><EFDB_Topic>Widget_logevent_state</EFDB_Topic>
            <item><EFDB_Name>state</EFDB_Name><IDL_Type>int</IDL_Type></item>
            <item><EFDB_Name>name</EFDB_Name><IDL_Type>string</IDL_Type><IDL_Size>12</IDL_Size></item>
            <item><EFDB_Name>any</EFDB_Name><IDL_Type>string</IDL_Type><IDL_Size>1</IDL_Size></item>
            <item><EFDB_Name>raw</EFDB_Name><IDL_Type>byte</IDL_Type><Count>8</Count></item>
          </SALEvent></SALEventSet>""",
    "Single/Single_Telemetry.xml": """
        <SALTelemetrySet><SALTelemetry><EFDB_Topic>Single_timestamp</EFDB_Topic>
          <item><EFDB_Name>value</EFDB_Name><IDL_Type>long long</IDL_Type></item>
        </SALTelemetry></SALTelemetrySet>""",
}


def write(directory, **changed):
    """Write the definitions, some of them changed, and return their directory."""
    for name, text in (FILES | changed).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.strip())
    return directory


def run(*arguments):
    command = [sys.executable, "-m", "lsst.ts.idl.make_idl_files", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the command has written: IDL files and enumerations."""
    directory = tmp_path_factory.mktemp("xml")
    answer = run("--xml", write(directory / "in"), "-o", directory, "--enums", directory)
    assert answer.returncode == 0, answer.stderr
    return directory


def fields_of(path, component, topic):
    info = salobj.parse_idl(component, path).topic_info[topic]
    read = ddsutil.parse_idl_file(path)[f"{component}::{topic}_{info.version_hash}"]
    assert [field.name for field in read] == list(info.field_info)
    names = {"priority", f"{component}ID"}
    return {
        field.name: (field.type_name, field.length, field.bound)
        for field in read
        if not field.name.startswith("private_") and field.name not in names
    }


def test_all_components_are_written_with_their_topics(made):
    path = made / "sal_revCoded_Widget.idl"
    assert fields_of(path, "Widget", "command_move") == {
        "position": ("double", 3, None),
        "how": ("unsigned long", None, None),
    }
    assert fields_of(path, "Widget", "logevent_state") == {
        "state": ("long", None, None),
        "name": ("string", None, 12),
        "any": ("string", None, None),
        "raw": ("octet", 8, None),
    }
    info = salobj.parse_idl("Widget", path).topic_info
    assert info["command_move"].field_info["position"].units == "degree"
    assert info["command_move"].field_info["position"].description == "Where to 'go' to."
    assert "// A 'widget' with two lines.\n" in path.read_text()


def test_generic_topics_are_those_of_salobj_6_and_others_come_from_the_directory(made):
    path = made / "sal_revCoded_Widget.idl"
    assert fields_of(path, "Widget", "command_start") == {"settingsToApply": ("string", None, 256)}
    assert fields_of(path, "Widget", "logevent_unknownHere") == {"code": ("long", None, None)}
    assert "byteSize" in fields_of(path, "Widget", "logevent_largeFileObjectAvailable")
    assert "logevent_heartbeat" in salobj.parse_idl("Widget", path).topic_info


def test_a_component_without_index_has_no_index_field_and_no_answers(made):
    path = made / "sal_revCoded_Single.idl"
    topics = ddsutil.parse_idl_file(path)
    assert not any(field.is_key or field.name == "SingleID" for fields in topics.values() for field in fields)
    assert "ackcmd" not in salobj.parse_idl("Single", path).topic_info
    assert fields_of(path, "Single", "timestamp") == {"value": ("long long", None, None)}


def test_enumerations_are_constants_and_python_classes(made):
    text = (made / "sal_revCoded_Widget.idl").read_text()
    assert "const long State_On = 1;" in text
    assert "const long command_move_how_Faster = 17;" in text
    module = runpy.run_path(str(made / "Widget.py"))
    assert {item.name: int(item) for item in module["State"]} == {"Off": 0, "On": 1, "None_": 2, "_2nd": -5}
    assert {item.name: int(item) for item in module["command_move_how"]} == {
        "Slowly": 1,
        "Fast": 16,
        "Faster": 17,
    }


async def test_salobj_speaks_an_interface_from_xml(made, monkeypatch):
    """An event with all kinds of fields goes from a controller to a remote."""
    (made / "sal_revCoded_Test.idl").write_text((idl.get_idl_dir() / "sal_revCoded_Test.idl").read_text())
    async with salobj.Domain() as domain:
        domain.idl_dir = made
        info = salobj.SalInfo(domain, "Widget", 3)
        writer = salobj.topics.ControllerEvent(info, "state")
        reader = salobj.topics.RemoteEvent(info, "state")
        await info.start()
        writer.set_put(state=2, name="twelve chars", raw=range(8))
        data = await reader.next(flush=False, timeout=60)
        assert (data.state, data.name, data.raw) == (2, "twelve chars", list(range(8)))


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("SALSubsystems.xml", "<Name>Single", "<Name>../Single", "name of a component"),
        ("SALSubsystems.xml", "csc,", "nosuch,", "no such generic topic or category: nosuch"),
        ("SALSubsystems.xml", "</SALSubsystemSet>", "", "not well-formed"),
        ("Widget/Widget_Events.xml", ">int<", ">integer<", "'integer' is no type"),
        ("Widget/Widget_Events.xml", ">12<", ">twelve<", "IDL_Size must be a number"),
        ("Widget/Widget_Events.xml", ">name<", ">state<", "more than one field state"),
        ("Widget/Widget_Events.xml", ">name<", ">private_origin<", "more than one field private_origin"),
        ("Widget/Widget_Events.xml", "=-5", "=many", "whole number"),
        ("Widget/Widget_Events.xml", "State_On", "Other_On", "begin with the same name"),
        ("Widget/Widget_Commands.xml", "command_move", "command_move;};", "the name of a topic"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(tmp_path, name, old, new, words):
    assert old in FILES[name]
    directory = write(tmp_path / "in", **{name: FILES[name].replace(old, new, 1)})
    output = tmp_path / "out"
    output.mkdir()
    components = () if "Single" in old else ("Widget",)
    answer = run("--xml", directory, "-o", output, *components)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert words in line
    assert not list(output.glob("*Widget*"))


def test_a_directory_that_is_not_there_is_named(tmp_path):
    answer = run("--xml", tmp_path / "nowhere", "-o", tmp_path)
    assert answer.returncode == 1
    assert str(tmp_path / "nowhere") in answer.stderr
    assert "Traceback" not in answer.stderr


def test_entities_do_not_expand_without_bound(tmp_path):
    bomb = "<!DOCTYPE a [<!ENTITY x0 'aaaaaaaaaa'>"
    bomb += "".join(f"<!ENTITY x{i} '{f'&x{i - 1};' * 10}'>" for i in range(1, 10))
    directory = write(tmp_path, **{"SALSubsystems.xml": f"{bomb}]><SALSubsystemSet>&x9;</SALSubsystemSet>"})
    with pytest.raises(ValueError, match="not well-formed"):
        xml_interface.read_component_names(directory)


def attempt(function, *arguments):
    """Return what a function returns, and "" or the reason for which it refuses its input."""
    try:
        return function(*arguments), ""
    except ValueError as e:
        return None, str(e)


relaxed = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def mutate(draw, text):
    """Return a text with a few pieces removed, doubled or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 20)))
        text = (
            text[:start]
            + draw(st.sampled_from(["", text[start:end] * 2, "<", "&", "[", "9" * 30, "é"]))
            + text[end:]
        )
    return text


@relaxed
@given(data=st.data(), name=st.sampled_from(sorted(FILES)))
def test_mutated_xml_is_read_or_refused(tmp_path, data, name):
    directory = write(tmp_path, **{name: mutate(data.draw, FILES[name])})
    text, reason = attempt(make_idl_files.make_idl_from_xml, "Widget", directory)
    if text is None:
        assert "Widget" in reason or str(tmp_path) in reason
    else:
        compile(make_idl_files.make_enumerations("Widget", directory), "Widget.py", "exec")
        check_readable(tmp_path, "Widget", text)


def check_readable(directory, component, text):
    """Check that salobj and ddsutil understand an IDL file alike, or that ddsutil refuses a field's name."""
    path = pathlib.Path(directory) / "made.idl"
    path.write_text(text)
    topics, reason = attempt(ddsutil.parse_idl_file, path)
    if topics is None:
        assert "cannot be the name of a field" in reason or "elements" in reason
    else:
        assert len(topics) == len(salobj.parse_idl(component, path).topic_info)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["long", "string<8>"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["description", "generics", "topics", "fields", "command_a", "f"])


@relaxed
@given(
    document=values | st.dictionaries(keys, st.dictionaries(keys, values, max_size=3) | values, max_size=3)
)
def test_any_yaml_is_read_or_refused(tmp_path, document):
    (tmp_path / "generics.yaml").write_text("logevent_h: {category: mandatory, description: d}\n")
    (tmp_path / "X.yaml").write_text(yaml.safe_dump(document))
    text, reason = attempt(make_idl_files.make_idl, "X", tmp_path)
    if text is None:
        assert "X" in reason
    else:
        check_readable(tmp_path, "X", text)


OCPS = (idl.get_idl_dir() / "sal_revCoded_OCPS.idl").read_text()


@relaxed
@given(data=st.data())
def test_mutated_idl_is_read_or_refused(tmp_path, data):
    path = tmp_path / "x.idl"
    path.write_text(mutate(data.draw, OCPS[: data.draw(st.integers(0, 4000))]))
    topics, reason = attempt(ddsutil.parse_idl_file, path)
    assert topics is not None or str(path) in reason
    for name in topics or ():
        ddsutil.make_dds_topic_class(topics, name).topic_data_class()


@given(content=st.binary(max_size=200))
@relaxed
def test_any_bytes_are_read_or_refused(tmp_path, content):
    path = tmp_path / "x.idl"
    path.write_bytes(b"module m {\nstruct s {\n" + content + b"\n };\n};")
    topics, reason = attempt(ddsutil.parse_idl_file, path)
    assert topics is not None or str(path) in reason
