# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine that has no descriptor left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
import subprocess
from collections.abc import Iterator

import pytest
from lsst.dm.OCPS.backends.local.handle import Claim, SupervisorHandle
from lsst.dm.OCPS.backends.local.processes import identity
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job

from tests.backends.local.shell_pool import open_pool, request
from tests.waiting import TIMEOUT, until, until_job


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """Take every descriptor that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 20, hard), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def executing(job: Job) -> bool:
    """Return whether a job runs."""
    return job.phase == ExecutionPhase.EXECUTING


async def all_ended(supervisors: list[int]) -> None:
    """Wait until processes have ended, needing no new descriptor."""
    for descriptor in supervisors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        await until(lambda poll=poll: poll.poll(0))


async def test_jobs_that_end_while_no_descriptor_is_left_keep_their_true_end(tmp_path):
    manager = await open_pool(tmp_path / "work", {"max_workers": 4})
    script = "while [ ! -e ../go ]; do sleep 0.02; done; exit "
    jobs = [await manager.submit(request(script + str(code))) for code in (0, 0, 3, 0)]
    supervisors = []
    for job in jobs:
        await until_job(manager, job.id, executing)
        claim = manager.workspaces.of(job.id).read_json("supervisor.json")
        supervisors.append(os.pidfd_open(claim["pid"]))
    with none_left():
        for job in jobs:
            os.mkdir(manager.workspaces.of(job.id).root / "go")
        await all_ended(supervisors)
        # Let the engine see the ends, and fail to read them more than once.
        await asyncio.sleep(2.5)
    for job, code in zip(jobs, (0, 0, 3, 0), strict=True):
        ended = await manager.wait(job.id, TIMEOUT)
        assert ended.exit_code == code
        assert ended.phase == (ExecutionPhase.ERROR if code else ExecutionPhase.COMPLETED)
    for descriptor in supervisors:
        os.close(descriptor)
    await manager.close()


async def test_a_job_waits_for_descriptors_to_be_started(tmp_path):
    manager = await open_pool(tmp_path / "work", {"max_workers": 1})
    first = await manager.submit(request("while [ ! -e ../go ]; do sleep 0.02; done"))
    second = await manager.submit(request("exit 0"))
    await until_job(manager, first.id, executing)
    supervisor = os.pidfd_open(manager.workspaces.of(first.id).read_json("supervisor.json")["pid"])
    with none_left():
        os.mkdir(manager.workspaces.of(first.id).root / "go")
        await all_ended([supervisor])
        await asyncio.sleep(1.5)
    os.close(supervisor)
    for job in (first, second):
        assert (await manager.wait(job.id, TIMEOUT)).phase == ExecutionPhase.COMPLETED
    await manager.close()


def test_only_what_does_not_exist_counts_as_absent():
    # A session of its own, as supervisors have: in a container, the session of this process may be
    # one outside, whose number is 0.
    process = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
    try:
        found = identity(process.pid)
        assert found is not None
        claim = Claim(**found, seal="0" * 64)
        with none_left():
            with pytest.raises(OSError) as raised:
                identity(process.pid)
            assert raised.value.errno == errno.EMFILE
            with pytest.raises(OSError):
                SupervisorHandle.find(claim)
        handle = SupervisorHandle.find(claim)
        assert handle is not None
        handle.close()
    finally:
        process.kill()
        process.wait()
