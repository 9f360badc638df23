# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of ``ocps``, as a process, against a live server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from lsst.dm.OCPS.client.profiles import ProfileError, find_profile
from lsst.dm.OCPS.http.secrets_file import hash_token

from tests.client.conftest import OCPS, User, environment, ocps
from tests.http.conftest import Served, Start
from tests.uws11 import Uws11
from tests.waiting import TIMEOUT, until


async def test_submit_waits_and_tells_the_outcome_by_its_exit_code(user: User) -> None:
    completed, failed = await asyncio.gather(
        user("submit", "sleep", "duration=0", "--wait"),
        user("submit", "sleep", "duration=0", "fail=true", "--wait"),
    )
    assert (completed[0], completed[1].split()[1]) == (0, "COMPLETED")
    assert failed[0] == 1
    assert "ERROR: " in failed[1]
    assert "failing, as asked for" in failed[1]


async def test_submit_without_waiting_gives_the_id(user: User, served: Served) -> None:
    job = await user.json("submit", "sleep", "duration=3600", "--run-id", "mine", "--limit", "100")
    found = await served.manager.get(job["id"])
    assert (found.run_id, found.execution_duration) == ("mine", 100)


async def test_wrong_command_lines_and_refusals(user: User) -> None:
    outcomes = await asyncio.gather(
        user("submit", "sleep", "duration"),
        user("submit", "sleep", "a=1", "a=2"),
        user("submit", "sleep", "duration=x"),
        user("show", "f" * 32),
        user("list", "--url", "http://127.0.0.1:1"),
        user("submit", "sleep", "duration=3600", "--wait", "--timeout", "0.1"),
    )
    assert [code for code, _, _ in outcomes] == [2, 2, 4, 4, 3, 3]
    texts = [err for _, _, err in outcomes]
    for text, words in zip(
        texts,
        (
            "name=value",
            "given twice",
            "is not a number",
            "No such job",
            "cannot be reached",
            "has not ended within 0.1 s",
        ),
        strict=True,
    ):
        assert words in text


async def test_list_and_show(user: User, served: Served) -> None:
    first = (await served.create(run=True, duration="0")).rpartition("/")[2]
    await served.ended(first)
    second = (await served.create(text="b=c d")).rpartition("/")[2]
    assert [job["id"] for job in await user.json("list")] == [second, first]
    assert [job["id"] for job in await user.json("list", "sleep", "-p", "pending")] == [second]
    assert [job["id"] for job in await user.json("list", "--search", "B=C")] == [second]
    code, out, _ = await user("list", "-n", "1")
    assert code == 0
    assert out.split()[:2] == ["job", "definition"]
    assert "PENDING" in out
    assert "COMPLETED" not in out
    code, out, _ = await user("show", first[:8])
    assert first in out
    assert "result             result.txt (0 bytes)" in out
    assert (await user.json("show", second))["parameters"] == {"text": "b=c d"}


async def test_hold_release_and_abort(user: User, served: Served) -> None:
    job_id = (await served.create(duration="3600")).rpartition("/")[2]
    for command, phase in (("hold", "HELD"), ("release", "QUEUED"), ("abort", "ABORTED")):
        code, out, err = await user(command, job_id)
        assert code == 0, err
        assert out.split()[1] in (phase, "EXECUTING")
    code, _, err = await user("abort", job_id)
    assert code == 4
    assert "already aborted" in err


async def test_rerun_takes_the_old_parameters(user: User, served: Served) -> None:
    old = (await served.create(duration="0", text="x")).rpartition("/")[2]
    new = await user.json("rerun", old, "text=y", "--wait")
    assert new["id"] != old
    assert (await served.manager.get(new["id"])).parameters == {"duration": "0", "text": "y"}


async def test_results_are_saved(user: User, served: Served) -> None:
    url = await served.create(run=True, duration="0", text="here")
    await served.ended(url)
    job_id = url.rpartition("/")[2]
    code, out, err = await user("results", job_id)
    assert code == 0, err
    assert (user.home / job_id / "result.txt").read_text() == "here"
    assert len(out.splitlines()) == 2
    (entry,) = await user.json("results", job_id, "*.txt", "-o", "there")
    assert (user.home / entry["path"]).read_text() == "here"
    assert [entry["path"] for entry in await user.json("results", job_id, "--list")] == [None, None]
    code, _, err = await user("results", job_id, "*.fits")
    assert code == 4
    assert "no such results" in err


