# SPDX-License-Identifier: GPL-3.0-or-later
"""Real pipelines on a real Butler, commanded over SAL."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from lsst.dm.OCPS.script import Ocps, RefusedError
from lsst.ts import salobj

from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Ack = salobj.SalRetCode
PIPELINES = "$DEMOCAM_DIR/pipelines"
BIAS = "instrument='DemoCam' AND exposure.observation_type='bias'"
REGISTER = "--register-dataset-types"


def path_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


async def refusal(script, **fields: str) -> str:
    """Return the text with which an execute is refused."""
    with pytest.raises(salobj.AckError) as caught:
        await script.execute(**fields)
    assert caught.value.ackcmd.ack == Ack.CMD_FAILED
    text = caught.value.ackcmd.result
    assert "\n" not in text
    assert "Traceback" not in text
    return text


async def test_bias_completes_with_its_outputs_and_metrics(local, repo):
    execution = await local.execute(f"{PIPELINES}/bias.yaml", data_query=BIAS, config=REGISTER)
    assert (await execution.done()).ack == Ack.CMD_COMPLETE
    result = await execution.result()
    assert (result["exit_code"], result["phase"]) == (0, "completed")
    names = [path_of(item["uri"]).name for item in result["results"]]
    assert names[0] == "ocps.log"
    assert sum(name.endswith(".fits") for name in names) == 2
    assert sum(name.endswith(".png") for name in names) == 1
    assert all(path_of(item["uri"]).stat().st_size > 0 for item in result["results"])
    assert [item["id"] for item in result["results"]] == list(range(len(names)))
    assert not any("_butler" in name for name in names)
    info = result["jobInfo"]
    assert info["exitCode"] == 0
    assert info["progress"] == {"done": 11, "failed": 0, "total": 11}
    metrics = {item["dataId"]["detector"]: item for item in info["metrics"]}
    assert set(metrics) == {0, 1}
    assert metrics[0]["datasetType"] == "biasMetrics"
    assert metrics[0]["values"]["n_exposures"] == 4
    collections = subprocess.run(
        ["butler", "query-collections", str(repo), f"u/ocps/{execution.job_id}*"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"u/ocps/{execution.job_id}/run" in collections


async def test_check_counts_the_quanta_of_each_task(local):
    async with Ocps.connect() as ocps:
        query = "instrument='DemoCam' AND exposure.observation_type='bias'"
        found = await ocps.check("$DEMOCAM_DIR/pipelines/bias.yaml", data_query=query, timeout=TIMEOUT)
        assert found.quanta == sum(found.tasks.values()) > 0
        with pytest.raises(RefusedError, match="The job would fail: no data matched: exposure=999"):
            await ocps.check("$DEMOCAM_DIR/pipelines/bias.yaml", data_query="exposure=999", timeout=TIMEOUT)
        # The data query of the command before is not that of this one.
        assert (await ocps.check("$DEMOCAM_DIR/pipelines/bias.yaml", timeout=TIMEOUT)).quanta
        with pytest.raises(RefusedError, match="no such file"):
            await ocps.check("$DEMOCAM_DIR/pipelines/nosuch.yaml", timeout=TIMEOUT)
    assert not [folder for folder in (local.work / "jobs").iterdir() if "dry-run" in folder.name]


async def test_environment_of_the_result_is_what_was_asked_for(local, repo):
    execution = await local.execute(
        f"{PIPELINES}/oneQuantum.yaml", config=REGISTER, output_dataset_types="oneQuantumMetrics, noSuchType"
    )
    await execution.done()
    result = await execution.result()
    values = {item["name"]: item["value"] for item in result["parameters"]["environment"]}
    assert values == {
        "PIPELINE_URL": f"{PIPELINES}/oneQuantum.yaml",
        "BUTLER_REPO": str(repo),
        "DATA_QUERY": "",
        "RUN_OPTIONS": REGISTER,
        "OUTPUT_GLOB": "oneQuantumMetrics,noSuchType",
    }
    assert any("oneQuantumMetrics" in item["uri"] for item in result["results"])


async def test_a_failing_pipeline_ends_in_words_and_not_in_fault(local):
    execution = await local.execute(f"{PIPELINES}/broken.yaml", data_query=BIAS, config=REGISTER)
    assert (await execution.done()).ack == Ack.CMD_COMPLETE
    result = await execution.result()
    assert (result["exit_code"], result["phase"]) == (1, "error")
    message = result["errorSummary"]["message"]
    assert message.startswith("4 of 8 quanta failed; task broken failed on instrument=DemoCam, detector=1")
    assert "ValueError: Detector 1 of exposure" in message
    assert result["jobInfo"]["exitCode"] == 1
    assert result["jobInfo"]["tasks"] == {"broken": {"success": 4, "failure": 4}}
    assert path_of(result["results"][0]["uri"]).name == "ocps.log"
    assert await local.wait_for_csc() == salobj.State.ENABLED


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data_query": "exposure.observation_type='none'"}, "no data matched: exposure.observation_type="),
        ({"data_query": "nonsense = 1"}, "the data query is wrong: Unrecognized identifier 'nonsense'"),
        ({"data_query": "exposure = = 3"}, "the data query is wrong"),
        ({"config": "-i no/such/collection"}, "a collection is missing: No collection with name 'no/such/"),
        ({"config": "-c isr:noSuchField=1"}, "noSuchField"),
    ],
)
async def test_why_it_failed_is_said_in_words(local, fields, words):
    execution = await local.execute(f"{PIPELINES}/bias.yaml", **fields)
    await execution.done()
    result = await execution.result()
    assert result["exit_code"] == 1
    assert words in result["errorSummary"]["message"]


async def test_abort_job_kills_what_runs_and_keeps_its_log(local):
    execution = await local.execute(
        f"{PIPELINES}/slow.yaml", data_query=BIAS, config=f"{REGISTER} -c slow:duration=3600"
    )
    log = local.work / "jobs" / execution.job_id / "output" / "ocps.log"
    await until(lambda: log.exists() and "Preparing execution" in log.read_text())
    group = json.loads((local.work / "engine" / execution.job_id / "group.json").read_text())["pid"]
    await local.remote.cmd_abort_job.set_start(job_id=execution.job_id, timeout=TIMEOUT)
    assert (await execution.done()).ack == Ack.CMD_ABORTED
    result = await execution.result()
    assert (result["exit_code"], result["phase"]) == (255, "aborted")
    assert log.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


async def test_three_run_at_once(local):
    executions = [await local.execute(f"{PIPELINES}/oneQuantum.yaml", config=REGISTER) for _ in range(3)]
    for execution in executions:
        assert (await execution.done()).ack == Ack.CMD_COMPLETE
        result = await execution.result()
        assert (result["exit_code"], result["jobId"]) == (0, execution.job_id)


async def test_a_job_waits_for_its_prerequisites(local):
    first = await local.execute(f"{PIPELINES}/oneQuantum.yaml", config=REGISTER)
    second = await local.execute(
        f"{PIPELINES}/oneQuantum.yaml", config=REGISTER, prereq_jobs=f" {first.job_id} , "
    )
    await second.done()
    ends = [(await execution.result())["endTime"] for execution in (first, second)]
    starts = (await second.result())["startTime"]
    assert ends[0] <= starts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pipeline": ""}, "pipeline is empty"),
        ({"pipeline": "/no/such/pipeline.yaml"}, "there is no such file"),
        ({"pipeline": "$NO_SUCH_DIR/a.yaml"}, "variable NO_SUCH_DIR is not set"),
        ({"pipeline": "https://example.org/a.yaml"}, "https:// is not supported"),
        ({"pipeline": "-p"}, "is not a file name"),
        ({"version": "w_1999_01"}, "no environment 'w_1999_01'; there are: default"),
        ({"config": "--pdb"}, "option --pdb is not for a job"),
        ({"config": "-b /other/repo"}, "the Butler is set in the configuration"),
        ({"config": "-o u/me"}, "outputs go to u/ocps/"),
        ({"config": "--no-such-option"}, "option --no-such-option is not allowed"),
        ({"config": "-j many"}, "needs a whole number"),
        ({"config": "'unclosed"}, "No closing quotation"),
        ({"prereq_jobs": "nobody"}, "no such job: 'nobody'"),
    ],
)
async def test_bad_input_is_refused_whole(local, fields, words):
    before = sorted((local.work / "jobs").iterdir())
    text = await refusal(local, **({"pipeline": f"{PIPELINES}/oneQuantum.yaml"} | fields))
    assert words in text
    assert sorted((local.work / "jobs").iterdir()) == before
