# SPDX-License-Identifier: GPL-3.0-or-later

"""Each kind of misbehaviour is what it says. The tasks run in forked processes, which cost little."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from democam.tasks.misbehave import MisbehaveConfig, MisbehaveTask

from tests.waiting import TIMEOUT, until_blocking


def start(how: str, **config: object) -> multiprocessing.context.ForkProcess:
    """Start a task that misbehaves, as the leader of a session of its own."""
    settings = MisbehaveConfig()
    settings.update(how=how, **config)
    settings.validate()

    def run() -> None:
        faulthandler.disable()  # pytest's would print a traceback for a crash that is wanted
        os.setsid()
        MisbehaveTask(config=settings).run()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def command_of(pid: int) -> list[str]:
    """Return the command line of a process, empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def sleepers(mark: str) -> list[int]:
    """Return the processes that sleep for a time nobody else would choose."""
    return [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if command_of(int(path.name))[:2] == ["sleep", mark]
    ]


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("nothing", 0),
        ("raise", 1),
        ("exit", 7),
        ("segfault", -signal.SIGSEGV),
        ("kill", -signal.SIGKILL),
    ],
)
def test_the_process_ends_as_asked(how: str, code: int) -> None:
    process = start(how)
    process.join(TIMEOUT)
    assert process.exitcode == code


def test_a_hang_ends_when_it_is_told_to(tmp_path: Path) -> None:
    process = start("hang", until=str(tmp_path / "go"), duration=3600.0)
    process.join(0.2)
    assert process.is_alive()
    (tmp_path / "go").touch()
    process.join(TIMEOUT)
    assert process.exitcode == 0


def test_stubborn_ignores_sigterm_but_not_sigkill() -> None:
    process = start("stubborn", duration=3600.0)
    ignored = 1 << (signal.SIGTERM - 1)

    def ignores() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return bool(int(status.partition("SigIgn:")[2].split()[0], 16) & ignored)

    until_blocking(ignores)
    process.terminate()
    process.join(0.3)
    assert process.is_alive()
    process.kill()
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("how", "survive"), [("grandchildren", False), ("daemons", True)])
def test_grandchildren_go_with_the_process_group_and_daemons_do_not(how: str, survive: bool) -> None:
    duration = 1000.0 + os.getpid() / 1e6 + survive / 4e6
    process = start(how, duration=duration)
    try:
        until_blocking(lambda: len(sleepers(str(duration))) == 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.join(TIMEOUT)
        if survive:
            time.sleep(0.3)
            assert len(sleepers(str(duration))) == 2
        else:
            until_blocking(lambda: not sleepers(str(duration)))
    finally:
        for pid in sleepers(str(duration)):
            os.kill(pid, signal.SIGKILL)


def test_orphans_outlive_their_task() -> None:
    duration = 1000.0 + os.getpid() / 1e6 + 0.5 / 1e6
    process = start("orphans", duration=duration)
    try:
        process.join(TIMEOUT)
        assert process.exitcode == 0
        # One that was just forked is not yet known by its command line.
        until_blocking(lambda: len(sleepers(str(duration))) == 2)
    finally:
        for pid in sleepers(str(duration)):
            os.kill(pid, signal.SIGKILL)


def test_memory_is_really_taken() -> None:
    process = start("memory", megabytes=300, duration=3600.0)

    def resident_kilobytes() -> int:
        return int(Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0])

    try:
        until_blocking(lambda: resident_kilobytes() > 300_000)
    finally:
        process.kill()
        process.join(TIMEOUT)


def test_log_is_as_long_as_asked(caplog: pytest.LogCaptureFixture) -> None:
    settings = MisbehaveConfig()
    settings.update(how="log", megabytes=1)
    with caplog.at_level("INFO"):
        MisbehaveTask(config=settings).run()
    assert sum(len(record.getMessage()) for record in caplog.records) == pytest.approx(1e6, rel=0.05)


@pytest.mark.parametrize("wrong", [{"exitCode": 256}, {"duration": -1.0}, {"megabytes": -1}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    settings = MisbehaveConfig()
    settings.update(**wrong)
    with pytest.raises(ValueError, match="must"):
        settings.validate()
