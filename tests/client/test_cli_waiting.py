# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps`` waits: through restarts, interrupts, and with others before."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.client.conftest import OCPS, User, environment
from tests.http.conftest import Served, Start
from tests.proxy import Proxy
from tests.waiting import until, until_job


async def started(user: User, *arguments: str) -> asyncio.subprocess.Process:
    """Start a command; it runs on."""
    return await asyncio.create_subprocess_exec(
        OCPS,
        *arguments,
        env=environment(user.home, OCPS_URL=user.url),
        cwd=user.home,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_id_is_told_before_waiting_and_when_interrupted(user: User, served: Served) -> None:
    process = await started(user, "submit", "sleep", "duration=3600", "--wait")
    assert process.stderr
    line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    (job,) = served.manager.live()
    assert job.id in line
    await until(lambda: served.waits)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert f"job {job.id} goes on" in err.decode()
    assert "Traceback" not in err.decode()


async def test_a_refused_submission_leaves_nothing(start: Start, tmp_path: Path) -> None:
    served = await start(max_workers=1, max_queued=1)
    user = User(tmp_path, served.root)
    for _ in range(2):
        await user.json("submit", "sleep", "duration=3600")
    ids = {job.id for job in served.manager.live()}
    code, _, err = await user("submit", "sleep", "duration=3600")
    assert code in (3, 4)
    assert "queue" in err
    assert {job.id for job in served.manager.live()} == ids
    assert len(await user.json("list")) == 2


async def test_waiting_and_logs_outlive_a_server_that_is_away(
    user: User, served: Served, proxy: Proxy
) -> None:
    behind = User(user.home, proxy.url)
    waiting = await started(behind, "submit", "sleep", "duration=3600", "text=x", "--wait")
    await until(lambda: served.waits)
    (job,) = served.manager.live()
    await until_job(served.manager, job.id, lambda job: job.phase == "EXECUTING")
    reading = await started(behind, "log", "-f", job.id)
    assert reading.stdout
    assert reading.stderr
    assert waiting.stderr
    assert await asyncio.wait_for(reading.stdout.readline(), 60) == b"sleeping for 3600 s\n"
    proxy.away = True
    proxy.cut_all()
    # The one that waits has an answer under way; it is lost as well.
    for process in (reading, waiting):
        assert process.stderr
        while b"waiting for it" not in await asyncio.wait_for(process.stderr.readline(), 60):
            pass
        if process is reading:
            await served.manager.abort(job.id)
    proxy.away = False
    for process in (waiting, reading):
        assert await asyncio.wait_for(process.wait(), 60) == 5


async def test_delete(user: User, served: Served) -> None:
    url = await served.create(run=True, duration="3600")
    await served.executing(url)
    job_id = url.rpartition("/")[2]
    assert await user.json("delete", job_id) == [job_id]
    code, _, err = await user("show", job_id)
    assert code == 4
    assert "No such job" in err


async def test_prerequisites_and_priority(user: User, served: Served) -> None:
    first = await user.json("submit", "sleep", "duration=3600")
    second = await user.json("submit", "sleep", "duration=0", "--after", first["id"], "--priority", "7")
    found = await served.manager.get(second["id"])
    assert (found.prerequisites, found.priority) == ((first["id"],), 7)
    assert found.phase == "QUEUED"
    assert first["id"] in found.message
    await served.manager.abort(first["id"])
    assert await served.ended(second["id"]) == "COMPLETED"
    for arguments in (("--after", "f" * 32), ("--priority", "5000")):
        code, _, err = await user("submit", "sleep", *arguments)
        assert code == 4, err


async def test_json_tells_the_truth(user: User, served: Served) -> None:
    url = await served.create(run=True, duration="0", text="x", EXECUTIONDURATION="100")
    await served.ended(url)
    (job,) = await user.json("list")
    assert await user.json("list", "sleep") == [job]
    assert job["parameters"] == {"duration": "0", "text": "x"}
    assert job["execution_duration"] == 100
    assert {result["id"]: result["size"] for result in job["results"]}["result.txt"] == 1
