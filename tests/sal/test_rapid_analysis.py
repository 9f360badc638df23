# SPDX-License-Identifier: GPL-3.0-or-later
"""Index 101: what execute says goes to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import pytest_asyncio
import redis.asyncio
from lsst.dm.OCPS.jobs.errors import BackendError
from lsst.dm.OCPS.sal import rapid_analysis
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.conftest import find_service
from tests.ports import free_port
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    """A real Redis with a password; its process, port and password."""
    program, port, password = find_service("redis-server"), free_port(), "secret-of-redis"
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", password]
    folder = tmp_path_factory.mktemp("redis")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, "--dir", str(folder), stdout=asyncio.subprocess.DEVNULL
    )
    client = redis.asyncio.Redis(port=port, password=password)

    async def answers() -> bool:
        with contextlib.suppress(redis.exceptions.ConnectionError):
            return bool(await client.ping())
        return False

    await until(answers)
    yield process, port, client
    await client.aclose()
    if process.returncode is None:
        process.terminate()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rapid(server):
    """A script connected to OCPS 101."""
    _, port, _ = server
    private_bus()
    environment = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port), "REDIS_PASSWORD": "secret-of-redis"}
    async with CscProcess("101", environment=environment), Script.connect(index=101) as script:
        await script.set_state(salobj.State.ENABLED)
        yield script


async def push(script: Script, config: str) -> str:
    """Command an execute; return the final acknowledgement's text."""
    command = script.remote.cmd_execute
    try:
        return (
            await command.set_start(pipeline="", version="", config=config, data_query="", timeout=TIMEOUT)
        ).result
    except salobj.AckError as error:
        return error.ackcmd.result


async def test_keys_and_values_are_pushed_and_no_job_appears(rapid, server):
    client = server[2]
    assert await push(rapid, json.dumps({"QUEUE": "first", "OTHER": {"a": [1, 2]}})) == "Done"
    assert await push(rapid, json.dumps({"QUEUE": "second"})) == "Done"
    # The reader pops from the left, where the newest is.
    assert await client.lpop("QUEUE") == b"second"
    assert await client.lpop("QUEUE") == b"first"
    assert json.loads(await client.lpop("OTHER")) == {"a": [1, 2]}
    assert rapid.job_ids == []
    assert rapid.results == []


async def test_a_dry_run_pushes_nothing(rapid, server):
    command = rapid.remote.cmd_execute
    with pytest.raises(salobj.AckError) as caught:
        config = json.dumps({"QUEUE": "tried"})
        await command.set_start(
            pipeline="dry-run:", version="", config=config, data_query="", timeout=TIMEOUT
        )
    assert "there is no dry run" in caught.value.ackcmd.result
    assert await server[2].lpop("QUEUE") is None


@pytest.mark.parametrize("config", ["", "no json", "[1, 2]", "{}", '"text"'])
async def test_what_is_no_json_object_is_refused(rapid, config):
    assert "JSON" in await push(rapid, config)


async def test_abort_job_knows_no_job(rapid):
    with pytest.raises(salobj.AckError) as caught:
        await rapid.remote.cmd_abort_job.set_start(job_id="a", timeout=TIMEOUT)
    assert "No such job" in caught.value.ackcmd.result


async def test_a_redis_that_does_not_answer_is_refused_in_time(monkeypatch):
    """Nothing is sent again: what was pushed twice would be run twice."""
    received = []

    async def silent(reader, writer):
        while data := await reader.read(4096):
            received.append(data)

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("REDIS_PORT", str(listener.sockets[0].getsockname()[1]))
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    monkeypatch.setattr(rapid_analysis, "TIMEOUT", 0.5)
    with pytest.raises(BackendError, match=r"did not answer within 0\.5 s"):
        await rapid_analysis.RapidAnalysis().push('{"KEY": "value"}')
    assert b"".join(received).count(b"LPUSH") <= 1
    listener.close()


@pytest.mark.parametrize("port", ["six", "²", "9" * 5000])
async def test_a_port_of_redis_that_is_not_a_number_is_refused(monkeypatch, port):
    monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("REDIS_PORT", port)
    with pytest.raises(BackendError, match="REDIS_PORT"):
        rapid_analysis.RapidAnalysis.address()


async def test_without_redis_the_reason_is_said_and_no_secret(rapid, server):
    process = server[0]
    process.terminate()
    await process.wait()
    answer = await push(rapid, '{"a": "b"}')
    assert answer.startswith("Failed: Redis at 127.0.0.1")
    assert "secret" not in answer
