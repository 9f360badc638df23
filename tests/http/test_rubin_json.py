# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON dialect of Rubin's services."""

from __future__ import annotations

import json
import subprocess

import pytest
from lsst.dm.OCPS.config import ConfigError

from tests.ports import free_port

API = "/api/v1"


async def api(served, method: str, path: str, body=None):
    """Send a request; return status and the JSON, or the text of an error."""
    status, text, answer = await served.ask(method, API + path, json=body)
    return status, json.loads(text) if answer.content_type == "application/json" else text


async def run(served, **env) -> str:
    """Run a job to its end; return its id."""
    status, job = await api(served, "POST", "/job", {"type": "sleep", "env": {"duration": 0, **env}})
    assert status == 200, job
    await served.ended(job["jobId"])
    return job["jobId"]


async def test_a_job_has_all_members_of_the_dialect(served):
    job_id = await run(served, text="hello")
    status, job = await api(served, "GET", f"/job/{job_id}")
    assert status == 200
    assert {"jobId", "runId", "ownerId", "phase", "creationTime", "startTime", "endTime"} < job.keys()
    assert job["phase"] == "completed"
    assert job["executionDuration"] >= 0
    assert [result["id"] for result in job["results"]] == [0, 1]
    assert {"name": "text", "value": "hello"} in job["parameters"]["environment"]
    assert (await api(served, "GET", f"/job?id={job_id}")) == (200, job)
    for member in ("phase", "results", "parameters"):
        assert await api(served, "GET", f"/job/{job_id}/{member}") == (200, job[member])
    assert (await served.ask("GET", f"{API}/job/result/{job_id}/1"))[1] == "hello"


async def test_jobs_are_listed_by_the_phase_that_is_shown(served):
    done = await run(served)
    job = await served.create(run=True, duration="3600")
    await served.executing(job)
    held = (await served.create()).rpartition("/")[2]
    await served.manager.hold(held)

    async def ids(query: str) -> set[str]:
        status, jobs = await api(served, "GET", f"/job{query}")
        assert status == 200, jobs
        return {job["jobId"] for job in jobs}

    assert await ids("?phase=executing") == {job.rpartition("/")[2]}
    assert await ids("?phase=completed") == {done}
    assert await ids("?phase=queued") == {held}
    for never_shown in ("held", "unknown", "suspended", "archived"):
        assert await ids(f"?phase={never_shown}") == set()
    assert len(await ids("")) == 3
    assert await ids("?last=1") == {held}
    assert (await api(served, "GET", "/job?phase=DONE"))[0] == 400
    assert (await api(served, "GET", "/job?last=x"))[0] == 400


async def test_the_status_tells_workers_places_and_parts(start):
    served = await start(max_workers=1)
    running = await served.create(run=True, duration="3600")
    await served.executing(running)
    first = (await served.create(run=True, duration="0")).rpartition("/")[2]
    location = await served.create(run=True, duration="0", PRIORITY="5")
    urgent = location.rpartition("/")[2]
    await served.create()
    status, found = await api(served, "GET", "/status")
    assert status == 200
    assert found["places"] == {urgent: 1, first: 2}
    # A job that was held and is released takes its place again, and only one.
    for phase in ("HOLD", "RUN"):
        assert (await served.ask("POST", f"{location}/phase", data={"PHASE": phase}))[0] == 303
    found = (await api(served, "GET", "/status"))[1]
    assert found["places"] == {urgent: 1, first: 2}
    assert [(one["workers"], one["used"], one["waiting"]) for one in found["backends"]] == [(1, 1, 2)]
    assert found["parts"]["backend"] == {"ok": True, "reason": ""}
    assert found["csc"] is None


async def test_delete_removes_the_job(served):
    job_id = await run(served)
    assert await api(served, "DELETE", f"/job/{job_id}") == (
        200,
        {"status": "ok", "message": "", "code": 200},
    )
    status, text = await api(served, "GET", f"/job/{job_id}")
    assert (status, isinstance(text, str)) == (404, True)
    assert (await api(served, "DELETE", f"/job/{job_id}"))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"type": 7},
        {"type": "nosuch"},
        {"type": "sleep", "env": []},
        {"type": "sleep", "env": {"duration": None}},
        {"type": "sleep", "env": {"speed": 1}},
    ],
)
async def test_a_typed_job_that_is_wrong_is_refused_in_words(served, body):
    status, text = await api(served, "POST", "/job", body)
    assert (status, isinstance(text, str)) == (400, True)


# PUT /job

COMMAND = {"command": "cd $JOB_SOURCE_DIR && bash bin/pipetask.sh", "run_id": "abc"}


