# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration: what is written in the schema is what the program has."""

from __future__ import annotations

import re

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS import config as module
from lsst.dm.OCPS.backend_api import Limits, limits_of
from lsst.dm.OCPS.config import ConfigError, HttpConfig, InstanceConfig, SalIndex, load_instance
from lsst.dm.OCPS.config_schema import CONFIG_SCHEMA
from lsst.dm.OCPS.definitions import files as definitions
from pydantic import BaseModel

from tests.conftest import ROOT
from tests.fuzzing import taken, texts

TODAY = {
    "instances": [
        {
            "sal_index": 1,
            "instance": "LATISS",
            "url": "http://uws.example.org/api/v1",
            "poll_interval": 2.5,
            "butler": "/repo/LATISS",
            "input_collection": "LATISS/defaults",
            "output_glob": "*",
        },
        {"sal_index": 2, "instance": "LSSTComCam", "url": "http://x.example.org", "butler": "/repo"},
    ]
}


def test_the_schema_is_one_and_names_the_folder():
    jsonschema.Draft7Validator.check_schema(CONFIG_SCHEMA)
    assert CONFIG_SCHEMA["title"] == "OCPS v4"


def test_files_of_today_mean_the_uws_backend():
    loaded = load_instance(TODAY, 1)
    assert (loaded.backend, loaded.url, loaded.poll_interval) == ("uws", TODAY["instances"][0]["url"], 2.5)
    assert loaded.butler == "/repo/LATISS"


def test_the_oldest_files_mean_the_uws_backend_for_every_index():
    loaded = load_instance({"url": "http://uws.example.org", "poll_interval": 1}, 3)
    assert (loaded.backend, loaded.sal_index, loaded.poll_interval) == ("uws", 3, 1)


@pytest.mark.parametrize("index", SalIndex)
def test_an_instance_has_the_name_of_its_index(index):
    entry = {"sal_index": index.value, "instance": index.name}
    assert load_instance({"instances": [entry]}, index).instance == index.name
    with pytest.raises(ConfigError, match=rf"'latiss' is not SAL index {index}: write {index.name}"):
        load_instance({"instances": [entry | {"instance": "latiss"}]}, index)


def test_an_index_that_sal_does_not_know_takes_any_name():
    document = {"instances": [{"sal_index": 7, "instance": "night server"}]}
    assert load_instance(document, 7).instance == "night server"


def patterns(schema):
    """Return all patterns of a schema."""
    if isinstance(schema, list):
        return [one for part in schema for one in patterns(part)]
    if not isinstance(schema, dict):
        return []
    mine = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    return mine + [one for part in schema.values() for one in patterns(part)]


@pytest.mark.parametrize("schema", [CONFIG_SCHEMA, definitions.SCHEMA], ids=["config", "definitions"])
def test_no_text_ends_in_a_line_feed_where_a_pattern_has_an_end(schema):
    ended = [pattern for pattern in patterns(schema) if pattern.endswith("$")]
    assert ended
    # Python's $ also matches before a line feed at the end.
    assert [pattern for pattern in ended if not pattern.endswith(r"(?!\n)$")] == []


def test_a_mail_address_with_a_line_feed_is_refused():
    rule = {"mail": ["night@example.org\n"]}
    document = {"instances": [{"sal_index": 1, "notifications": {"rules": [rule]}}]}
    with pytest.raises(ConfigError, match="rules/0/mail/0"):
        load_instance(document, 1)


def schema_of(name: str) -> dict:
    return CONFIG_SCHEMA["definitions"][name]["properties"]


MODELS = {
    "instance": InstanceConfig,
    "environment": module.EnvironmentConfig,
    "uws": module.UwsConfig,
    "http": HttpConfig,
    "auth": module.AuthConfig,
    "command": module.CommandConfig,
    "limits": module.JobLimits,
}


@pytest.mark.parametrize(("name", "model"), MODELS.items(), ids=MODELS)
def test_schema_and_program_have_the_same_fields_and_defaults(name, model):
    properties = schema_of("instance")["limits"]["properties"] if name == "limits" else schema_of(name)
    assert set(properties) == set(model.model_fields)
    for key, schema in properties.items():
        default = model.model_fields[key].default
        if "default" in schema:
            assert (list(default) if isinstance(default, tuple) else default) == schema["default"], key
        else:
            # What must be given in a file, a section of its own, or a default that depends on others.
            in_words = "Default: " in schema.get("description", "") or not default
            assert key in REQUIRED or isinstance(default, BaseModel) or in_words, key


