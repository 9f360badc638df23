# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on real batch systems: the same promises as on the local pool, whatever is killed when."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.factory import check_config
from lsst.dm.OCPS.jobs.errors import BackendError
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest

from tests.backends.batch.harness import Cluster, Engine, configure, open_engine
from tests.conftest import ROOT, find_service
from tests.waiting import until, until_job

Phase = ExecutionPhase

LOG = logging.getLogger("batch")


def wait_for(file: Path) -> str:
    """Return a script that waits until a file is there."""
    return f"while [ ! -e {file} ]; do sleep 0.05; done"


def executing(job: Job) -> bool:
    return job.phase == Phase.EXECUTING


async def started(engine: Engine, job: Job) -> Job:
    return await until_job(engine.manager, job.id, executing)


# How a job ends


async def test_a_job_succeeds_with_its_log_and_its_results(engine: Engine) -> None:
    job = await engine.run('echo hello; echo 42 > "$JOB_OUTPUT_DIR/answer.txt"')
    assert (job.phase, job.exit_code, job.message) == (Phase.COMPLETED, 0, "")
    assert [result.id for result in job.results] == ["ocps.log", "answer.txt"]
    assert job.info["logTail"] == ["hello"]
    assert job.start_time is not None


async def test_a_job_knows_what_the_batch_system_gave_it_and_none_of_our_secrets(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCPS_SECRET", "hunter2")
    async with open_engine(configure(cluster, tmp_path)) as engine:
        job = await engine.run("env | sort")
    names = {
        line.partition("=")[0] for line in engine.manager.workspaces.of(job.id).log.read_text().splitlines()
    }
    assert {"JOB_ID", "JOB_OUTPUT_DIR", "SLURM_JOB_ID"} <= names
    assert "OCPS_SECRET" not in names


async def test_jobs_that_fail_say_how(engine: Engine) -> None:
    cases = [
        ("exit 7", 7, "ended with exit code 7"),
        ("kill -SEGV $$", -signal.SIGSEGV, "crashed (SIGSEGV)"),
        ("kill -KILL $$", -signal.SIGKILL, "killed (SIGKILL)"),
        ("exec no-such-program", 127, "exit code 127"),
    ]
    jobs = await asyncio.gather(*(engine.run(script) for script, _, _ in cases))
    for job, (_, code, words) in zip(jobs, cases, strict=True):
        assert (job.phase, job.exit_code) == (Phase.ERROR, code)
        assert words in job.error.message


async def test_a_job_is_run_again_as_its_definition_says(engine: Engine, tmp_path: Path) -> None:
    job = await engine.run(
        f"[ -e {tmp_path}/first ] || {{ touch {tmp_path}/first; exit 75; }}; echo second", "again"
    )
    assert (job.phase, job.attempt) == (Phase.COMPLETED, 2)
    assert job.info["logTail"] == ["second"]


async def test_a_job_that_needs_too_much_memory_fails_alone(cluster: Cluster, tmp_path: Path) -> None:
    config = configure(cluster, tmp_path, limits={"memory": 512 * 2**20})
    async with open_engine(config) as engine:
        job = await engine.run(f"exec {sys.executable} -c 'bytearray(2**30)'")
        assert (job.phase, job.exit_code) == (Phase.ERROR, 1)
        assert "MemoryError" in job.error.message
        assert (await engine.run("true")).phase == Phase.COMPLETED


async def test_a_job_that_runs_too_long_is_stopped(engine: Engine) -> None:
    job = await engine.run("sleep 3600", execution_duration=1)
    assert job.phase == Phase.ERROR
    assert "ran longer than its limit of 1 s" in job.error.message


async def test_a_supervisor_that_is_killed_takes_its_job_with_it(engine: Engine, tmp_path: Path) -> None:
    # The supervisor is the parent of a step.
    job = await engine.run(f"echo $$ > {tmp_path}/pid; kill -9 $PPID; sleep 3600")
    assert job.phase == Phase.ERROR
    assert "how it ended is not known" in job.error.message
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_a_node_that_cannot_run_the_supervisor_is_named(cluster: Cluster, tmp_path: Path) -> None:
    settings = {**cluster.settings(), "python": "/no/such/python"}
    async with open_engine(configure(cluster, tmp_path, backend_settings=settings)) as engine:
        job = await engine.run("true")
    assert job.phase == Phase.ERROR
    assert f"{cluster.name} could not start it (exit code 127)" in job.error.message
    assert "/no/such/python" in job.error.message


async def test_a_job_whose_node_fails_may_be_tried_again(
    cluster: Cluster, engine: Engine, tmp_path: Path
) -> None:
    job = await started(engine, await engine.submit("sleep 3600"))
    cluster.fail_node()
    try:
        job = await engine.end(job.id)
    finally:
        cluster.mend_node()
    assert job.phase == Phase.ERROR
    assert job.error.message == f"{cluster.name}: its node failed"
    assert job.error.transient


# What is refused


async def test_what_the_batch_system_refuses_is_told(cluster: Cluster, tmp_path: Path) -> None:
    config = configure(cluster, tmp_path, backend_settings={**cluster.settings(), "partition": "none"})
    with pytest.raises(BackendError, match="invalid partition specified: none"):
        await check_config(config, LOG)
    async with open_engine(config) as engine:
        job = await engine.run("true")
    assert job.phase == Phase.ERROR
    assert "could not be started" in job.error.message
    assert "invalid partition" in job.error.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partitoin": "main"}, "at backend_settings/partitoin: Extra inputs are not permitted"),
        ({"cpus": 0}, "at backend_settings/cpus: Input should be greater than or equal to 1"),
        ({"options": ["-p main"]}, "at backend_settings/options/0: String should match"),
    ],
)
async def test_settings_are_checked(cluster: Cluster, tmp_path: Path, settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        await check_config(configure(cluster, tmp_path, backend_settings=settings), LOG)


async def test_a_cluster_that_would_accept_a_job_passes_the_check(cluster: Cluster, tmp_path: Path) -> None:
    await check_config(configure(cluster, tmp_path), LOG)


# Stopping


async def test_a_pending_job_says_why_and_can_be_aborted(cluster: Cluster, tmp_path: Path) -> None:
    async with open_engine(configure(cluster, tmp_path, backend_settings=cluster.held())) as engine:
        job = await engine.submit("true")
        job = await until_job(engine.manager, job.id, lambda job: "JobHeldUser" in job.message)
        assert job.phase == Phase.QUEUED
        job = await engine.manager.abort(job.id)
        assert (job.phase, job.message) == (Phase.ABORTED, job.abort_reason)
        (number,) = cluster.numbers(job.id)
        assert cluster.state(number) == "CANCELLED"


async def test_a_running_job_is_aborted_with_all_of_its_processes(engine: Engine, tmp_path: Path) -> None:
    script = f"sleep 3600 & echo $! > {tmp_path}/child; setsid sleep 3600 & echo $! > {tmp_path}/other; wait"
    job = await engine.submit(script)
    await until(lambda: (tmp_path / "other").exists() and (tmp_path / "other").read_text())
    job = await engine.manager.abort(job.id)
    assert job.phase == Phase.ABORTED
    for name in ("child", "other"):
        pid = int((tmp_path / name).read_text())
        await until(lambda pid=pid: not Path(f"/proc/{pid}").exists())


async def test_a_job_that_ignores_the_signal_is_killed(engine: Engine, tmp_path: Path) -> None:
    job = await engine.submit(f"trap '' TERM; touch {tmp_path}/ready; while :; do sleep 0.1; done")
    await until((tmp_path / "ready").exists)
    assert (await engine.manager.abort(job.id)).phase == Phase.ABORTED


async def test_a_job_that_somebody_cancels_in_the_batch_system_is_aborted(
    cluster: Cluster, engine: Engine
) -> None:
    job = await started(engine, await engine.submit("sleep 3600"))
    (number,) = cluster.numbers(job.id)
    cluster.cancel(number)
    job = await engine.end(job.id)
    assert (job.phase, job.message) == (Phase.ABORTED, "stopped by something other than OCPS")


# When the controller is away


async def test_a_controller_that_is_killed_and_comes_back_harms_no_job(
    cluster: Cluster, engine: Engine, tmp_path: Path
) -> None:
    """Jobs that run end in truth; those asked for meanwhile are submitted later, once; none is an ERROR."""
    ends, stays = tmp_path / "ends", tmp_path / "stays"
    first = await started(engine, await engine.submit(f"{wait_for(ends)}; exit 7"))
    second = await started(engine, await engine.submit(wait_for(stays)))
    cluster.kill_controller()
    try:
        seen = await until_job(engine.manager, second.id, lambda job: job.phase == Phase.UNKNOWN)
        assert f"{cluster.name} does not answer" in seen.message
        assert engine.manager.lane.backend.unreachable_since is not None
        # What the files tell needs no controller.
        ends.touch()
        first = await engine.end(first.id)
        assert (first.phase, first.exit_code) == (Phase.ERROR, 7)
        third = await engine.submit(f"echo ran >> {tmp_path}/runs")
        third = await until_job(engine.manager, third.id, lambda job: "does not answer" in job.message)
        assert third.phase == Phase.QUEUED
        fourth = await engine.submit("true")
        await until_job(engine.manager, fourth.id, lambda job: "does not answer" in job.message)
        assert (await engine.manager.abort(fourth.id)).phase == Phase.ABORTED
    finally:
        cluster.start_controller()
    await started(engine, second)
    stays.touch()
    assert (await engine.end(second.id)).phase == Phase.COMPLETED
    assert (await engine.end(third.id)).phase == Phase.COMPLETED
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert cluster.numbers(fourth.id) == []
    assert engine.manager.lane.backend.unreachable_since is None


async def test_a_controller_that_has_lost_its_jobs_gets_the_pending_ones_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Those that the records do not show as ended, and that nothing has claimed, run once."""
    async with open_engine(configure(cluster, tmp_path, backend_settings=cluster.held())) as engine:
        job = await engine.submit(f"echo ran >> {tmp_path}/runs")
        await until_job(engine.manager, job.id, lambda job: "JobHeldUser" in job.message)
        config = configure(cluster, tmp_path, backend_settings=cluster.held())
    cluster.lose_jobs()
    cluster.start_controller()
    assert cluster.numbers(job.id) == []
    async with open_engine(config) as engine:
        (number,) = await until(lambda: cluster.numbers(job.id))
        cluster.run("scontrol", "release", number)  # type: ignore[attr-defined]
        assert (await engine.end(job.id)).phase == Phase.COMPLETED
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_an_end_that_the_controller_has_lost_is_found_in_its_records(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = configure(cluster, tmp_path, backend_settings=cluster.held())
    async with open_engine(config) as engine:
        job = await engine.submit("true")
        await until_job(engine.manager, job.id, lambda job: "JobHeldUser" in job.message)
    (number,) = cluster.numbers(job.id)
    cluster.cancel(number)
    await until(lambda: cluster.state(number) == "CANCELLED")
    cluster.lose_jobs()
    cluster.start_controller()
    async with open_engine(config) as engine:
        assert (await engine.end(job.id)).phase == Phase.ABORTED


async def test_a_lost_job_without_records_is_unknown_and_can_be_aborted(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = {**cluster.held(), "completed_jobs": ""}
    async with open_engine(configure(cluster, tmp_path, backend_settings=settings)) as engine:
        job = await engine.submit("true")
        await until_job(engine.manager, job.id, lambda job: "JobHeldUser" in job.message)
        cluster.lose_jobs()
        cluster.start_controller()
        job = await until_job(engine.manager, job.id, lambda job: "does not know its job" in job.message)
        assert job.phase == Phase.UNKNOWN
        assert (await engine.manager.abort(job.id)).phase == Phase.ABORTED


# When OCPS is killed


class OcpsProcess:
    """An OCPS of its own that has submitted a job."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.job_id = ""

    @classmethod
    async def start(cls, config: Any, script: str, path: str = "") -> OcpsProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.backends.batch.harness",
            config.model_dump_json(),
            script,
            cwd=ROOT,
            env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]},
            stdout=asyncio.subprocess.PIPE,
        )
        made = cls(process)
        made.job_id = (await made.line()).strip()
        return made

    async def line(self) -> str:
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        assert line, "it has ended"
        return line

    async def until(self, phase: Phase) -> None:
        while not (await self.line()).startswith(phase):
            pass

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_ocps_is_killed_around_the_submission(cluster: Cluster, tmp_path: Path, when: str) -> None:
    """Before sbatch has asked the controller, and after it, when its answer has not been stored."""
    programs = tmp_path / "programs"
    programs.mkdir()
    real, told = find_service("sbatch"), tmp_path / "told"
    stop = f"echo $$ > {told}.new; mv {told}.new {told}; exec sleep 3600"
    steps = [stop] if when == "before" else [f'{real} "$@" > {tmp_path}/number', stop]
    (programs / "sbatch").write_text("#!/bin/sh\n" + "\n".join(steps) + "\n")
    (programs / "sbatch").chmod(0o755)
    config = configure(cluster, tmp_path)
    ocps = await OcpsProcess.start(config, f"echo ran >> {tmp_path}/runs; exit 7", str(programs))
    await until(told.exists)
    await ocps.kill()
    os.kill(int(told.read_text()), signal.SIGKILL)
    assert len(cluster.numbers(ocps.job_id)) == (0 if when == "before" else 1)
    async with open_engine(config) as engine:
        job = await engine.end(ocps.job_id)
    assert (job.phase, job.exit_code) == (Phase.ERROR, 7)
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert len(cluster.numbers(ocps.job_id)) == 1


