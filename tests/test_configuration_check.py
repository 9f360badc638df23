# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps check --config`` finds what ``run_uws.py`` and the CSC refuse, and nothing else.

Most of it runs in this process, because each program takes about a second to
import; that the programs do the same is shown with one configuration.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner
from lsst.dm.OCPS import run_uws
from lsst.dm.OCPS.cli import main
from lsst.dm.OCPS.sal.compat import settings_field
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.conftest import ROOT
from tests.generations import write_common_files
from tests.waiting import TIMEOUT

PIPELINE = {"definitions": [{"name": "lost", "kind": "pipeline", "pipeline": "/no/such/pipeline.yaml"}]}

OPEN = {"port": 0, "auth": {"open": True}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no_secrets": ({"http": {"auth": {"method": "secrets", "file": "/no/such/secrets"}}}, "/no/such/secrets"),
    "everywhere": ({"http": {"host": "0.0.0.0"}}, "listening at 0.0.0.0"),
    "no_proxies": ({"http": {"auth": {"method": "proxy"}}}, "proxies"),
    "work_dir": ({"work_dir": "/proc/nope"}, "work_dir"),
    "work_file": ({"work_dir": "{folder}/good.yaml/x"}, "is not a directory"),
    "no_pipeline": (
        {"butler": "{butler}", "definitions": ["{folder}/lost.definitions"], "http": OPEN},
        "'/no/such/pipeline.yaml': there is no such file",
    ),
    "no_butler": ({"butler": "/no/such/repo", "http": OPEN}, "/no/such/repo"),
    "nothing": ({"definitions": []}, "no job could run"),
    "no_backend": ({"backend": "clok"}, "there is no 'clok'; there are: local, simulation, slurm, uws"),
}
"""What is changed in a good configuration, and what is said of that."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pristine_repo: Path) -> Path:
    """A directory with all configurations."""
    folder = tmp_path_factory.mktemp("configurations")
    lost = folder / "lost.definitions"
    lost.mkdir()
    (lost / "lost.yaml").write_text(yaml.safe_dump(PIPELINE))
    good = {"sal_index": 1, "definitions": ["sleep"], "work_dir": str(folder / "work"), "http": {"port": 0}}
    changes = {"good": {}} | {name: change for name, (change, _) in REFUSED.items()}
    for name, change in changes.items():
        text = yaml.safe_dump({"instances": [good | change]})
        text = text.replace("{folder}", str(folder)).replace("{butler}", str(pristine_repo))
        (folder / f"{name}.yaml").write_text(text)
    (folder / "ra.yaml").write_text(yaml.safe_dump({"instances": [{"sal_index": 101}]}))
    write_common_files(folder)
    return folder


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def check(path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Return the exit code and the words of ``ocps check --config``, run in this process."""
    ended = CliRunner().invoke(main, ["check", "--config", str(path), "--json", *arguments], env=environment)
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    (found,) = json.loads(ended.stdout)
    return ended.exit_code, found["words"]


def refused_by_run_uws(path: Path) -> str:
    """Return the line in which ``run_uws.py``, run in this process, says why it does not start."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
        # Logging of this process stays as it is.
        patch.setattr(run_uws, "log_to_stderr", lambda **_: None)
        assert run_uws.main(["--config", str(path)]) == 1
    (line,) = said.getvalue().splitlines()
    return line


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def csc(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A script connected to an OCPS in STANDBY with these configurations."""
    private_bus()
    log = tmp_path_factory.mktemp("csc") / "csc.log"
    async with CscProcess("1", "--configdir", str(folder), log=log), Script.connect() as script:
        yield script


@pytest.fixture(scope="module")
def words(folder: Path) -> dict[str, str]:
    """What ``ocps check --config`` says of each configuration that is refused."""
    found = {name: check(folder / f"{name}.yaml") for name in REFUSED}
    assert {code for code, _ in found.values()} == {1}
    return {name: said for name, (_, said) in found.items()}


@pytest.mark.parametrize("name", list(REFUSED))
def test_check_and_run_uws_refuse_the_same(folder, words, name):
    assert REFUSED[name][1] in words[name]
    assert refused_by_run_uws(folder / f"{name}.yaml") == f"run_uws: {words[name]}"
    assert not (folder / "work").exists()


def test_the_programs_say_it_too(folder, words):
    program = "from lsst.dm.OCPS.cli import main; main()"
    path = str(folder / "work_dir.yaml")
    ended = run("-c", program, "check", "--config", path, "--json")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert json.loads(ended.stdout)[0]["words"] == words["work_dir"]
    ended = run(str(ROOT / "bin" / "run_uws.py"), "--config", path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"run_uws: {words['work_dir']}"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", list(REFUSED))
async def test_the_csc_refuses_the_same(folder, words, csc, name):
    with pytest.raises(salobj.AckError) as caught:
        await csc.remote.cmd_start.set_start(**{settings_field(): f"{name}.yaml"}, timeout=TIMEOUT)
    # salobj 6 cuts an acknowledgement at 256 characters.
    result = caught.value.ackcmd.result.removeprefix("Failed: ")
    assert words[name].startswith(result) or words[name] in result
    assert not (folder / "work").exists()


def test_a_good_one_passes_the_check_without_a_butler(folder):
    assert check(folder / "good.yaml") == (0, "")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_csc_accepts_the_good_one(folder, csc):
    await csc.set_state(salobj.State.ENABLED, "good.yaml")
    execution = await csc.execute("job:sleep", config="duration=0")
    assert (await execution.result())["phase"] == "completed"
    await csc.set_state(salobj.State.STANDBY)


def test_index_101_needs_redis_and_no_butler(folder):
    code, words = check(folder / "ra.yaml", "--index", "101", REDIS_HOST="127.0.0.1", REDIS_PORT="1")
    assert (code, words.partition(":")[0]) == (1, "Redis at 127.0.0.1")
    code, words = check(folder / "ra.yaml", "--index", "101", REDIS_HOST="")
    assert (code, words) == (1, "REDIS_HOST is not set, so Rapid Analysis cannot be reached")