REQUIRED = {"sal_index", "command", "name"}


def test_each_limit_has_one_default():
    """The engine, the configuration and the schema agree, and a backend gets what is configured."""
    own = {name: field.default for name, field in Limits.model_fields.items() if name != "max_workers"}
    schema = schema_of("instance")
    assert {name: schema[name]["default"] for name in own} == own
    config = InstanceConfig(sal_index=1)
    assert limits_of(config, max_workers=7) == Limits(max_workers=7)
    changed = config.model_copy(update={"max_workers": 3, "reserved_places": 5})
    assert limits_of(changed, max_workers=7) == Limits(max_workers=3, reserved_places=5)


DOCUMENTED = {
    **{name: CONFIG_SCHEMA["definitions"][name] for name in MODELS if name != "limits"},
    "limits": schema_of("instance")["limits"],
    "parameter": definitions.SCHEMA["definitions"]["parameter"],
    "definition": {
        "properties": {
            name: schema
            for kind in ("pipeline", "script", "command")
            for name, schema in definitions.SCHEMA["definitions"][kind]["properties"].items()
        },
        "required": ["name", "kind", "pipeline", "url", "commit", "argv"],
    },
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_setting_is_documented_with_its_default(name):
    text = (ROOT / "doc" / "configuration.rst").read_text()
    section = re.split(r"^\.\. _settings-", text.partition(f".. _settings-{name}:")[2], flags=re.MULTILINE)[0]
    rows = dict(re.findall(r"^``(\w+)`` +(.*?)  +\S", section, flags=re.MULTILINE))
    schema = DOCUMENTED[name]
    assert set(rows) == set(schema["properties"])
    for key, cell in rows.items():
        default = cell.strip("`")
        found = schema["properties"][key]
        if reference := found.get("$ref", "").rpartition("/")[2]:
            found = definitions.SCHEMA["definitions"].get(reference, {})
        if key in schema.get("required", ()):
            assert default == "required", key
        elif found.get("default"):
            assert yaml.safe_load(default) == found["default"], key
        elif found.get("default") in ("", [], {}, None):
            assert default in ("none", "see right", "see below"), key
        else:
            assert yaml.safe_load(default) == found["default"], key


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "at top level: expected a mapping"),
        ({"instances": []}, "at instances"),
        ({"instances": [{}]}, "at instances/0: 'sal_index' is a required property"),
        ({"instances": [{"sal_index": 1, "poll_interval": 0}]}, "at instances/0/poll_interval"),
        ({"instances": [{"sal_index": 1, "mode": "slow"}]}, "at instances/0/mode: 'slow' is not one of"),
        (
            {"instances": [{"sal_index": 1, "environments": [{"name": "a", "variables": {"": "", 0: ""}}]}]},
            "at instances/0/environments/0/variables: the key 0 is not text: write it in quotes",
        ),
        ({"instances": [{"sal_index": 1}, {"sal_index": 1}]}, "2 entries with sal_index 1"),
        (
            {"instances": [{"sal_index": 1, "instance": "FooBar"}]},
            "instance 1: at instance: 'FooBar' is not SAL index 1: write LATISS, or leave it out",
        ),
        (
            {"instance": "LSSTCam", "url": "http://uws.example.org", "poll_interval": 1},
            "'LSSTCam' is not SAL index 1: write LATISS, or leave it out (LSSTCam is 3)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document, words):
    with pytest.raises(ConfigError) as caught:
        module.validate(document)
        load_instance(document, 1)
    assert words in str(caught.value)


def test_the_key_of_a_backend_is_the_same_in_every_process():
    one, two = load_instance(TODAY, 1), load_instance(TODAY, 1)
    assert one.key() == two.key()
    assert one.key() != load_instance(TODAY, 2).key()
    assert one.key() == one.model_copy(update={"work_dir": "/elsewhere", "on_exit": "wait"}).key()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["API_PORT", "API_BASEPATH", "API_DOMAIN", "API_PROTOCOL"]), texts))
@example({"API_PORT": "²"})
@example({"API_PORT": "9" * 5000})
def test_what_the_environment_says_is_used_or_refused(variables):
    config, refused = taken(lambda: HttpConfig().overridden(variables), ConfigError)
    assert refused or isinstance(config, HttpConfig)
