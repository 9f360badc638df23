# SPDX-License-Identifier: GPL-3.0-or-later

"""A task that does what no task should, so that whoever runs pipelines can be tested against it."""

from __future__ import annotations

__all__ = ["MisbehaveConfig", "MisbehaveConnections", "MisbehaveTask"]

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.pex.config import ChoiceField, Field
from lsst.pipe.base import PipelineTaskConfig, PipelineTaskConnections, Struct

from .base import DemoTask


class MisbehaveConnections(PipelineTaskConnections, dimensions=("instrument",)):
    metrics = cT.Output(
        doc="Says that the task came to its end after all.",
        name="misbehaveMetrics",
        storageClass="StructuredDataDict",
        dimensions=("instrument",),
    )


class MisbehaveConfig(PipelineTaskConfig, pipelineConnections=MisbehaveConnections):
    how = ChoiceField[str](
        doc="What to do wrong.",
        default="nothing",
        optional=False,
        allowed={
            "nothing": "Behave.",
            "raise": "Raise an exception.",
            "segfault": "Die from SIGSEGV, as faulty compiled code does.",
            "exit": "Leave with os._exit(exitCode): no exception, no clean-up.",
            "kill": "Die from SIGKILL, as the kernel does it when memory runs out.",
            "hang": "Sleep for `duration`, or until the file `until` exists.",
            "stubborn": "Sleep for `duration` and ignore SIGTERM and SIGINT.",
            "memory": "Take `megabytes` of memory, hold them for `duration`, then go on.",
            "grandchildren": "Start processes that start processes that sleep; sleep as well.",
            "orphans": "Start them and finish, with them still holding the log open.",
            "daemons": "Start them in a session of their own, where a signal to the process group "
            "misses them; sleep as well.",
            "log": "Write `megabytes` of log.",
        },
    )
    exitCode = Field[int](doc="Exit code for 'exit'.", default=7)
    duration = Field[float](doc="How long to sleep, in seconds.", default=600.0)
    until = Field[str](doc="A file that ends a 'hang' when it appears; empty for none.", default="")
    megabytes = Field[int](doc="How much memory to take or log to write, in units of 1e6 bytes.", default=20)

    def validate(self) -> None:
        super().validate()
        if not 0 <= self.exitCode <= 255:
            raise ValueError(f"exitCode must be between 0 and 255, not {self.exitCode}.")
        if self.duration < 0 or self.megabytes < 0:
            raise ValueError("duration and megabytes must not be negative.")


class MisbehaveTask(DemoTask):
    """Misbehave in the configured way, in one quantum per instrument."""

    ConfigClass = MisbehaveConfig
    _DefaultName = "misbehave"
    config: MisbehaveConfig

    def run(self, **kwargs: Any) -> Struct:
        """Misbehave.

        Returns
        -------
        result : `~lsst.pipe.base.Struct`
            ``metrics``: a `dict` with ``how``, if the task gets that far.

        Raises
        ------
        RuntimeError
            If that is what was asked for.
        """
        how = self.config.how
        self.log.info("Process %d is about to misbehave: %s.", os.getpid(), how)
        # What follows may end the process: nothing written before may be lost in a buffer.
        sys.stdout.flush()
        sys.stderr.flush()
        actions: dict[str, Callable[[], None]] = {
            "raise": self._raise,
            "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
            "exit": lambda: os._exit(self.config.exitCode),
            "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "hang": self._hang,
            "stubborn": self._sleep_stubbornly,
            "memory": self._take_memory,
            "grandchildren": lambda: self._start_grandchildren(wait=True),
            "orphans": lambda: self._start_grandchildren(wait=False),
            "daemons": lambda: self._start_grandchildren(wait=True, own_session=True),
            "log": self._write_log,
        }
        actions.get(how, lambda: None)()
        return Struct(metrics={"how": how})

    def _raise(self) -> None:
        raise RuntimeError("This task was asked to misbehave by raising an exception.")

    def _sleep(self) -> None:
        time.sleep(self.config.duration)

    def _hang(self) -> None:
        end = time.monotonic() + self.config.duration
        while (left := end - time.monotonic()) > 0:
            if not self.config.until:
                time.sleep(left)
            elif os.path.exists(self.config.until):
                break
            else:
                time.sleep(min(left, 0.05))

    def _sleep_stubbornly(self) -> None:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._sleep()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take_memory(self) -> None:
        # Written, not just reserved: memory that nobody touches costs nothing.
        held = b"\1" * (self.config.megabytes * 1_000_000)
        self.log.info("Holding %d bytes.", len(held))
        self._sleep()

    def _start_grandchildren(self, wait: bool, own_session: bool = False) -> None:
        sleep = f"sleep {self.config.duration}"
        # The shell is the child, the sleeps are the grandchildren; it prints their ids for those who look.
        script = f"{sleep} & echo $!; {sleep} & echo $!; exec >&-; wait"
        child = subprocess.Popen(
            ["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=own_session
        )
        assert child.stdout is not None
        pids = [int(child.stdout.readline()) for _ in range(2)]
        self.log.info("Started child %d and grandchildren %d and %d.", child.pid, *pids)
        if wait:
            self._sleep()

    def _write_log(self) -> None:
        line = "All work and no play makes a dull log. " * 25  # about 1 kB
        for number in range(self.config.megabytes * 1_000_000 // len(line)):
            self.log.info("%d %s", number, line)
