# SPDX-License-Identifier: GPL-3.0-or-later
"""A private Slurm cluster of one node on loopback: real daemons, without systemd or control groups."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import find_service
from tests.ports import free_port
from tests.waiting import until_blocking

NODE = "node1"

CONFIGURATION = """
ClusterName=ocpstest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MinJobAge=600
MessageTimeout={patience}
KillWait=10
ReturnToService=2
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """A cluster, started.

    Parameters
    ----------
    folder : `pathlib.Path`
        Where all its files are; a short path, because there is a socket in it.
    cpus : `int`
        How many jobs may run at a time.
    """

    backend = "slurm"

    name = "Slurm"

    def __init__(self, folder: Path, cpus: int = 16) -> None:
        self.programs = {
            name: find_service(name) for name in ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
        }
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        # A daemon that answers late on a busy machine must not count as lost; a controller that is
        # away must not keep OCPS' commands waiting for long.
        self.conf = folder / "slurm.conf"
        self.hasty_conf = folder / "hasty.conf"
        values = {
            "host": socket.gethostname().partition(".")[0],
            "controller_port": free_port(),
            "node_port": free_port(),
            "folder": folder,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "node": NODE,
            "cpus": cpus,
        }
        self.conf.write_text(CONFIGURATION.format(**values, patience=60))
        self.hasty_conf.write_text(CONFIGURATION.format(**values, patience=2))
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(64))
        try:
            self._start_daemons()
        except BaseException:
            self.stop()
            raise

    def _start_daemons(self) -> None:
        self._start(
            "munged",
            "--foreground",
            # The folder's owner is who runs the tests; as root, munged wants other folders.
            "--force",
            f"--key-file={self.folder}/munge.key",
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munge.pid",
            f"--log-file={self.folder}/munge.log",
            f"--seed-file={self.folder}/munge.seed",
            "--num-threads=2",
        )
        until_blocking(lambda: (self.folder / "munge.socket").exists())
        self.start_controller(wait=False)
        self._start("slurmd", "-D", "-N", NODE)
        until_blocking(lambda: "idle" in self.run("sinfo", "-h", "-N", "-o", "%T", check=False))

    def _start(self, program: str, *arguments: str) -> None:
        with open(self.folder / f"{program}.out", "ab") as output:
            self.processes[program] = subprocess.Popen(
                [self.programs[program], *arguments],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def run(self, program: str, *arguments: str, check: bool = True, script: str = "") -> str:
        """Run one of Slurm's commands and return what it prints."""
        ended = subprocess.run(
            [program, *arguments],
            env=self.environment(),
            cwd=self.folder,
            input=script,
            text=True,
            capture_output=True,
            check=False,
        )
        assert not check or ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    # What tests of all batch systems use

    def settings(self) -> dict[str, Any]:
        """Return the backend's settings for this cluster."""
        return {"conf": str(self.hasty_conf), "completed_jobs": str(self.folder / "completed.txt")}

    def held(self) -> dict[str, Any]:
        """Return settings with which jobs stay pending."""
        return {**self.settings(), "options": ["--hold"]}

    def kill_controller(self) -> None:
        """Kill the controller: no command is answered any more, jobs run on.

        It saves its jobs every few seconds, and what it had not saved is
        lost; that is a test of its own.
        """
        state = self.folder / "state" / "job_state"
        before = state.stat().st_mtime_ns if state.exists() else 0
        self.cancel(self.submit("true", "--hold"))
        until_blocking(lambda: state.exists() and state.stat().st_mtime_ns > before)
        self._kill_controller()

    def _kill_controller(self) -> None:
        process = self.processes.pop("slurmctld")
        process.kill()
        process.wait()

    def start_controller(self, *, wait: bool = True) -> None:
        self._start("slurmctld", "-D")
        if wait:
            until_blocking(lambda: "UP" in self.run("scontrol", "ping", check=False))
            until_blocking(
                lambda: (
                    self.run("sinfo", "-h", "-N", "-o", "%T", check=False) in ("idle", "mixed", "allocated")
                )
            )

    def lose_jobs(self) -> None:
        """Kill the controller and remove what it had saved of its jobs."""
        self._kill_controller()
        for file in (self.folder / "state").glob("job*state*"):
            file.unlink()
        shutil.rmtree(self.folder / "state" / "hash.0", ignore_errors=True)

    def fail_node(self) -> None:
        """Let the node fail with what runs on it."""
        self.run("scontrol", "update", f"nodename={NODE}", "state=down", "reason=test")

    def mend_node(self) -> None:
        # It may have come back by itself, and then this is refused.
        self.run("scontrol", "update", f"nodename={NODE}", "state=resume", check=False)
        until_blocking(lambda: self.run("sinfo", "-h", "-N", "-o", "%T", check=False) == "idle")

    def submit(self, script: str, *options: str) -> str:
        """Submit a job that is not OCPS's; return its number."""
        output = f"--output={self.folder}/foreign.out"
        return self.run("sbatch", "--parsable", output, *options, script=f"#!/bin/sh\n{script}\n")

    def state(self, number: str) -> str:
        return self.run("squeue", "-h", "-t", "all", "-j", number, "-o", "%T")

    def cancel(self, number: str) -> None:
        self.run("scancel", number)

    def numbers(self, job_id: str) -> list[str]:
        """Return the numbers of all of the cluster's jobs for one of OCPS's."""
        lines = self.run("squeue", "-h", "-t", "all", "-o", "%i %k").splitlines()
        return [line.split()[0] for line in lines if line.endswith(f":{job_id}")]

    def stop(self) -> None:
        with contextlib.suppress(AssertionError):
            if "slurmctld" in self.processes:
                self.run("scancel", "--me", "--signal=KILL", "--full", check=False)
                self.run("scancel", "--me", check=False)
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
