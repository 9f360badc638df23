# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite Butlers that a killed job left in the middle of a change."""

from __future__ import annotations

__all__ = ["roll_back"]

import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from ...jobs.errors import BackendError

BUSY_TIMEOUT = 3.0
"""How long (s) to wait for a job that is writing."""


def roll_back(repo: str) -> None:
    """Undo what a killed writer left unfinished in the SQLite database of a local Butler.

    SQLite does so by itself when a database with such a journal is opened
    for writing. But a Butler that is opened for reading, as each pipeline
    does first, fails instead.

    Parameters
    ----------
    repo : `str`
        The Butler repository.

    Raises
    ------
    BackendError
        If there is such a journal and it cannot be undone.
    """
    if urlsplit(repo).scheme:
        return
    for journal in Path(repo).glob("*.sqlite3-journal"):
        file = journal.with_name(journal.name.removesuffix("-journal"))
        try:
            # Reading is enough, for a connection that may write.
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
                f" undone ({error}); {journal.name} must stay beside it, both writable for this account"
            ) from None
