# SPDX-License-Identifier: GPL-3.0-or-later

"""The IDL files and what makes them."""

import subprocess
import sys

import ddsutil
import pytest
from lsst.ts import idl, salobj
from lsst.ts.idl import make_idl_files

COMPONENTS = ["OCPS", "Script", "ScriptQueue", "Test"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_idl_file_is_what_the_definition_says(component):
    path = idl.get_idl_dir() / f"sal_revCoded_{component}.idl"
    assert path.read_text() == make_idl_files.make_idl(component), "run make_idl_files.py"


def test_there_are_no_other_idl_files():
    assert sorted(path.name for path in idl.get_idl_dir().glob("*.idl")) == [
        f"sal_revCoded_{component}.idl" for component in COMPONENTS
    ]


@pytest.mark.parametrize("component", COMPONENTS)
def test_salobj_and_ddsutil_read_the_same(component):
    path = idl.get_idl_dir() / f"sal_revCoded_{component}.idl"
    metadata = salobj.parse_idl(component, path)
    assert metadata.xml_version == "10.2.0+cyclone"
    topics = ddsutil.parse_idl_file(path)
    assert len(topics) == len(metadata.topic_info)
    for topic in metadata.topic_info.values():
        assert topic.description
        fields = topics[f"{component}::{topic.sal_name}_{topic.version_hash}"]
        assert [field.name for field in fields] == list(topic.field_info)
        assert fields[0].name == f"{component}ID"
        assert [field.name for field in fields if field.is_key] == [f"{component}ID"]
        for field in fields:
            info = topic.field_info[field.name]
            assert (field.type_name, field.length, field.bound) == (
                info.type_name,
                info.array_length,
                info.str_length,
            )
            assert info.description
            assert info.units


def own_fields(component, topic):
    """Return the fields of a topic without those of every topic, and their types."""
    info = salobj.parse_idl(component, idl.get_idl_dir() / f"sal_revCoded_{component}.idl")
    fields = info.topic_info[topic].field_info
    return {
        name: field.type_name
        for name, field in fields.items()
        if not name.startswith("private_") and name not in (f"{component}ID", "priority")
    }


@pytest.mark.parametrize(
    ("topic", "fields"),
    [
        ("command_execute", "pipeline version config data_query prereq_jobs output_dataset_types"),
        ("command_abort_job", "job_id"),
        ("logevent_job_id", "event_name seq_num:long job_id"),
        ("logevent_job_result", "job_id exit_code:long result"),
    ],
)
def test_ocps_has_the_fields_that_others_rely_on(topic, fields):
    pairs = (word.partition(":") for word in fields.split())
    assert own_fields("OCPS", topic) == {name: type_ or "string" for name, _, type_ in pairs}


def test_ocps_has_the_generic_topics_of_a_configurable_csc():
    topics = salobj.parse_idl("OCPS", idl.get_idl_dir() / "sal_revCoded_OCPS.idl").topic_info
    commands = "abort_job disable enable execute exitControl setAuthList setLogLevel standby start"
    events = (
        "appliedSettingsMatchStart authList errorCode heartbeat job_id job_result largeFileObjectAvailable "
        "logLevel logMessage settingVersions settingsApplied simulationMode softwareVersions summaryState"
    )
    expected = {"ackcmd", *(f"command_{c}" for c in commands.split())} | {
        f"logevent_{e}" for e in events.split()
    }
    assert set(topics) == expected
    assert own_fields("OCPS", "command_start") == {"settingsToApply": "string"}


def write_definitions(directory, component):
    (directory / "generics.yaml").write_text(
        "logevent_heartbeat: {category: mandatory, description: d, fields: {heartbeat: [boolean, d]}}\n"
        "command_start: {category: csc, description: d}\n"
    )
    (directory / "X.yaml").write_text(component)


def revisions(text):
    """Return the structs' names without and with revision."""
    names = [line.split()[1] for line in text.splitlines() if line.startswith("struct")]
    return dict(name.rsplit("_", 1) for name in names)


def test_revision_changes_with_the_layout_only(tmp_path):
    template = "{{description: d, generics: [], topics: {{t: {{description: {}, fields: {{f: [{}, {}]}}}}}}}}"
    texts = []
    for words in (("d", "long", "d"), ("other", "long", "words"), ("d", "short", "d")):
        write_definitions(tmp_path, template.format(*words))
        texts.append(make_idl_files.make_idl("X", tmp_path))
    first, other_words, other_type = map(revisions, texts)
    assert texts[0] != texts[1]
    assert first == other_words
    assert first["t"] != other_type["t"]
    assert first["logevent_heartbeat"] == other_type["logevent_heartbeat"]


def test_component_without_commands_has_no_answers(tmp_path):
    write_definitions(tmp_path, "{description: d, generics: [], topics: {}}")
    assert "ackcmd" not in make_idl_files.make_idl("X", tmp_path)
    write_definitions(tmp_path, "{description: d, generics: [csc], topics: {}}")
    assert "ackcmd" in make_idl_files.make_idl("X", tmp_path)


def test_unknown_generic_is_refused(tmp_path):
    write_definitions(tmp_path, "{description: d, generics: [nosuch], topics: {}}")
    with pytest.raises(ValueError, match="nosuch"):
        make_idl_files.make_idl("X", tmp_path)


def test_command_line_writes_files(tmp_path):
    subprocess.run([sys.executable, "-m", "lsst.ts.idl.make_idl_files", "-o", tmp_path], check=True)
    for component in COMPONENTS:
        name = f"sal_revCoded_{component}.idl"
        assert (tmp_path / name).read_text() == (idl.get_idl_dir() / name).read_text()


def test_indices_of_ocps():
    from lsst.ts.idl.enums.OCPS import SalIndex

    assert {index.name: int(index) for index in SalIndex} == {
        "LATISS": 1,
        "LSSTComCam": 2,
        "LSSTCam": 3,
        "RA": 101,
    }
