# SPDX-License-Identifier: GPL-3.0-or-later
"""Roll back unfinished transactions of killed jobs in SQLite Butlers."""

from __future__ import annotations

__all__ = ["roll_back"]

import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from ...jobs.errors import BackendError

BUSY_TIMEOUT = 3.0
"""How long (s) to wait for a job that is writing."""


def roll_back(repo: str) -> None:
    """Roll back an unfinished transaction in the SQLite database of a local Butler.

    SQLite does so itself when a database with such a journal is opened for
    writing. But a Butler that is opened for reading, which is the first thing
    that each pipeline does, fails instead.

    Parameters
    ----------
    repo : `str`
        The Butler repository.

    Raises
    ------
    BackendError
        If there is such a journal and it cannot be rolled back.
    """
    if urlsplit(repo).scheme:
        return
    for journal in Path(repo).glob("*.sqlite3-journal"):
        file = journal.with_name(journal.name.removesuffix("-journal"))
        try:
            # A read rolls back the journal if the connection may write.
            connection = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT
            )
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                # A live job writes, so the journal is its own.
                continue
            raise BackendError(
                f"butler {repo}: a killed job left a change of {file.name} unfinished, which could not be"
                f" rolled back ({error}); {journal.name} must stay beside it, both writable for this account"
            ) from None
