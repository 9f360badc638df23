# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is written in a command or a file: it is understood, or refused with the documented error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.config import ConfigError, EnvironmentConfig, InstanceConfig, load_instance
from lsst.dm.OCPS.definitions.environments import Environments
from lsst.dm.OCPS.definitions.files import load_definitions
from lsst.dm.OCPS.definitions.pipeline_uri import check_allowed, check_exists
from lsst.dm.OCPS.definitions.pipetask import PipetaskDefinition
from lsst.dm.OCPS.definitions.pipetask_options import parse_options
from lsst.dm.OCPS.definitions.templates import fill, names
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.parameters import Parameter, check_parameters, parse_words

from tests.fuzzing import documents, spoiled, taken, texts, yaml_texts
from tests.test_config import TODAY

relaxed = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))

GENERAL = PipetaskDefinition("pipetask", Environments(()), InstanceConfig(sal_index=1))

# What a script may write in config

words = st.lists(
    st.one_of(
        texts,
        st.sampled_from(
            [
                "-c",
                "-j",
                "-i",
                "--input",
                "--config",
                "--fail-fast",
                "-c a:b=c",
                "-j4",
                "--timeout=5",
                "'",
                '"',
            ]
        ),
        st.from_regex(r"\A--?[a-z-]{1,12}(=.{0,5})?\Z"),
    ),
    max_size=6,
).map(" ".join)


@relaxed
@given(words)
@example("-j ²")
@example("-j ١")
def test_options_of_pipetask_are_taken_whole_or_refused(text: str) -> None:
    options, refused = taken(lambda: parse_options(text), RequestError)
    if refused:
        return
    # Nothing that is passed on is taken for an option by mistake, and numbers are ones that programs read.
    for name, value in zip(options.arguments, options.arguments[1:], strict=False):
        if name in ("--processes", "--timeout", "--cores-per-quantum"):
            assert value.isascii()
            assert value.isdigit()
    assert all(isinstance(word, str) and word for word in options.arguments + options.inputs)


@relaxed
@given(words | documents.map(repr) | st.text().map(lambda text: "{" + text))
@example('{"a": ' + "[" * 100_000)
@example('{"a": ' + "9" * 10_000 + "}")
def test_words_of_a_definition_are_texts_or_refused(text: str) -> None:
    found, refused = taken(lambda: parse_words(text), RequestError)
    assert refused or {type(word) for item in found.items() for word in item} <= {str}


KINDS = ("string", "int", "float", "bool", "file")


@relaxed
@given(st.sampled_from(KINDS), texts | st.integers().map(str) | st.floats().map(str))
def test_a_value_is_written_in_one_way(kind: Any, text: str) -> None:
    parameter = Parameter("p", kind, references=("http://*",))
    found, refused = taken(lambda: check_parameters([parameter], {"p": text}), RequestError)
    assert refused or check_parameters([parameter], found) == found


@relaxed
@given(texts, st.dictionaries(st.from_regex(r"\A\w{1,4}\Z"), texts, max_size=3))
def test_a_template_is_filled_once(template: str, values: dict[str, str]) -> None:
    known = dict.fromkeys(names(template), "{x}") | values
    assert isinstance(fill(template, known), str)


# Where a pipeline is

ENVIRONMENT = Environments((EnvironmentConfig(name="default"),)).get("")

uris = st.one_of(
    texts,
    st.tuples(
        st.sampled_from(
            ["", "file://", "file:", "resource://", "http://", "eups://", "$HOME/", "~", "//", "file://["]
        ),
        texts,
        st.sampled_from(["", "#a", "#", "#a,b:c", "?q", "\n"]),
    ).map("".join),
)


@relaxed
@given(uris, st.lists(texts, max_size=2))
@example("a" * 300, [])
@example("/" + "a/" * 3000, [])
@example("file://[", [])
@example("/root/\udc80", [])
def test_an_address_of_a_pipeline_is_a_file_or_refused(uri: str, allowed: list[str]) -> None:
    taken(lambda: (check_allowed(uri, allowed), check_exists(uri, ENVIRONMENT)), RequestError)


# Files of definitions

GOOD = {
    "definitions": [
        {
            "name": "typed",
            "kind": "command",
            "argv": ["printf", "{number}", "{text}"],
            "variables": {"A": "{text}"},
            "users": ["alice", "*"],
            "execution_duration": 5,
            "parameters": {
                "number": {"type": "int", "min": 1, "max": 10, "unit": "s", "default": 3},
                "text": {"default": "x", "pattern": "[^!]*", "options": ["x", 2]},
                "table": {"type": "file", "references": ["http://127.0.0.1:*"]},
            },
            "outputs": ["*.dat"],
        },
        {
            "name": "bias",
            "kind": "pipeline",
            "pipeline": "$X_DIR/a.yaml#{task}",
            "options": ["-c", "isr:a={task}"],
            "data_query": "exposure = {task}",
            "parameters": {"task": {}},
        },
        {
            "name": "script",
            "kind": "script",
            "url": "https://example.org/a.git",
            "commit": "a" * 40,
            "argv": ["bin/run"],
        },
    ]
}
JOB_TYPES = {"type": {"example": {"script": "a.sh", "env": ["A", "B"]}}}


def load(folder: Path, content: bytes) -> None:
    """Read a file of definitions; it is good, or refused in one line that names it."""
    path = folder / "fuzzed.yaml"
    path.write_bytes(content)
    found, refused = taken(lambda: load_definitions([str(path)], GENERAL), ConfigError)
    if refused:
        assert str(path) in refused
    else:
        assert all(isinstance(definition.name, str) for definition in found.values())


@relaxed
@given(spoiled(GOOD) | spoiled(JOB_TYPES) | documents)
def test_a_file_of_definitions_is_good_or_refused(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "a.sh").touch()
    load(folder, yaml.safe_dump(document, allow_unicode=False).encode())


BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@relaxed
@given(yaml_texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=40))
@example(b"\xff\xfe\x00")
@example(BILLION.encode())
@example(f"definitions:\n - {{kind: command, argv: &x [*x]}}\n{BILLION}".encode())
def test_what_is_no_yaml_is_refused_as_definitions(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    load(tmp_path_factory.getbasetemp(), content)


# The configuration of an instance

INSTANCE = {
    "instances": [
        {
            **TODAY["instances"][0],
            "max_workers": 3,
            "environments": [{"name": "default", "variables": {"A": "b"}, "preload": False}],
            "limits": {"memory": 2**30},
            "http": {"port": 8080, "auth": {"method": "none"}},
            "uws": {"timeout": 5},
            "definitions": ["sleep"],
        },
        {"sal_index": 2, "butler": "/repo"},
    ]
}


@relaxed
@given(spoiled(INSTANCE) | spoiled({"url": "http://uws.example.org", "poll_interval": 1}) | documents)
def test_a_configuration_is_good_or_refused(document: Any) -> None:
    config, refused = taken(lambda: load_instance(document, 1), ConfigError)
    if refused:
        return
    assert config.sal_index == 1
    assert InstanceConfig.model_validate_json(config.model_dump_json()) == config
    config.key()
    config.directory()
