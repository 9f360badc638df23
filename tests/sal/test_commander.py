# SPDX-License-Identifier: GPL-3.0-or-later
"""The commander, as a process at which somebody types."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from lsst.dm.OCPS.sal.commander import summary
from lsst.dm.OCPS.testing import Script

from tests.waiting import TIMEOUT

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Terminal:
    """A running commander."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def type(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def read_until(self, words: str) -> str:
        """Return what is shown up to and with a line that has some words."""
        assert self.process.stdout
        shown = ""
        async with asyncio.timeout(TIMEOUT):
            while line := (await self.process.stdout.readline()).decode():
                shown += line
                if words in line:
                    return shown
        raise AssertionError(f"it ended without {words!r}: {shown}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def terminal(simulated: Script) -> AsyncIterator[Terminal]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-uc",
        "from lsst.dm.OCPS.sal.commander import main; main()",
        "1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_jobs_are_run_and_their_results_shown_in_one_line(terminal: Terminal) -> None:
    shown = await terminal.read_until("help  # print this help")
    assert "execute PIPELINE [version=…] [config=…] [data_query=…]" in shown
    assert "check PIPELINE" in shown
    await terminal.type("execute true.yaml data_query='a = 1'")
    shown = await terminal.read_until("Finished command execute")
    assert "job_id=true.yaml" in shown
    assert "exit_code=0, completed" in shown
    await terminal.type("check true.yaml")
    assert "the request" in await terminal.read_until("Finished command check")


async def test_what_is_wrong_is_said(terminal: Terminal) -> None:
    await terminal.type("execute other.yaml")
    assert "true.yaml, false.yaml, fault.yaml" in await terminal.read_until("true.yaml, false.yaml")
    await terminal.type("execute")
    await terminal.read_until("expected a pipeline")
    await terminal.type("execute true.yaml colour=red")
    await terminal.read_until("'colour=red': expected FIELD=VALUE with one of version, config, data_query")
    await terminal.type("abort_job job_id")
    await terminal.read_until("No such job")
    await terminal.type("exit")
    assert await asyncio.wait_for(terminal.process.wait(), TIMEOUT) == 0


async def test_a_result_of_any_form_is_one_line() -> None:
    assert summary("a", 1, "no json") == "job_result: job_id=a, exit_code=1, result that cannot be read"
    text = '{"phase": "error", "results": [{}], "errorSummary": {"message": "no\\ndata"}}'
    assert summary("a", 1, text) == "job_result: job_id=a, exit_code=1, error, 1 results: no data"
