# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress that a job reports itself, over HTTP.

A job that runs where OCPS sees neither its files nor its process gets an
address and a token that is good for this job alone.
"""

from __future__ import annotations

__all__ = ["EventAddress", "EventKey"]

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreError

KEY_NAME = "event.key"


KEY_SIZE = 32
"""Length of the secret (bytes)."""


@dataclass(frozen=True)
class EventKey:
    """The secret from which the jobs' tokens are made.

    Parameters
    ----------
    key : `bytes`
        The secret.
    """

    key: bytes

    @classmethod
    def of(cls, work_dir: Path) -> EventKey:
        """Return the secret of a work directory, making one where there is none.

        Raises
        ------
        StoreError
            If it can be neither read nor written.
        """
        try:
            return cls._read_or_make(work_dir)
        except OSError as error:
            raise StoreError(f"{work_dir / KEY_NAME}: {error.strerror}") from None

    @classmethod
    def _read_or_make(cls, work_dir: Path) -> EventKey:
        path = work_dir / KEY_NAME
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = b""
        # One that a crash cut short could be guessed.
        if len(key) < KEY_SIZE:
            key = secrets.token_bytes(KEY_SIZE)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(key)
            temporary.replace(path)
        return cls(key)

    def token(self, job_id: str) -> str:
        """Return the token of a job."""
        return hmac.new(self.key, job_id.encode(), hashlib.sha256).hexdigest()

    def matches(self, job_id: str, token: str) -> bool:
        """Return whether this is the token of a job."""
        return hmac.compare_digest(self.token(job_id).encode(), token.encode())


@dataclass(frozen=True)
class EventAddress:
    """Where jobs may report.

    Parameters
    ----------
    url : `str`
        Address of the JSON dialect.
    key : `EventKey`
        Makes the tokens.
    """

    url: str
    key: EventKey

    def variables(self, job_id: str) -> dict[str, str]:
        """Return the environment variables that tell a job so."""
        return {
            "JOB_EVENT_URL": f"{self.url}/job/{job_id}/event",
            "JOB_EVENT_TOKEN": self.key.token(job_id),
        }
