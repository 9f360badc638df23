# SPDX-License-Identifier: GPL-3.0-or-later
"""The helper of observing scripts: one await runs a job."""

from __future__ import annotations

import asyncio
import types

import pytest
import pytest_asyncio
from lsst.dm.OCPS.script import (
    JobFailedError,
    JobResult,
    Ocps,
    OcpsError,
    RefusedError,
    UnavailableError,
)
from lsst.dm.OCPS.testing import CscProcess, private_bus
from lsst.ts import salobj

from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_run_returns_the_typed_result(simulated):
    async with Ocps.connect() as ocps:
        result = await ocps.run("true.yaml", timeout=TIMEOUT)
        assert isinstance(result, JobResult)
        assert result.completed
        assert (result.phase, result.exit_code, result.message) == ("completed", 0, "")
        assert result.job_id.startswith("true.yaml")
        assert result.document["result"] is True
        result.raise_for_failure()


async def test_several_at_once_get_each_its_own_result(simulated):
    async with Ocps.connect() as ocps:
        names = ["true.yaml", "false.yaml"] * 10
        results = await asyncio.gather(*(ocps.run(name, timeout=TIMEOUT) for name in names))
        assert [result.document["result"] for result in results] == [True, False] * 10
        assert len({result.job_id for result in results}) == len(names)


async def test_a_check_runs_nothing(simulated):
    async with Ocps.connect() as ocps:

        def ids():
            return [data.job_id for data in simulated.job_ids]

        # With the latest job's id, those of all jobs before it have been heard.
        latest = await ocps.run("true.yaml", timeout=TIMEOUT)
        await until(lambda: latest.job_id in ids())
        before = len(ids())
        found = await ocps.check("true.yaml", timeout=TIMEOUT)
        assert (found.quanta, found.tasks, found.argv, found.more) == (None, {}, (), 0)
        assert found.checked.startswith("the request")
        with pytest.raises(RefusedError, match=r"true\.yaml, false\.yaml, fault\.yaml") as tried:
            await ocps.check("other.yaml")
        with pytest.raises(RefusedError) as submitted:
            await ocps.run("other.yaml")
        assert str(tried.value) == str(submitted.value)
        result = await ocps.run("true.yaml", timeout=TIMEOUT)
        await until(lambda: result.job_id in ids()[before:])
        assert ids()[before:] == [result.job_id]


async def test_a_refusal_says_why(simulated):
    async with Ocps.connect() as ocps:
        with pytest.raises(RefusedError, match=r"true\.yaml, false\.yaml, fault\.yaml"):
            await ocps.run("other.yaml")
        with pytest.raises(RefusedError, match="No such job: 'nosuch'"):
            await ocps.abort("nosuch")


async def test_other_users_of_the_remote_miss_nothing(simulated):
    """The helper takes no message from another remote of the same domain, and sets none of its fields."""
    async with salobj.Domain() as domain, salobj.Remote(domain, "OCPS", 1) as remote:
        remote.cmd_execute.set(pipeline="mine", config="mine")
        async with Ocps(domain) as ocps:
            results = [await ocps.run("true.yaml", timeout=TIMEOUT) for _ in range(3)]
        heard = []
        while len(heard) < 3:
            data = await remote.evt_job_result.next(flush=False, timeout=TIMEOUT)
            # An older event may be there from before.
            heard += [data.job_id] if data.job_id in {result.job_id for result in results} else []
        assert heard == [result.job_id for result in results]
        assert (remote.cmd_execute.data.pipeline, remote.cmd_execute.data.config) == ("mine", "mine")


async def test_an_ocps_that_is_not_enabled_is_named_with_its_state(simulated):
    await simulated.set_state(salobj.State.DISABLED)
    try:
        async with Ocps.connect() as ocps:
            with pytest.raises(UnavailableError, match="OCPS:1 is in state DISABLED"):
                await ocps.run("true.yaml")
    finally:
        await simulated.set_state(salobj.State.ENABLED)


async def test_an_ocps_that_is_not_there_is_named(simulated):
    async with Ocps.connect(index=3) as ocps:
        with pytest.raises(UnavailableError, match=r"OCPS:3 is not running: not heard for 0\.5 s"):
            await ocps.assert_enabled(timeout=0.5)


