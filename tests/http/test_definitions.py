# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of job definitions, and parameters."""

from __future__ import annotations

import pytest
import yaml
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.definitions.files import load_definitions
from lsst.dm.OCPS.definitions.pipeline import PipelineDefinition
from lsst.dm.OCPS.jobs.definition import JobDefinition
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.model import JobRequest
from lsst.dm.OCPS.jobs.parameters import Parameter, parse_words
from lsst.dm.OCPS.jobs.spec import UnreadSpec


class General(JobDefinition):
    """In the place of the general pipeline job: gives back what it is asked for."""

    async def resolve(self, request, job_id):
        return UnreadSpec(kind="general", **request.parameters)


def load(tmp_path, *entries):
    path = tmp_path / "definitions.yaml"
    path.write_text(yaml.safe_dump({"definitions": list(entries)}))
    return load_definitions([str(path)], General("pipetask"))


COMMAND = {"name": "a", "kind": "command", "argv": ["true"]}


def test_shipped_definitions_load():
    assert load_definitions(["sleep", "democam"], General("pipetask")).keys() == {
        "pipetask",
        "sleep",
        "bias",
        "focusSweep",
    }


def test_all_mistakes_of_a_file_are_named_at_once(tmp_path):
    wrong = [
        {"name": "a", "kind": "dance"},
        {"name": "b c", "kind": "command", "argv": "true"},
        {"name": "d", "kind": "script", "argv": [], "url": "git@x:y", "commit": "main"},
    ]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *wrong)
    for place in ("definitions/0", "1/name", "1/argv", "2/url", "2/commit", "'main'"):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"argv": ["x", "{nosuch}"]}, "no parameter nosuch"),
        ({"variables": {"X": "{nosuch}"}}, "no parameter nosuch"),
        ({"parameters": {"phase": {}}}, "this name is reserved"),
        ({"parameters": {"x": {"type": "int", "default": "y"}}}, "not a whole number"),
        ({"parameters": {"x": {"type": "int", "min": 3, "default": 1}}}, "1 is not 3 or more"),
        ({"parameters": {"x": {"type": "table"}}}, "x/type"),
    ],
)
def test_a_definition_that_could_never_run_is_refused(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, COMMAND | change)


def test_names_are_unique_and_files_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="twice"):
        load(tmp_path, COMMAND, COMMAND)
    with pytest.raises(ConfigError, match="shipped are: democam, sleep"):
        load_definitions(["nosuch"], General("pipetask"))
    (tmp_path / "x.yaml").write_text("{")
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_definitions([str(tmp_path / "x.yaml")], General("pipetask"))


def test_a_directory_stands_for_all_files_in_it(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"definitions": [COMMAND | {"name": name}]}))
    assert load_definitions([str(tmp_path)], General("pipetask")).keys() == {"pipetask", "a", "b"}


async def test_values_stay_within_their_literal_and_their_word_in_a_pipeline():
    definition = PipelineDefinition(
        "p",
        General("pipetask"),
        "$X_DIR/p.yaml",
        [Parameter("band"), Parameter("day", "int"), Parameter("c", default="")],
        options=["-c", "a:b={c}"],
        data_query="band={band} AND day_obs={day}",
    )

    async def resolve(**given):
        return await definition.resolve(JobRequest("p", given), "id")

    spec = await resolve(band="r x", day="7", c="1 --output-run 'x'")
    assert spec.data_query == "band='r x' AND day_obs=7"
    assert spec.config == "-c 'a:b=1 --output-run '\"'\"'x'\"'\"''"
    for given in (
        {"band": "r' OR '1", "day": "7"},
        {"band": "r", "day": "7 OR 1"},
        {"band": "r\\", "day": "7"},
    ):
        with pytest.raises(RequestError):
            await resolve(**given)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=1 b='x y' c=", {"a": "1", "b": "x y", "c": ""}),
        ('{"a": 1, "b": true, "c": "x", "d": 0.5}', {"a": "1", "b": "true", "c": "x", "d": "0.5"}),
    ],
)
def test_parameters_over_sal_are_words_or_json(text, expected):
    assert parse_words(text) == expected


@pytest.mark.parametrize("text", ["a", "a=1 a=2", "a='", "{", '{"a": []}', '{"a": null}'])
def test_parameters_over_sal_that_make_no_sense_are_refused(text):
    with pytest.raises(RequestError, match="parameters"):
        parse_words(text)


@pytest.mark.parametrize(
    ("parameter", "text", "expected"),
    [
        (Parameter("x", "int"), " +7", "7"),
        (Parameter("x", "float"), "1e3", "1000.0"),
        (Parameter("x", "bool"), "YES", "true"),
        (Parameter("x", "bool"), "0", "false"),
        (Parameter("x", "int", min=1, max=3), "3", "3"),
    ],
)
def test_values_are_written_in_one_way(parameter, text, expected):
    assert parameter.check(text) == expected


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (Parameter("x", "int"), "1.0"),
        (Parameter("x", "int"), "9" * 30),
        (Parameter("x", "int"), "1_0"),
        (Parameter("x", "float"), "nan"),
        (Parameter("x", "float"), "inf"),
        (Parameter("x", "bool"), "maybe"),
        (Parameter("x", "int", min=1), "0"),
        (Parameter("x", options=("a",)), "A"),
        (Parameter("x", pattern="a+"), "ab"),
        (Parameter("x"), "a\0"),
        (Parameter("x"), "\ud800"),
        (Parameter("x"), "x" * 65_537),
    ],
)
def test_what_is_no_value_is_refused(parameter, text):
    with pytest.raises(ValueError):
        parameter.check(text)


async def test_the_priority_of_a_definition_is_that_of_its_jobs(start, tmp_path):
    path = tmp_path / "urgent.yaml"
    path.write_text("definitions: [{name: urgent, kind: command, argv: ['true'], priority: 5}]")
    served = await start(definitions=[str(path)])
    first = await served.manager.submit(JobRequest("urgent"), run=False)
    second = await served.manager.submit(JobRequest("urgent", priority=-1), run=False)
    assert (first.priority, second.priority) == (5, -1)