async def test_ocps_is_killed_while_its_job_runs(cluster: Cluster, tmp_path: Path) -> None:
    config = configure(cluster, tmp_path)
    ocps = await OcpsProcess.start(
        config, f"echo ran >> {tmp_path}/runs; {wait_for(tmp_path / 'go')}; exit 7"
    )
    await ocps.until(Phase.EXECUTING)
    await ocps.kill()
    async with open_engine(config) as engine:
        assert (await engine.manager.get(ocps.job_id)).phase == Phase.EXECUTING
        (tmp_path / "go").touch()
        job = await engine.end(ocps.job_id)
    assert (job.phase, job.exit_code) == (Phase.ERROR, 7)
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_a_job_ends_while_ocps_is_down(cluster: Cluster, tmp_path: Path) -> None:
    config = configure(cluster, tmp_path)
    ocps = await OcpsProcess.start(config, f"{wait_for(tmp_path / 'go')}; echo done")
    await ocps.until(Phase.EXECUTING)
    await ocps.kill()
    (tmp_path / "go").touch()
    (number,) = cluster.numbers(ocps.job_id)
    await until(lambda: cluster.state(number) == "COMPLETED")
    # Long after, the controller knows nothing of it any more.
    cluster.lose_jobs()
    cluster.start_controller()
    async with open_engine(config) as engine:
        job = await engine.end(ocps.job_id)
    assert (job.phase, job.exit_code, job.info["logTail"]) == (Phase.COMPLETED, 0, ["done"])


