# SPDX-License-Identifier: GPL-3.0-or-later
"""``run_uws.py``: the engine with its HTTP server, without SAL."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import getpass
import importlib.util
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .config import ConfigError, HttpConfig, InstanceConfig, SalIndex
from .host import Host, read_instance
from .http.secrets_file import hash_password, hash_token
from .jobs.errors import JobError
from .jobs.own_process import limit_heaps
from .logs import log_to_stderr

DEMO = Path(__file__).resolve().parent / "config_package" / "OCPS" / "v4" / "demo.yaml"

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve OCPS over HTTP: UWS 1.1 and Rubin's JSON dialect.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, help="configuration file, as for the CSC")
    source.add_argument("--demo", action="store_true", help="serve DemoCam, with a Butler made for it")
    source.add_argument(
        "--hash", choices=("password", "token"), help="read a secret and print its hash for http/auth/file"
    )
    parser.add_argument(
        "--index",
        type=int,
        default=int(SalIndex.LATISS),
        help="which instance of the configuration (SAL index; default: 1)",
    )
    parser.add_argument("--host", help="address to listen at (default: as configured, or 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen at (default: as configured, or 8080)")
    parser.add_argument("--work-dir", help="directory of the job store, logs and outputs")
    parser.add_argument(
        "--loglevel",
        type=str.upper,
        choices=LEVELS,
        default="INFO",
        help="how much is logged (default: INFO)",
    )
    parser.add_argument(
        "--log-json", action="store_true", help="log JSON: one object on each line, with job id and owner"
    )
    return parser.parse_args(arguments)


def _load(arguments: argparse.Namespace) -> InstanceConfig:
    if arguments.demo:
        _prepare_demo(arguments)
    config = read_instance(DEMO if arguments.demo else arguments.config, arguments.index)
    http = (config.http or HttpConfig()).overridden()
    changes: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("host", "port") if getattr(arguments, name) is not None
    }
    # The command line takes precedence over the environment.
    for name in changes:
        os.environ.pop(f"API_{name.upper()}", None)
    if arguments.demo:
        # The demo listens on this machine alone, and only while somebody tries it.
        changes["auth"] = http.auth.model_copy(update={"open": True})
    update: dict[str, Any] = {"http": http.model_copy(update=changes)}
    if arguments.work_dir and not arguments.demo:
        update["work_dir"] = arguments.work_dir
    return config.model_copy(update=update)


def _prepare_demo(arguments: argparse.Namespace) -> None:
    """Make a DemoCam Butler, and set the environment variables that the demo's configuration uses."""
    found = importlib.util.find_spec("democam")
    if found is None or found.origin is None:
        raise ConfigError("--demo needs the package democam: pip install ./demo")
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "ocps" / "demo"
    work_dir = Path(arguments.work_dir).absolute() if arguments.work_dir else state
    os.environ.setdefault("DEMOCAM_DIR", str(Path(found.origin).resolve().parents[2]))
    os.environ.setdefault("DEMOCAM_REPO", str(work_dir / "repo"))
    os.environ["OCPS_WORK_DIR"] = str(work_dir)
    # In a process of its own: this one never imports the Butler.
    command = [sys.executable, "-m", "democam.make_repo", os.environ["DEMOCAM_REPO"], "--exist-ok"]
    made = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        raise ConfigError(f"the DemoCam Butler could not be made: {made.stderr.strip()[-500:]}")


async def _serve(config: InstanceConfig, log: logging.Logger) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host = Host(log)
    stopping = asyncio.ensure_future(stop.wait())
    starting = asyncio.ensure_future(host.configure(config))
    try:
        # A signal ends the program even while a slow environment is being checked.
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
            await host.end_jobs()
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.wait({starting, stopping})
        await host.close()


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line.

    Parameters
    ----------
    arguments : `list` [`str`] or `None`
        Arguments; `None` for those of the process.

    Returns
    -------
    status : `int`
        0 after a clean end, 1 if the server could not be started.
    """
    parsed = _parse(arguments)
    if parsed.hash:
        # Not an argument, which everybody on the machine could read.
        asked = sys.stdin.isatty()
        secret = getpass.getpass(f"{parsed.hash}: ") if asked else sys.stdin.readline().rstrip("\n")
        print(hash_password(secret) if parsed.hash == "password" else hash_token(secret))
        return 0
    limit_heaps()
    log_to_stderr(as_json=parsed.log_json)
    log = logging.getLogger("ocps")
    try:
        log.setLevel(parsed.loglevel)
        asyncio.run(_serve(_load(parsed), log))
    except (ConfigError, JobError) as error:
        print(f"run_uws: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