def environment(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


async def test_what_the_csc_sends_for_a_pipeline_is_taken_for_that_pipeline(start, tmp_path):
    pipeline = tmp_path / "a.yaml"
    pipeline.write_text("description: nothing\n")
    served = await start(butler="/nowhere", max_workers=1)
    await served.create(run=True, duration="3600")
    body = COMMAND | {
        "url": "https://github.com/lsst-dm/uws_scripts",
        "commit_ref": "main",
        "environment": environment(
            PIPELINE_URL=str(pipeline),
            BUTLER_REPO="/nowhere",
            RUN_OPTIONS="-i some/input -c 'a:b=1 2'",
            OUTPUT_GLOB="x*,y*",
            DATA_QUERY="exposure=1",
            EUPS_TAG="",
        ),
    }
    status, job = await api(served, "PUT", "/job", body)
    assert status == 200, job
    spec = (await served.manager.get(job["jobId"])).spec
    assert (spec.kind, spec.pipeline, spec.data_query) == ("pipetask", str(pipeline), "exposure=1")
    assert (spec.inputs, spec.options) == (("some/input",), ("--config", "a:b=1 2"))
    assert spec.output_glob == ("x*", "y*")
    assert job["runId"] == "abc"
    for wrong in ({"BUTLER_REPO": "/elsewhere"}, {"EUPS_TAG": "w_1"}, {"RUN_OPTIONS": "--output-run x"}):
        changed = environment(PIPELINE_URL=str(pipeline), **wrong)
        status, text = await api(served, "PUT", "/job", COMMAND | {"environment": changed})
        assert (status, isinstance(text, str)) == (400, True)


async def test_no_command_line_runs_unless_the_configuration_allows_it(served, start):
    assert (await api(served, "PUT", "/job", {"command": "touch /tmp/x"}))[0] == 403


async def test_an_allowed_command_line_runs_with_what_it_was_given(start):
    served = await start(commands=[{"command": "printenv * *", "variables": ["GREETING", "*"]}])
    body = {"command": "printenv JOB_ID GREETING", "environment": environment(GREETING="$(id) 'x'")}
    status, job = await api(served, "PUT", "/job", body)
    assert status == 200, job
    assert await served.ended(job["jobId"]) == "COMPLETED"
    _, log, _ = await served.ask("GET", f"{API}/job/result/{job['jobId']}/0")
    assert log == f"{job['jobId']}\n$(id) 'x'\n"
    assert job["parameters"]["command"] == "printenv JOB_ID GREETING"
    assert {"name": "GREETING", "value": "$(id) 'x'"} in job["parameters"]["environment"]
    for variable in ("LD_PRELOAD", "BASH_ENV", "PATH", "JOB_ID", "a b"):
        status, text = await api(
            served, "PUT", "/job", {"command": "printenv x y", "environment": environment(**{variable: "x"})}
        )
        assert (status, variable in text) == (400, True)
    for command in ("id; printenv x", "printenv x y z", "/tmp/printenv x y", "printenv -0 y"):
        assert (await api(served, "PUT", "/job", {"command": command}))[0] == 403
    assert (await api(served, "PUT", "/job", {"command": "printenv x y", "url": "https://x"}))[0] == 403


async def test_words_of_an_allowed_command_are_never_seen_by_a_shell(start):
    served = await start(commands=[{"command": "printf *"}])
    status, job = await api(served, "PUT", "/job", {"command": "printf 'x;{id}$(id)`id`'"})
    assert status == 200, job
    assert await served.ended(job["jobId"]) == "COMPLETED"
    assert (await served.ask("GET", f"{API}/job/result/{job['jobId']}/0"))[1] == "x;{id}$(id)`id`"


async def test_a_command_with_globs_that_needs_a_shell_is_refused_by_name(start):
    with pytest.raises(ConfigError, match="no shell runs it, but '&&'"):
        await start(commands=[{"command": "cd /x && bash *"}])


def repository(path) -> str:
    """Make a git repository with one script; return its commit."""
    path.mkdir()
    (path / "run.sh").write_text('echo "from $SRC_GIT_URL at $GIT_COMMIT_REF: $1"; ls $JOB_SOURCE_DIR\n')
    git = ["git", "-C", str(path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


async def test_a_command_line_can_use_a_repository(start, tmp_path):
    commit = repository(tmp_path / "repo")
    url = f"file://{tmp_path}/repo"
    served = await start(
        commands=[{"command": "cd $JOB_SOURCE_DIR && bash run.sh x", "url": url, "commit_ref": "*"}]
    )
    for ref in ("main", commit):
        body = {"command": "cd $JOB_SOURCE_DIR && bash run.sh x", "url": url, "commit_ref": ref}
        status, job = await api(served, "PUT", "/job", body)
        assert status == 200, job
        assert await served.ended(job["jobId"]) == "COMPLETED"
        _, log, _ = await served.ask("GET", f"{API}/job/result/{job['jobId']}/0")
        assert log == f"from {url} at {ref}: x\nrun.sh\n"


async def test_a_script_definition_runs_at_its_commit_and_a_lost_commit_is_said_so(start, tmp_path):
    commit = repository(tmp_path / "repo")
    definitions = [
        {
            "name": name,
            "kind": "script",
            "url": f"file://{tmp_path}/repo",
            "commit": hash,
            "argv": ["bash", "{source_dir}/run.sh", "{word}"],
            "parameters": {"word": {"default": "y"}},
        }
        for name, hash in {"script": commit, "lost": "0" * 40}.items()
    ]
    (tmp_path / "scripts.yaml").write_text(json.dumps({"definitions": definitions}))
    served = await start(definitions=[str(tmp_path / "scripts.yaml")])
    job = await served.create("script", run=True)
    assert await served.ended(job) == "COMPLETED"
    assert f"at {commit}: y" in (await served.ask("GET", f"{job}/results/ocps.log"))[1]
    job = await served.create("lost", run=True)
    assert await served.ended(job) == "ERROR"
    assert "could not be fetched" in (await served.ask("GET", f"{job}/error"))[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_id": "-x"}, "run_id"),
        ({"run_id": "x" * 64}, "run_id"),
        ({"replicas": 2}, "replicas"),
        ({"environment": [{"name": "a"}]}, "environment/0"),
        ({"environment": {"a": "b"}}, "environment/0"),
        ({"command": ""}, "command"),
        ({"command": 3, "url": 4}, "url"),
    ],
)
async def test_a_command_that_is_wrong_is_refused_in_words(served, change, words):
    status, text = await api(served, "PUT", "/job", COMMAND | change)
    assert (status, words in text) == (400, True), text


async def test_job_specs_of_the_prototype_load_as_they_are(start, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "ap_job.sh").write_text('echo "$AP_VISIT_ID/$AP_CCD_NUM"\n')
    (tmp_path / "jobs" / "job_specs.yaml").write_text(
        'type:\n  ap:\n    script: "jobs/ap_job.sh"\n    env:\n      - "AP_VISIT_ID"\n      - "AP_CCD_NUM"\n'
    )
    served = await start(definitions=[str(tmp_path / "jobs" / "job_specs.yaml")])
    body = {"type": "ap", "env": {"AP_VISIT_ID": 4, "AP_CCD_NUM": "1; id"}, "log_dir": "/nowhere"}
    status, job = await api(served, "POST", "/job", body)
    assert status == 200, job
    assert await served.ended(job["jobId"]) == "COMPLETED"
    assert (await served.ask("GET", f"{API}/job/result/{job['jobId']}/0"))[1] == "4/1; id\n"
    status, text = await api(served, "POST", "/job", {"type": "ap", "env": {"AP_X": 1}})
    assert status == 400
    for name in ("AP_X", "AP_VISIT_ID", "AP_CCD_NUM"):
        assert f"{name}: " in text


async def test_definitions_can_be_read(served):
    status, found = await api(served, "GET", "/definitions")
    assert status == 200
    sleep = next(entry for entry in found if entry["name"] == "sleep")
    parameters = {entry["name"]: entry for entry in sleep["parameters"]}
    assert parameters["duration"] | {"description": ""} == {
        "name": "duration",
        "type": "float",
        "unit": "s",
        "description": "",
        "default": "1",
        "min": 0,
        "max": 86400,
        "options": [],
        "required": False,
    }


# Progress that a job reports itself


async def test_a_job_reports_its_progress_with_its_own_token(start, tmp_path):
    report = tmp_path / "report.yaml"
    program = (
        "import json,os,urllib.request as u;"
        "r=u.Request(os.environ['JOB_EVENT_URL'],json.dumps({'message':'half','progress':{'done':1,'total':2}})"
        ".encode(),{'Authorization':'Bearer '+os.environ['JOB_EVENT_TOKEN']});u.urlopen(r);"
        "import time;time.sleep(3600)"
    )
    entry = {"name": "report", "kind": "command", "argv": ["{python}", "-I", "-c", "{program}"]}
    entry["parameters"] = {"program": {}}
    report.write_text(json.dumps({"definitions": [entry]}))
    served = await start(definitions=[str(report)], http={"port": free_port()})
    async with served.manager.subscribe(lambda job: job.progress.total == 2) as changes:
        job = await served.create("report", run=True, program=program)
        assert (await anext(aiter(changes))).message == "half"
    assert "1 of 2 quanta done" in (await served.ask("GET", job))[1]
    # The job may report before its supervisor has.
    await served.executing(job)
    assert (await served.ask("GET", f"{job}/phase"))[1] == "EXECUTING"


async def test_strangers_and_other_jobs_cannot_report(served):
    job = await served.create(run=True, duration="3600")
    await served.executing(job)
    job_id = job.rpartition("/")[2]
    from lsst.dm.OCPS.http.job_tokens import JobTokens

    key = JobTokens.of(served.manager.workspaces.work_dir)
    url = f"{API}/job/{job_id}/event"
    for token in ("", "x", key.token("0" * 32), "é"):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await served.ask("POST", url, json={"message": "m"}, headers=headers))[0] == 401
    assert (await served.ask("POST", url, json={"message": "m"}))[0] == 401
    headers = {"Authorization": f"Bearer {key.token(job_id)}"}
    for wrong in ({"phase": "completed"}, {"progress": {"done": -1}}, {"progress": 3}, {"message": 3}, []):
        assert (await served.ask("POST", url, json=wrong, headers=headers))[0] == 400
    assert (await served.ask("POST", url, json={"message": "m"}, headers=headers))[0] == 200
    await served.manager.abort(job_id)
    assert (await served.ask("POST", url, json={"message": "m"}, headers=headers))[0] == 403