async def started(user: User, *arguments: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """Start a command that does not end by itself; return it and its output."""
    process = await asyncio.create_subprocess_exec(
        OCPS, *arguments, env=environment(user.home, OCPS_URL=user.url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    return process, process.stdout


async def test_log_is_followed_to_the_end(user: User, served: Served) -> None:
    url = await served.create(run=True, duration="3600")
    await served.executing(url)
    job_id = url.rpartition("/")[2]
    process, output = await started(user, "log", "-f", job_id)
    line = await asyncio.wait_for(output.readline(), TIMEOUT)
    assert line == b"sleeping for 3600 s\n"
    await served.manager.abort(job_id)
    assert await asyncio.wait_for(process.wait(), TIMEOUT) == 5
    code, out, _ = await user("log", job_id)
    assert (code, out) == (0, "sleeping for 3600 s\n")


async def test_definitions(user: User) -> None:
    code, out, _ = await user("definitions")
    assert code == 0
    assert "  duration=float (s), default '1': How long it sleeps" in out
    assert "sleep" in [entry["name"] for entry in await user.json("definitions")]


async def test_watch_in_a_pipe_writes_a_line_for_each_change(user: User, served: Served) -> None:
    job_id = (await served.create(duration="0")).rpartition("/")[2]
    process, output = await started(user, "watch", "--json", job_id)
    lines = [json.loads(await asyncio.wait_for(output.readline(), TIMEOUT))]
    await served.manager.run(job_id)
    while line := await asyncio.wait_for(output.readline(), TIMEOUT):
        lines.append(json.loads(line))
    assert await process.wait() == 0
    assert (lines[0]["phase"], lines[-1]["phase"]) == ("PENDING", "COMPLETED")


async def test_check_tries_everything(user: User) -> None:
    code, out, err = await user("check")
    assert code == 0, out + err
    assert [line.split()[0] for line in out.splitlines()] == ["ok"] * 6
    assert "2 files were downloaded" in out


async def test_check_says_what_is_wrong(user: User, served: Served) -> None:
    code, out, _ = await user("check", "--url", "http://127.0.0.1:1")
    assert code == 3
    assert "failed server: http://127.0.0.1:1 cannot be reached" in out
    code, out, _ = await user("check", "-d", "nap")
    assert code == 1
    assert "there is no definition nap; there are: " in out
    code, out, _ = await user("check", "-d", "sleep", "duration=0", "fail=true", "--json")
    assert code == 1
    assert json.loads(out)[-1]["check"] == "job"
    assert "ended as ERROR" in json.loads(out)[-1]["words"]


async def test_check_of_a_configuration(user: User) -> None:
    path = user.home / "ocps.yaml"
    path.write_text("instances: [{sal_index: 1, butler: /not/there}]")
    code, out, _ = await user("check", "--config", str(path))
    assert code == 1
    assert "/not/there" in out
    code, out, _ = await user("check", "--config", str(path), "--index", "2")
    assert "no entry with sal_index 2" in out
    path.write_text("instances: [")
    code, out, _ = await user("check", "--config", str(path))
    assert code == 1


async def test_another_server(other: Uws11, tmp_path: Path) -> None:
    user = User(tmp_path, other.url)
    job = await user.json("submit", "-", "QUERY=x")
    waiting = asyncio.create_task(user("watch", job["id"]))
    await until(lambda: other.counts["list"])
    other.change("COMPLETED")
    code, out, err = await waiting
    assert code == 0, err
    assert "COMPLETED" in out
    code, out, _ = await user("check")
    assert code == 0
    assert "a UWS server, not an OCPS" in out
    assert "not tried" in out


async def test_shells_complete_commands_definitions_and_jobs(user: User, served: Served) -> None:
    code, script, _ = await user("completion", "bash")
    assert code == 0
    assert "_OCPS_COMPLETE=bash_complete" in script
    job_id = (await served.create()).rpartition("/")[2]
    for words, expected in (
        ("ocps sub", "plain,submit"),
        ("ocps submit sl", "plain,sleep"),
        (f"ocps show {job_id[:4]}", f"plain,{job_id}"),
    ):
        variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        code, out, _ = await user(_OCPS_COMPLETE="bash_complete", **variables)
        assert out.split() == [expected]


# Profiles


async def test_a_profile_names_server_and_token(start: Start, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text(f"users: {{alice: {{token: {hash_token('t' * 40)}}}}}")
    secrets.chmod(0o600)
    served = await start(http={"auth": {"method": "secrets", "file": str(secrets)}})
    token = tmp_path / "token"
    token.write_text("t" * 40 + "\n")
    token.chmod(0o600)
    folder = tmp_path / "config" / "ocps"
    folder.mkdir(parents=True)
    (folder / "profiles.toml").write_text(
        'default = "here"\n'
        f'[profiles.here]\nurl = "{served.root}"\ntoken_file = "{token}"\n'
        f'[profiles.wrong]\nurl = "{served.root}"\ntoken_env = "WRONG"\n'
    )
    code, out, err = await ocps(tmp_path, "submit", "sleep", "duration=0", "-w", "--json")
    assert code == 0, err
    assert json.loads(out)["owner"] == "alice"
    code, out, err = await ocps(tmp_path, "list", "--profile", "wrong", WRONG="w" * 40)
    assert code == 4
    assert "does not accept these credentials" in err
    assert "www" not in out + err
    code, _, err = await ocps(tmp_path, "list", "--profile", "wrong")
    assert (code, "variable WRONG is not set" in err) == (2, True)
    code, _, err = await ocps(tmp_path, "list", "--profile", "none")
    assert (code, "there are: here, wrong" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[profiles", "profiles.toml: "),
        ("[profiles.a]\nurl = 5", "expected texts"),
        ("[profiles.a]\ntoken_env = 'x'", "a url among them"),
        ("[profiles.a]\nurl = 'http://h'\ntoken = 'x'", "token is not one of url, token_file"),
        ("[profiles.a]\nurl = 'http://h'\ntoken_file = '/not/there'", "/not/there: No such file"),
    ],
)
def test_wrong_profiles_are_explained(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "ocps").mkdir()
    (tmp_path / "ocps" / "profiles.toml").write_text(text)
    with pytest.raises(ProfileError, match=reason):
        find_profile(name="a", environ={"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    (tmp_path / "ocps").mkdir()
    text = f"[profiles.a]\nurl = 'http://h'\ntoken_file = '{token}'"
    (tmp_path / "ocps" / "profiles.toml").write_text(text)
    with pytest.raises(ProfileError, match="chmod 600"):
        find_profile(name="a", environ={"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_token_is_not_shown() -> None:
    profile = find_profile("http://h", environ={"OCPS_TOKEN": "very-secret"})
    assert profile.token == "very-secret"
    assert "very-secret" not in repr(profile)