def event(job_id="a", text="{}", code=0):
    return types.SimpleNamespace(job_id=job_id, result=text, exit_code=code)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"phase": "error", "results": [1]}'])
async def test_a_result_that_cannot_be_understood_is_an_error_in_words(text):
    with pytest.raises(ValueError, match="the result of job 'a' cannot be understood"):
        JobResult.from_event(event(text=text))


async def test_metrics_and_outputs_are_typed():
    text = """{"phase": "error", "errorSummary": {"message": "why"},
      "results": [{"id": 0, "uri": "file:///a%20b/ocps.log"}, {"id": 1, "uri": "s3://bucket/x.fits"}],
      "jobInfo": {"metrics": [{"datasetType": "m", "dataId": {"detector": 1}, "values": {"v": 2.5}}]}}"""
    result = JobResult.from_event(event(text=text, code=1))
    log, other = result.outputs
    assert (log.name, str(log.path)) == ("ocps.log", "/a b/ocps.log")
    with pytest.raises(ValueError, match="s3://bucket"):
        _ = other.path
    assert result.metric("m") == {"v": 2.5}
    with pytest.raises(LookupError, match="no metrics n"):
        result.metric("n")
    with pytest.raises(JobFailedError, match="Job a failed: why") as caught:
        result.raise_for_failure()
    assert caught.value.result is result


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(tmp_path_factory):
    """A simulating OCPS of its own bus whose jobs go on until they are aborted."""
    private_bus()
    arguments = ("1", "--simulate", "--state", "enabled", "--simulation-duration", "3600")
    log = tmp_path_factory.mktemp("slow") / "csc.log"
    async with CscProcess(*arguments, log=log) as csc, Ocps.connect() as ocps:
        state = ocps.remote.evt_summaryState
        # It may still be on its way to ENABLED.
        await until(lambda: state.has_data and state.get().summaryState == salobj.State.ENABLED, TIMEOUT)
        ocps.csc = csc
        yield ocps


async def test_a_job_can_be_submitted_watched_and_aborted(slow):
    job = await slow.submit("true.yaml")
    with pytest.raises(TimeoutError, match=f"{job.id} has not ended within 0.1 s"):
        await job.result(timeout=0.1)
    await job.abort()
    result = await job.result(TIMEOUT)
    assert (result.phase, result.exit_code) == ("aborted", 255)
    # Again is no error.
    await job.abort()
    with pytest.raises(RefusedError):
        await slow.abort(job.id)


async def heard_aborted(ocps, act):
    """Return how jobs ended that end while something is done."""
    async with salobj.Domain() as domain, salobj.Remote(domain, "OCPS", 1, evt_max_history=0) as remote:
        ends = []
        remote.evt_job_result.callback = lambda data: ends.append(data.exit_code)
        await act()
        await until(lambda: ends, TIMEOUT)
        return ends


async def test_a_cancelled_script_aborts_its_job(slow):
    async def act():
        running = asyncio.create_task(slow.run("true.yaml"))
        await until(lambda: slow._inbox._waiting, TIMEOUT)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert await heard_aborted(slow, act) == [255]


async def test_a_script_cancelled_before_it_knows_the_id_aborts_its_job_too(slow):
    async def act():
        running = asyncio.create_task(slow.run("true.yaml"))
        # One turn of the loop: the command is about to be sent.
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert await heard_aborted(slow, act) == [255]


async def test_a_job_that_takes_too_long_is_aborted(slow):
    async def act():
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.2 s"):
            await slow.run("true.yaml", timeout=0.2)

    assert await heard_aborted(slow, act) == [255]


async def test_an_ocps_that_dies_is_noticed_by_the_next_submission(slow, monkeypatch):
    """The last test of this OCPS."""
    from lsst.dm.OCPS.script import ocps as module

    job = await slow.submit("true.yaml")
    await slow.csc.kill()
    monkeypatch.setattr(module, "HEARTBEAT_AGE", 0)
    with pytest.raises(OcpsError, match="is not running"):
        await slow.assert_enabled(timeout=3)
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.1)
