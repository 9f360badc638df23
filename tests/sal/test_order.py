# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripts get the right results, in whichever order results and acknowledgements arrive.

A controller of the tests' own stands in for OCPS, because OCPS itself always
publishes a result before the final acknowledgement. The bus is the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from lsst.dm.OCPS.sal import compat
from lsst.dm.OCPS.script import Job, Ocps
from lsst.dm.OCPS.testing import private_bus
from lsst.ts import salobj

from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

INDEX = 2


class Commanded:
    """Sends what OCPS sends when the test says so; a job's id is its ``config``."""

    def __init__(self) -> None:
        self.controller = salobj.Controller("OCPS", INDEX)
        self.controller.cmd_execute.callback = self._execute
        self.controller.cmd_execute.allow_multiple_callbacks = True
        self._told: dict[str, asyncio.Event] = {}
        self._done: dict[str, asyncio.Event] = {}

    def tell_id(self, job_id: str) -> None:
        """Acknowledge the command with the job's id."""
        self._told.setdefault(job_id, asyncio.Event()).set()

    def finish(self, job_id: str) -> None:
        """Send the final acknowledgement."""
        self._done.setdefault(job_id, asyncio.Event()).set()

    async def publish(self, job_id: str) -> None:
        """Publish the job's result."""
        text = json.dumps({"jobId": job_id, "phase": "completed", "text": f"of {job_id}"})
        await compat.put(self.controller.evt_job_result, job_id=job_id, exit_code=0, result=text)

    async def _execute(self, data: Any) -> None:
        job_id = data.config
        await self._told.setdefault(job_id, asyncio.Event()).wait()
        words = json.dumps({"job_id": job_id})
        await compat.ack_in_progress(self.controller.cmd_execute, data, TIMEOUT, words)
        await self._done.setdefault(job_id, asyncio.Event()).wait()

    async def beat(self) -> None:
        """Be ENABLED and alive."""
        await compat.put(self.controller.evt_summaryState, summaryState=salobj.State.ENABLED)
        while True:
            await compat.put(self.controller.evt_heartbeat)
            await asyncio.sleep(0.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus() -> AsyncIterator[tuple[Commanded, Ocps]]:
    """A commanded OCPS and a script's helper that is connected to it."""
    private_bus()
    commanded = Commanded()
    async with commanded.controller:
        beating = asyncio.create_task(commanded.beat())
        async with Ocps.connect(INDEX) as ocps:
            await ocps.assert_enabled(TIMEOUT)
            yield commanded, ocps
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


async def submit(ocps: Ocps, job_id: str) -> Job:
    return await ocps.submit("x.yaml", config=job_id, timeout=TIMEOUT)


async def test_the_final_acknowledgement_before_the_result(bus):
    commanded, ocps = bus
    commanded.tell_id("late")
    job = await submit(ocps, "late")
    commanded.finish("late")
    await until(job._acks.done, TIMEOUT)
    assert not job._result.done()
    await commanded.publish("late")
    assert (await job.result(TIMEOUT)).document["text"] == "of late"


async def test_the_result_before_the_final_acknowledgement(bus):
    commanded, ocps = bus
    commanded.tell_id("early")
    job = await submit(ocps, "early")
    await commanded.publish("early")
    await until(job._result.done, TIMEOUT)
    assert not job._acks.done()
    commanded.finish("early")
    assert (await job.result(TIMEOUT)).document["text"] == "of early"
    # On a busy machine it may be heard only after ``ACK_GRACE``.
    await until(job._acks.done, TIMEOUT)


async def test_the_result_before_the_id(bus):
    commanded, ocps = bus
    submitting = asyncio.create_task(submit(ocps, "first"))
    await commanded.publish("first")
    await until(lambda: "first" in ocps._inbox._unclaimed, TIMEOUT)
    commanded.tell_id("first")
    job = await submitting
    commanded.finish("first")
    assert (await job.result(TIMEOUT)).document["text"] == "of first"


async def test_several_at_once_in_every_order(bus):
    """Results and final acknowledgements come in orders that have nothing to do with each other."""
    commanded, ocps = bus
    names = [f"many{number}" for number in range(12)]
    submitting = {name: asyncio.create_task(submit(ocps, name)) for name in names}
    for name in reversed(names):
        commanded.tell_id(name)
    jobs = {name: await task for name, task in submitting.items()}
    for name in names[::2]:
        commanded.finish(name)
    await asyncio.gather(*(jobs[name]._acks for name in names[::2]))
    results = [asyncio.create_task(jobs[name].result(TIMEOUT)) for name in names]
    for name in reversed(names):
        await commanded.publish(name)
    await asyncio.gather(*(jobs[name]._result for name in names))
    for name in names[1::2]:
        commanded.finish(name)
    found = await asyncio.gather(*results)
    assert [result.document["text"] for result in found] == [f"of {name}" for name in names]
    assert [result.job_id for result in found] == names
