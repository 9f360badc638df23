# SPDX-License-Identifier: GPL-3.0-or-later
"""A UWS server that is well: what it is sent, and what is made of its answers."""

from __future__ import annotations

import pytest
from lsst.dm.OCPS.config import UwsConfig
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.uws.conftest import POLL, Engine, MakeEngine
from tests.backends.uws.standin import StandIn


async def test_job_runs_and_its_result_is_the_final_document(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit(data_query="instrument='LATISS' AND exposure=5")
    await engine.phase(job, "executing")
    (kept,) = standin.of(job.id)
    standin.end(
        job.id,
        files=[f"/uws/jobs/{kept.id}/out/ocps.log", f"/uws/jobs/{kept.id}/out/plots/a.png", "s3://b/c.fits"],
        info={"exitCode": 0, "metrics": [{"m": 1}], "fault": "no business of a server"},
    )
    job = await engine.end(job)
    assert job.phase == ExecutionPhase.COMPLETED
    assert job.handle == kept.id
    base = f"{standin.url}/job/result/{kept.id}"
    assert [(result.id, result.uri) for result in job.results] == [
        ("ocps.log", f"{base}/0"),
        ("plots/a.png", f"{base}/1"),
        ("c.fits", "s3://b/c.fits"),
    ]
    assert job.exit_code == 0
    assert job.info["exitCode"] == 0
    assert job.info["metrics"] == [{"m": 1}]
    assert "fault" not in job.info
    assert job.info["uws"]["jobId"] == kept.id
    assert job.info["uws"]["endTime"]


async def test_server_is_sent_what_the_script_there_expects(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit(
        version="w_2026_40",
        config="-i more,other isr:doBias=False -j 4",
        data_query="instrument='LATISS' AND exposure IN (1..3)",
        output_dataset_types="bias, *_plot",
    )
    await engine.phase(job, "executing")
    (kept,) = standin.of(job.id)
    environment = {item["name"]: item["value"] for item in kept.body.pop("environment")}
    assert kept.body == {
        "run_id": job.id,
        "command": "cd $JOB_SOURCE_DIR && bash bin/pipetask.sh",
        "url": "https://github.com/lsst-dm/uws_scripts",
        "commit_ref": "main",
    }
    assert environment == {
        "PIPELINE_URL": "$CP_PIPE_DIR/pipelines/bias.yaml",
        "BUTLER_REPO": "/repo/LATISS",
        "RUN_OPTIONS": "-i LATISS/defaults,more,other --config isr:doBias=False --processes 4",
        "OUTPUT_GLOB": "bias,*_plot",
        "DATA_QUERY": "instrument='LATISS' AND exposure IN (1..3)",
        "UWS_JOB_IMAGE_TAG": "w_2026_40",
        "EUPS_TAG": "w_2026_40",
    }


async def test_without_a_version_the_server_chooses(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    names = {item["name"] for item in standin.of(job.id)[0].body["environment"]}
    assert not names & {"UWS_JOB_IMAGE_TAG", "EUPS_TAG"}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"config": "-c 'a:b=c d'"}, "white space"),
        ({"config": "-c 'a:b=[1]'"}, r"\["),
        ({"config": "-i 'u/*'"}, r"\*"),
        ({"config": """-c 'a:b="c"'"""}, "quote"),
        ({"config": '''-c "a:b='c'"'''}, "quote"),
        ({"config": r"-c 'a:b=c\d'"}, "backslash"),
        ({"config": "-c 'a:b=$(HOME)'"}, r"\$\("),
        ({"data_query": 'instrument="LATISS"'}, "DATA_QUERY.*quote"),
        ({"data_query": "a=1\nAND b=2"}, "DATA_QUERY.*newline"),
        ({"data_query": "a=1 $(b)"}, "DATA_QUERY"),
        ({"version": 'w"1'}, "UWS_JOB_IMAGE_TAG"),
        ({"pipeline": "$$X/a.yaml"}, "PIPELINE_URL"),
        ({"pipeline": "a\u0085b.yaml"}, "pipeline"),
    ],
)
async def test_what_would_come_out_changed_is_refused(
    engine: Engine, standin: StandIn, parameters: dict[str, str], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        await engine.submit(**parameters)
    assert not standin.counts["PUT"]


async def test_a_trusted_server_is_sent_quoted_words(make_engine: MakeEngine, standin: StandIn) -> None:
    engine = await make_engine(uws=UwsConfig(trusted=True))
    job = await engine.submit(config="""-c 'a:b=[1, "*"]'""", data_query='band="r"\nAND visit=1')
    await engine.phase(job, "executing")
    environment = {item["name"]: item["value"] for item in standin.of(job.id)[0].body["environment"]}
    assert environment["RUN_OPTIONS"] == """-i LATISS/defaults --config 'a:b=[1, "*"]'"""
    assert environment["DATA_QUERY"] == 'band="r"\nAND visit=1'


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pending", "QUEUED"),
        ("queued", "QUEUED"),
        ("held", "QUEUED"),
        ("executing", "EXECUTING"),
        ("suspended", "SUSPENDED"),
        ("unknown", "UNKNOWN"),
        ("some-new-phase", "UNKNOWN"),
    ],
)
async def test_live_phases_of_the_server_are_shown(
    engine: Engine, standin: StandIn, theirs: str, ours: str
) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    standin.of(job.id)[0].phase = theirs
    await engine.phase(job, ours)
    # None of them is an end.
    standin.end(job.id)
    assert (await engine.end(job)).phase == ExecutionPhase.COMPLETED


