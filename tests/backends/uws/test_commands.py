# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripts and commands on the uws backend: forwarded where they arrive unharmed, else refused at once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from lsst.dm.OCPS.backends.uws.command import command_line
from lsst.dm.OCPS.config import UwsConfig
from lsst.dm.OCPS.definitions.specs import CommandSpec
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest
from lsst.dm.OCPS.jobs.query import JobQuery

from tests.backends.uws.conftest import Engine, MakeEngine
from tests.backends.uws.standin import StandIn
from tests.http.conftest import Start, start
from tests.uws11 import Uws11

__all__ = ["start"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"

DEFINITIONS = [
    {
        "name": "focus",
        "kind": "script",
        "url": "https://github.com/lsst/focus",
        "commit": COMMIT,
        "argv": ["bash", "{source_dir}/bin/focus.sh", "--to={output_dir}/a.png", "{visit}", "{words}"],
        "parameters": {"visit": {"type": "int"}, "words": {"default": "a b"}},
        "variables": {"VISIT": "{visit}"},
    },
    {"name": "greet", "kind": "command", "argv": ["echo", "{text}"], "parameters": {"text": {}}},
    {"name": "mine", "kind": "command", "argv": ["{python}", "-V"]},
    {
        "name": "look",
        "kind": "command",
        "argv": ["cat", "{table}"],
        "parameters": {"table": {"type": "file"}},
    },
    {"name": "some", "kind": "command", "argv": ["ls"], "outputs": ["*.png"]},
]


@pytest.fixture
def definitions(tmp_path: Path) -> list[str]:
    path = tmp_path / "definitions.yaml"
    path.write_text(yaml.safe_dump({"definitions": DEFINITIONS}))
    return [str(path)]


async def submit(engine: Engine, name: str, **parameters: str) -> Job:
    return await engine.manager.submit(JobRequest(name, parameters))


async def test_a_script_is_forwarded_with_its_repository_and_commit(
    make_engine: MakeEngine, standin: StandIn, definitions: list[str]
) -> None:
    engine = await make_engine(definitions=definitions)
    job = await submit(engine, "focus", visit="7")
    await engine.phase(job, "executing")
    (kept,) = standin.of(job.id)
    assert kept.body == {
        "run_id": job.id,
        "command": "bash ${JOB_SOURCE_DIR}/bin/focus.sh --to=${JOB_OUTPUT_DIR}/a.png 7 'a b'",
        "url": "https://github.com/lsst/focus",
        "commit_ref": COMMIT,
        "environment": [{"name": "VISIT", "value": "7"}],
    }
    standin.end(job.id)
    assert (await engine.end(job)).phase == ExecutionPhase.COMPLETED


async def test_a_command_is_forwarded_without_a_repository(
    make_engine: MakeEngine, standin: StandIn, definitions: list[str]
) -> None:
    engine = await make_engine(definitions=definitions)
    job = await submit(engine, "greet", text="a;b|c *")
    await engine.phase(job, "executing")
    (kept,) = standin.of(job.id)
    assert shlex.split(kept.body["command"]) == ["echo", "a;b|c *"]
    assert not kept.body["url"]


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("greet", {"text": "it's"}, 'the quote "'),
        ("greet", {"text": "$(id)"}, r"\$\("),
        ("greet", {"text": "a\nb"}, "newline"),
        ("greet", {"text": "a\\b"}, "backslash"),
        ("mine", {}, "python.*on this machine only"),
        ("look", {"table": "param:table"}, "table.*file"),
        ("some", {}, "outputs"),
    ],
)
async def test_what_cannot_be_forwarded_is_refused_when_it_is_asked_for(
    make_engine: MakeEngine,
    standin: StandIn,
    definitions: list[str],
    name: str,
    parameters: dict[str, str],
    reason: str,
) -> None:
    engine = await make_engine(definitions=definitions)
    with pytest.raises(RequestError, match=reason):
        await submit(engine, name, **parameters)
    assert not engine.manager.live()
    assert not standin.counts["PUT"]


async def test_a_trusted_server_gets_any_words(
    make_engine: MakeEngine, standin: StandIn, definitions: list[str]
) -> None:
    engine = await make_engine(definitions=definitions, uws=UwsConfig(trusted=True))
    text = """it's "$(id)" \\ a\nb"""
    job = await submit(engine, "greet", text=text)
    await engine.phase(job, "executing")
    assert shlex.split(standin.of(job.id)[0].body["command"]) == ["echo", text]


async def test_a_job_list_of_another_server_takes_no_commands(
    make_engine: MakeEngine, other: Uws11, definitions: list[str]
) -> None:
    engine = await make_engine(definitions=definitions, url=other.url, uws=UwsConfig(timeout=30))
    job = await engine.end(await submit(engine, "greet", text="x"))
    assert job.phase == ExecutionPhase.ERROR
    assert job.error is not None
    assert "accepts parameters, but no commands" in job.error.message
    assert not other.jobs


@pytest.mark.parametrize(
    ("argv", "values", "line"),
    [
        (("a", "{x}"), {"x": ""}, "a ''"),
        (("a", "{{x}}"), {}, "a '{x}'"),
        (("a", "{output_dir}"), {}, "a ${JOB_OUTPUT_DIR}"),
        (("a", "-o={output_dir}/{x}"), {"x": "b c"}, "a -o=${JOB_OUTPUT_DIR}'/b c'"),
        (("a", "{x}"), {"x": "$JOB_OUTPUT_DIR"}, "a '$JOB_OUTPUT_DIR'"),
    ],
)
def test_words_of_a_command_line(argv: tuple[str, ...], values: dict[str, Any], line: str) -> None:
    assert command_line(CommandSpec(argv=argv, values=values), "id") == line


async def test_an_ocps_runs_what_its_commands_allow(
    start: Start, make_engine: MakeEngine, definitions: list[str], tmp_path: Path
) -> None:
    inner = await start(commands=[{"command": "echo *"}], work_dir=str(tmp_path / "inner"))
    engine = await make_engine(
        definitions=definitions, url=inner.root, uws=UwsConfig(timeout=60, trusted=True)
    )
    good, bad = await submit(engine, "greet", text="it's me"), await submit(engine, "focus", visit="1")
    good, bad = await engine.end(good), await engine.end(bad)
    assert good.phase == ExecutionPhase.COMPLETED
    (there,) = await inner.manager.find(JobQuery(run_id=good.id))
    assert inner.manager.workspaces.of(there.id).log.read_text() == "it's me\n"
    assert bad.phase == ExecutionPhase.ERROR
    assert bad.error is not None
    assert "not among the configured commands" in bad.error.message
