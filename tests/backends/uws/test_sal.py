# SPDX-License-Identifier: GPL-3.0-or-later
"""The CSC on a UWS server, configured with the files of today, driven over SAL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

salobj = pytest.importorskip("lsst.ts.salobj", reason="ts-salobj is not installed")

from lsst.dm.OCPS.testing import CscProcess, Script  # noqa: E402

from tests.backends.uws.standin import StandIn  # noqa: E402
from tests.generations import write_common_files  # noqa: E402
from tests.waiting import TIMEOUT  # noqa: E402

V4 = """
instances:
  - sal_index: 1
    instance: LATISS
    url: {url}
    poll_interval: 0.1
    butler: /repo/LATISS
    input_collection: LATISS/defaults,LATISS/raw/all
    output_glob: "*_metricvalue"
"""

OLDEST = """
url: {url}
poll_interval: 0.1
"""

WATCHED = V4 + "    fault_after: 0.5\n"


@pytest_asyncio.fixture
async def script(standin: StandIn, tmp_path: Path, bus: None) -> AsyncIterator[Script]:
    """A script connected to an OCPS in STANDBY that can be given each configuration."""
    texts = {"v4": V4, "oldest": OLDEST, "watched": WATCHED}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(url=standin.url))
    write_common_files(tmp_path)
    csc = CscProcess(
        "1",
        "--configdir",
        str(tmp_path),
        environment={"XDG_STATE_HOME": str(tmp_path / "state")},
        log=tmp_path / "csc.log",
    )
    async with csc, Script.connect() as connected:
        yield connected


async def test_job_and_abort_with_the_files_of_today(script: Script, standin: StandIn) -> None:
    await script.set_state(salobj.State.ENABLED, "v4.yaml")
    execution = await script.execute("$CP_PIPE_DIR/pipelines/bias.yaml", data_query="exposure=5")
    (kept,) = await standin.until(lambda: standin.of(execution.job_id))
    environment = {item["name"]: item["value"] for item in kept.body["environment"]}
    assert environment["RUN_OPTIONS"] == "-i LATISS/defaults,LATISS/raw/all"
    standin.end(execution.job_id)
    result = await execution.result()
    assert result["exit_code"] == 0
    assert result["phase"] == "completed"
    assert result["jobId"] == result["job_id"] == execution.job_id
    assert result["results"] == [{"id": 0, "uri": f"{standin.url}/job/result/{kept.id}/0"}]
    assert {"name": "PIPELINE_URL", "value": "$CP_PIPE_DIR/pipelines/bias.yaml"} in result["parameters"][
        "environment"
    ]
    assert (await execution.done()).ack == salobj.SalRetCode.CMD_COMPLETE

    execution = await script.execute("$CP_PIPE_DIR/pipelines/flat.yaml")
    await standin.until(lambda: standin.of(execution.job_id))
    script.remote.cmd_abort_job.set(job_id=execution.job_id)
    await script.remote.cmd_abort_job.start(timeout=TIMEOUT)
    result = await execution.result()
    assert (result["exit_code"], result["phase"]) == (255, "aborted")
    assert (await execution.done()).ack == salobj.SalRetCode.CMD_ABORTED
    assert not standin.of(execution.job_id)

    with pytest.raises(salobj.AckError, match="white space"):
        await script.execute("a.yaml", config="-c 'a:b=c d'")


async def test_server_decides_what_states_can_be_reached(script: Script, standin: StandIn) -> None:
    with pytest.raises(RuntimeError, match="cannot be reached"):
        await standin.stop()
        await script.set_state(salobj.State.DISABLED, "oldest.yaml")
    assert script.remote.evt_summaryState.get().summaryState == salobj.State.STANDBY
    await standin.start()
    await script.set_state(salobj.State.ENABLED, "oldest.yaml")
    await script.set_state(salobj.State.STANDBY)
    await script.set_state(salobj.State.ENABLED, "watched.yaml")
    script.remote.evt_errorCode.flush()
    await standin.stop()
    code = await script.remote.evt_errorCode.next(flush=False, timeout=TIMEOUT)
    assert code.errorCode == 1
    assert "unreachable" in code.errorReport
    states = script.remote.evt_summaryState
    while (await states.next(flush=False, timeout=TIMEOUT)).summaryState != salobj.State.FAULT:
        pass
