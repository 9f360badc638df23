# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers on copies of the work directory: damaged, read-only, or as a crash would leave it.

Each runs in namespaces of its own: the copy lies at the original's path,
another ledger at the ledger's, no control group and no process of the
original can be seen. So whatever the jobs in the copy do, they cannot touch
the original.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from tests.ports import free_port

from .oracle import Oracle
from .servers import START_TIMEOUT, Server, answers
from .world import World


async def damaged(world: World, oracle: Oracle, chance: random.Random) -> bool:
    """Damage a copy of the job store; a server on it must work or say why it does not."""
    folder = _empty(world)
    await _copy(world, folder, store_only=True)
    store = folder / "jobs.sqlite3"
    content = bytearray(store.read_bytes())
    for _ in range(20):
        place = chance.randrange(100, len(content))
        content[place : place + 200] = chance.randbytes(min(200, len(content) - place))
    store.write_bytes(content[: len(content) // 4096 * 4096])
    await _try(world, oracle, folder)
    return True


async def read_only(world: World, oracle: Oracle) -> bool:
    """Mount a copy of the job store read-only; a server on it must work or say why it does not."""
    folder = _empty(world)
    await _copy(world, folder, store_only=True)
    await _try(world, oracle, folder, "ro")
    return True


async def crash_image(world: World, oracle: Oracle) -> bool:
    """Copy the work directory while jobs run; a server on the copy must come to true results.

    The server and its jobs are stopped meanwhile, so that the copy is what a
    crash at that moment would have left.
    """
    folder = _empty(world)
    accepted = [each for each in oracle.orders.values() if each.accepted and each.server == world.main.name]
    before = {
        order.token: oracle.seen.get(order.token)
        for order in accepted
        if not order.deleted and order.face == "HTTP"
    }
    async with world.main.busy, world.jobs_busy:
        stopped = _stop_all(world.main)
        try:
            started = {order.token for order in oracle.orders.values() if oracle.read(order.token).starts}
            await _copy(world, folder)
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    port = free_port()
    copy = await _start(world, folder, port)
    try:
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(START_TIMEOUT):
            while not await answers(url):
                if copy.returncode is not None:
                    _, said = await copy.communicate()
                    oracle.violate(
                        f"a server on a crash image ended: {said.decode(errors='replace')[-2000:]}"
                    )
                    return True
                await asyncio.sleep(0.1)
        await oracle.check_image(url, before, started, _scratch(world))
    finally:
        if copy.returncode is None:
            copy.kill()
        await copy.communicate()
    return True


def _empty(world: World) -> Path:
    folder = world.folder / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _scratch(world: World) -> Path:
    """Return the ledger of the jobs in a copy."""
    return world.folder / "scratch"


async def _copy(world: World, folder: Path, store_only: bool = False) -> None:
    """Copy the work directory of the main server, or its job store alone."""
    source = world.main.work_dir
    if store_only:
        for name in ("jobs.sqlite3", "jobs.sqlite3-wal"):
            if (source / name).exists():
                await asyncio.to_thread(shutil.copy, source / name, folder / name)
        return
    await asyncio.to_thread(subprocess.run, ["cp", "-a", f"{source}/.", folder], check=True)


def _stop_all(server: Server) -> list[int]:
    """Stop a server and everything that works in its work directory; return the process ids."""
    assert server.process
    # The server first, so that it starts no more jobs; what others start is found in the next round.
    stopped = [server.process.pid]
    os.kill(server.process.pid, signal.SIGSTOP)
    while True:
        found = [pid for pid in _at_work(server) if pid not in stopped]
        if not found:
            return stopped
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped += found


def _at_work(server: Server) -> list[int]:
    """Return the supervisors and jobs of a server."""
    work_dir = os.fsencode(server.work_dir)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                inside = os.fsencode(os.readlink(f"/proc/{name}/cwd")).startswith(work_dir)
                if inside or any(word.startswith(work_dir) for word in words):
                    found.append(int(name))
    return found


async def _start(world: World, folder: Path, port: int, options: str = "rw") -> asyncio.subprocess.Process:
    """Start a server on a copy."""
    config, scratch = world.folder / "copy.yaml", _scratch(world)
    world.main.write_config(config, world.main.instance | {"min_free_space": 0, "min_free_files": 0}, port)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    places = ((folder, world.main.work_dir), (scratch, world.ledger))
    script = " && ".join(
        [
            *(shlex.join(["mount", "--bind", str(source), str(target)]) for source, target in places),
            shlex.join(["mount", "-o", f"remount,bind,{options}", str(world.main.work_dir)]),
            "mount -t tmpfs none /sys/fs/cgroup",
            "exec " + shlex.join(Server.command(config)),
        ]
    )
    return await asyncio.create_subprocess_exec(
        *("unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", script),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


async def _try(world: World, oracle: Oracle, folder: Path, options: str = "rw") -> None:
    """Start a server on a copy that is no good: it must answer, or end with a message."""
    port = free_port()
    process = await _start(world, folder, port, options)
    ending = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while not ending.done() and not await answers(f"http://127.0.0.1:{port}"):
                await asyncio.sleep(0.1)
    finally:
        if process.returncode is None:
            process.kill()
    _, said = await ending
    words = said.decode(errors="replace")
    if "Traceback" in words or "mount:" in words:
        oracle.violate(f"a server on a bad copy: {words[-2000:]}")