async def test_failure_has_the_servers_words(engine: Engine, standin: StandIn) -> None:
    first, second = await engine.submit(), await engine.submit()
    for job in (first, second):
        await engine.phase(job, "executing")
    standin.end(first.id, "error", message="pipetask: no data", info={"exitCode": 2})
    standin.end(second.id, "error")
    first, second = await engine.end(first), await engine.end(second)
    assert first.phase == second.phase == ExecutionPhase.ERROR
    assert first.error is not None
    assert first.error.message == "pipetask: no data"
    assert first.exit_code == 2
    # Servers of today give none: at least say where to look.
    assert second.error is not None
    assert f"/job/result/{second.handle}/0" in second.error.message


async def test_job_that_ends_before_it_is_first_asked_for(engine: Engine, standin: StandIn) -> None:
    standin.duration = 1e-6
    job = await engine.end(await engine.submit())
    assert job.phase == ExecutionPhase.COMPLETED
    assert job.results


async def test_job_aborted_by_somebody_else(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    standin.end(job.id, "aborted")
    assert (await engine.end(job)).phase == ExecutionPhase.ABORTED


async def test_a_handful_is_asked_for_one_by_one(engine: Engine, standin: StandIn) -> None:
    jobs = [await engine.submit() for _ in range(8)]
    for job in jobs:
        await engine.phase(job, "executing")
    standin.requests.clear()
    await standin.asked("GET", 16)
    assert not [request for request in standin.requests if request.startswith("GET /api/v1/job?")]


async def test_many_are_asked_for_with_one_list(engine: Engine, standin: StandIn) -> None:
    jobs = [await engine.submit() for _ in range(30)]
    for job in jobs:
        await engine.phase(job, "executing")
    standin.requests.clear()
    await standin.asked("GET", 3)
    # One list of all phases if the answers come slowly.
    assert {request.partition("?")[0] for request in standin.requests} == {"GET /api/v1/job"}
    for job in jobs[:5]:
        standin.end(job.id)
    for job in jobs[:5]:
        # Their final documents are asked for one by one.
        ended = await engine.end(job)
        assert ended.phase == ExecutionPhase.COMPLETED
        assert ended.results
        assert f"GET /api/v1/job/{ended.handle}" in standin.requests
    assert len(engine.manager.live()) == 25


async def test_many_that_end_at_once_are_asked_for_with_lists(engine: Engine, standin: StandIn) -> None:
    jobs = [await engine.submit() for _ in range(30)]
    for job in jobs:
        await engine.phase(job, "executing")
    for number, job in enumerate(jobs):
        standin.end(job.id, "completed" if number % 2 else "error", message="so it is")
    standin.requests.clear()
    ended = [await engine.end(job) for job in jobs]
    assert [job.phase for job in ended] == [ExecutionPhase.ERROR, ExecutionPhase.COMPLETED] * 15
    assert all(job.results for job in ended)
    assert {request.partition("?")[0] for request in standin.requests} == {"GET /api/v1/job"}


async def test_slow_server_is_asked_for_everything_at_once_and_not_before_it_has_answered(
    engine: Engine, standin: StandIn
) -> None:
    jobs = [await engine.submit() for _ in range(12)]
    for job in jobs:
        await engine.phase(job, "executing")
    standin.delay = 6 * POLL
    await standin.asked("GET", 2)
    standin.requests.clear()
    await standin.asked("GET", 4)
    assert standin.requests == ["GET /api/v1/job"] * 4
    assert standin.most_at_once["GET"] == 1
    for job in jobs:
        standin.end(job.id)
    for job in jobs:
        assert (await engine.end(job)).results


async def test_idle_server_is_left_alone(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    standin.end(job.id)
    await engine.phase(job, "executing", "completed")
    standin.end(job.id)
    await engine.end(job)
    before = standin.counts["GET"]
    with pytest.raises(TimeoutError):
        await standin.until(lambda: standin.counts["GET"] > before, timeout=6 * POLL)
