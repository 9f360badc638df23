# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may run programs of their own, the file of secrets, and who may name a user."""

from __future__ import annotations

import json
import logging
import os
import subprocess

import pytest
import yaml
from lsst.dm.OCPS.config import ConfigError, InstanceConfig
from lsst.dm.OCPS.http.secrets_file import SecretsFile, hash_token

from tests.security.conftest import attacker, bearer, put_job

LOG = logging.getLogger("tests.security")


def put_pipeline(**environment: str) -> bytes:
    entries = [{"name": name, "value": value} for name, value in environment.items()]
    return put_job(command="bash bin/pipetask.sh", environment=entries)


# The general definitions


async def test_under_authentication_only_operators_may_use_the_general_definitions(start, auth):
    served = await start(http={"auth": auth}, commands=[{"command": "true"}])
    pipeline, command = put_pipeline(PIPELINE_URL="/nowhere/x.yaml"), put_job(command="true")
    for body in (pipeline, command):
        assert (await attacker(served).ask("PUT", "/api/v1/job", body, bearer("alice")))[0] == 403
    assert (await attacker(served).ask("POST", "/uws/pipetask", b"pipeline=x", bearer("alice")))[0] == 403
    status, answer = await attacker(served).ask("PUT", "/api/v1/job", pipeline, bearer("olga"))
    assert (status, b"no such file" in answer) == (400, True)
    assert (await attacker(served).ask("PUT", "/api/v1/job", command, bearer("olga")))[0] == 200


async def test_the_configuration_names_others_who_may_use_them(start, auth):
    served = await start(http={"auth": auth}, commands=[{"command": "true"}], general_users=["b*"])
    body = put_job(command="true")
    for name, expected in (("alice", 403), ("bob", 200), ("olga", 403)):
        assert (await attacker(served).ask("PUT", "/api/v1/job", body, bearer(name)))[0] == expected


def test_over_sal_the_general_definition_is_for_everybody():
    for options in ({}, {"general_users": []}, {"http": {"auth": {"method": "secrets"}}}):
        assert {"sal", "*"} & set(InstanceConfig(sal_index=1, **options).users_of_general())
    operators = InstanceConfig(sal_index=1, http={"auth": {"method": "secrets", "operators": ["olga", "o*"]}})
    assert operators.users_of_general() == ("sal", "olga", "o[*]")


async def test_a_result_of_a_job_does_not_become_a_program_of_another(start, repo):
    served = await start(butler=str(repo))
    job = await served.create(run=True, duration="0", text="print('run')")
    assert await served.ended(job) == "COMPLETED"
    result = served.manager.workspaces.of(job.rpartition("/")[2]).output / "result.txt"
    assert result.is_file()
    pipeline = os.path.expandvars("$DEMOCAM_DIR/pipelines/bias.yaml")
    attempts = [
        {"PIPELINE_URL": pipeline, "RUN_OPTIONS": f"-C bias:{result}"},
        {"PIPELINE_URL": pipeline, "RUN_OPTIONS": f"bias:{result}"},
        {"PIPELINE_URL": pipeline, "RUN_OPTIONS": f"-C bias:{pipeline},bias:{result}"},
        {"PIPELINE_URL": str(result)},
        {"PIPELINE_URL": f"file://{result}"},
    ]
    for environment in attempts:
        status, answer = await attacker(served).ask("PUT", "/api/v1/job", put_pipeline(**environment))
        assert status == 400, answer
    assert not served.manager.live()


