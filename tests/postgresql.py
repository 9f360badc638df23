# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server with an empty database for a Butler's registry."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg


@contextlib.contextmanager
def postgresql_server(program: Path, *, fsync: bool = False) -> Iterator[str]:
    """Run a server of its own, which listens on a Unix socket alone.

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
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    prefix: list[str] = []
    if os.geteuid() == 0:
        # It refuses to run as root.
        user = pwd.getpwnam("postgres" if _has_user("postgres") else "nobody")
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    bin_dir = program.resolve().parent
    log = folder / "log"

    def run(name: str, *arguments: str) -> None:
        command = [*prefix, str(bin_dir / name), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    run("initdb", "-D", str(data), "-A", "trust", "-U", "ocps", "--no-sync")
    options = (
        f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync={'on' if fsync else 'off'}"
    )
    run("pg_ctl", "-D", str(data), "-w", "-l", str(log), "-o", options, "start")
    try:
        with psycopg.connect(host=str(folder), user="ocps", dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE butler")
        with psycopg.connect(host=str(folder), user="ocps", dbname="butler", autocommit=True) as connection:
            connection.execute("CREATE EXTENSION btree_gist")
        yield f"postgresql+psycopg://ocps@/butler?host={folder}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
