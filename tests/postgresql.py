# SPDX-License-Identifier: GPL-3.0-or-later
"""A private PostgreSQL server for tests, benchmarks and the fault campaign."""

from __future__ import annotations

__all__ = ["Cluster", "postgresql_server"]

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg


class Cluster:
    """A PostgreSQL server of one's own, reached through a socket in a temporary folder.

    Parameters
    ----------
    program : `str`
        Path of ``postgres``; the other programs lie beside it.
    fsync : `bool`
        Whether what is committed is brought to the disk.
    """

    def __init__(self, program: str | Path, *, fsync: bool = False) -> None:
        self._programs = Path(program).resolve().parent
        self._fsync = "on" if fsync else "off"
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            # It refuses to run as root.
            user = pwd.getpwnam("postgres" if _has_user("postgres") else "nobody")
            self._prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def create(self) -> None:
        """Make the cluster and start it."""
        self._run("initdb", "-D", f"{self.folder}/data", "-A", "trust", "-U", "ocps", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync={self._fsync}"
        log = f"{self.folder}/log"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-t", "120", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """End the server: ``fast`` in good order, ``immediate`` as in a crash."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "-t", "120", "stop")

    def remove(self) -> None:
        """End the server if it runs, and delete its files."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all its processes, those of its connections too, without ending them."""
        pids = [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]

    def connect(self, name: str) -> psycopg.Connection:
        """Return a connection to a database, without transactions."""
        return psycopg.connect(host=str(self.folder), user="ocps", dbname=name, autocommit=True)

    def url(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://ocps@/{name}?host={self.folder}"

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._prefix, str(self._programs / name), *arguments]
        # Not into a pipe: the server would inherit it, and nobody would see its end.
        with tempfile.TemporaryFile() as said:
            ended = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
            )
            if ended.returncode:
                said.seek(0)
                raise RuntimeError(f"{name} failed: {said.read().decode(errors='replace')}")


@contextlib.contextmanager
def postgresql_server(program: Path, *, fsync: bool = False) -> Iterator[str]:
    """Run a server with an empty database for a Butler's registry.

    Parameters
    ----------
    program : `pathlib.Path`
        The program ``postgres``; the others are beside it.
    fsync : `bool`
        Whether what is committed is brought to the disk.

    Returns
    -------
    url : `str`
        SQLAlchemy URL of an empty database with the extension ``btree_gist``.
    """
    cluster = Cluster(program, fsync=fsync)
    try:
        cluster.create()
        cluster.create_database("butler")
        with cluster.connect("butler") as connection:
            connection.execute("CREATE EXTENSION btree_gist")
        yield cluster.url("butler")
    finally:
        cluster.remove()


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