async def test_git_runs_no_program_that_a_configuration_names(start, tmp_path, monkeypatch):
    home, repository = tmp_path / "home", tmp_path / "repo"
    (home / "hooks").mkdir(parents=True)
    for hook in ("post-checkout", "reference-transaction"):
        (home / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {home}/hooked\n")
        (home / "hooks" / hook).chmod(0o755)
    configuration = f"[core]\n hooksPath = {home}/hooks\n fsmonitor = {home}/hooks/post-checkout\n"
    (home / ".gitconfig").write_text(configuration + f"[init]\n templateDir = {home}/template\n")
    (home / "template").mkdir()
    (home / "template" / "hooks").symlink_to(home / "hooks")
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    repository.mkdir()
    (repository / "run.sh").write_text("echo ran\n")
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    # Both hooks work where git reads this configuration.
    subprocess.run(
        ["git", "-C", str(repository), "checkout", "-q", "-f"],
        check=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    assert (home / "hooked").exists()
    (home / "hooked").unlink()
    monkeypatch.setenv("HOME", str(home))
    command = {"command": "bash $JOB_SOURCE_DIR/run.sh", "url": f"file://{repository}", "commit_ref": "main"}
    served = await start(commands=[command])
    status, answer = await attacker(served).ask("PUT", "/api/v1/job", put_job(**command))
    assert status == 200, answer
    job_id = json.loads(answer.partition(b"\r\n\r\n")[2])["jobId"]
    assert (await served.manager.wait(job_id, 60)).phase == "COMPLETED"
    assert not (home / "hooked").exists()


# Without authentication


async def test_what_serves_without_authentication_offers_no_foreign_code(start):
    with pytest.raises(ConfigError, match="auth/open"):
        await start(http={"auth": {"open": False}})
    served = await start(general_users=[], http={"auth": {"open": False}}, commands=[{"command": "true"}])
    assert (await attacker(served).ask("PUT", "/api/v1/job", put_job(command="true")))[0] == 403
    assert (await attacker(served).ask("POST", "/uws/pipetask", b"pipeline=x"))[0] == 403
    status, answer = await attacker(served).ask("GET", "/api/v1/definitions")
    names = {entry["name"] for entry in json.loads(answer.partition(b"\r\n\r\n")[2])}
    assert (status, "sleep" in names, names & {"pipetask", "command"}) == (200, True, set())


async def test_definitions_that_come_later_are_not_offered_either(start):
    served = await start(general_users=[], http={"auth": {"open": False}})
    served.manager.lane.definitions["pipetask"].users = ("*",)
    status, answer = await attacker(served).ask("POST", "/uws/pipetask", b"pipeline=x&PHASE=RUN")
    assert (status, b"without authentication" in answer) == (403, True)


# The file of secrets


def secrets_file(path, document, mode=0o600):
    path.touch(mode)
    path.chmod(mode)
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    # Even where two writes are within one tick of the clock.
    os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)
    return path


BOB = {"users": {"bob": {"token": hash_token("bobs")}}}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path, mode):
    with pytest.raises(ConfigError, match="chmod 600"):
        SecretsFile(str(secrets_file(tmp_path / "s", BOB, mode)), LOG)


@pytest.mark.parametrize(
    "document",
    [
        "users: {bob: null}",
        "users: {bob: []}",
        "users: {bob: {}}",
        "users: [bob]",
        "users: null",
        "bob",
        "",
        "users: {bob: {token: bobs}}",
        "users: {bob: {token: 'sha256$x'}}",
        "users: {bob: {token: 3}}",
        "users: {bob: {password: 'scrypt$1099511627776$8$1$00$00'}}",
        "users: {bob: {secret: x}}",
        "users: {3: {token: x}}",
        "users: {",
        "[" * 5000,
        "users: {bob: !!python/object/apply:os.system [id]}",
    ],
)
def test_a_file_that_is_broken_is_refused_at_start_and_logged_later(tmp_path, caplog, document):
    path = secrets_file(tmp_path / "s", BOB)
    secrets = SecretsFile(str(path), LOG)
    secrets_file(path, document)
    for _ in range(3):
        assert secrets.owner_of_token("bobs") == "bob"
    assert len(caplog.records) == 1
    assert "the former users remain valid" in caplog.text
    assert "bobs" not in caplog.text
    with pytest.raises(ConfigError):
        SecretsFile(str(path), LOG)


def test_a_file_that_was_deleted_leaves_nobody_and_one_that_comes_back_counts(tmp_path, caplog):
    path = secrets_file(tmp_path / "s", BOB)
    secrets = SecretsFile(str(path), LOG)
    path.unlink()
    for _ in range(3):
        assert secrets.owner_of_token("bobs") is None
    assert len(caplog.records) == 1
    secrets_file(path, BOB)
    assert secrets.owner_of_token("bobs") == "bob"


def test_a_file_that_is_opened_to_others_later_is_not_read(tmp_path, caplog):
    path = secrets_file(tmp_path / "s", BOB)
    secrets = SecretsFile(str(path), LOG)
    secrets_file(path, {"users": {"eve": {"token": hash_token("eves")}}}, 0o666)
    assert secrets.owner_of_token("eves") is None
    assert "others than its owner" in caplog.text


def test_a_pipe_in_place_of_the_file_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "s", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        SecretsFile(str(tmp_path / "s"), LOG)


@pytest.mark.parametrize("length", [0, 3])
async def test_a_secret_of_a_proxy_that_could_be_guessed_is_refused(start, tmp_path, length):
    path = secrets_file(tmp_path / "p", "x" * length)
    auth = {"method": "proxy", "proxies": ["127.0.0.1"], "secret_file": str(path)}
    with pytest.raises(ConfigError, match="16 characters"):
        await start(http={"auth": auth})