# Many, and others'


async def test_two_hundred_jobs_at_once_each_have_their_own_end(
    cluster: Cluster, engine: Engine, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    jobs = await asyncio.gather(*(engine.submit(f"echo {n} >> {runs}; exit {n % 4}") for n in range(200)))
    ended = await asyncio.gather(*(engine.end(job.id) for job in jobs))
    assert [job.exit_code for job in ended] == [n % 4 for n in range(200)]
    assert sorted(runs.read_text().split()) == sorted(str(n) for n in range(200))


async def test_jobs_of_others_are_left_alone(cluster: Cluster, engine: Engine) -> None:
    other = "0123456789abcdef0123456789abcdef"
    foreign = [
        cluster.submit("sleep 3600"),
        cluster.submit("sleep 3600", f"--comment=ocps:{other}", f"--job-name=ocps-{other}"),
    ]
    try:
        job = await started(engine, await engine.submit("sleep 3600"))
        assert (await engine.manager.abort(job.id)).phase == Phase.ABORTED
        assert (await engine.run("true")).phase == Phase.COMPLETED
        assert [cluster.state(number) for number in foreign] == ["RUNNING", "RUNNING"]
    finally:
        for number in foreign:
            cluster.cancel(number)


async def test_a_pipeline_has_progress_metrics_and_a_picture(
    cluster: Cluster, tmp_path: Path, repo: Path
) -> None:
    config = configure(cluster, tmp_path, butler=str(repo), input_collection="DemoCam/raw/all")
    async with open_engine(config) as engine:
        parameters = {
            "pipeline": "$DEMOCAM_DIR/pipelines/bias.yaml",
            "data_query": "exposure.observation_type='bias'",
            "config": "--register-dataset-types",
        }
        job = await engine.manager.submit(JobRequest("pipetask", parameters))
        job = await engine.end(job.id)
    assert job.phase == Phase.COMPLETED, job.error
    assert job.progress.total == job.progress.done > 0
    assert "biasMetrics" in str(job.info["metrics"])
    assert any(result.mime_type == "image/png" for result in job.results)
