# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens with which jobs report their own progress over HTTP.

Each job gets the URL for its events, and a token that is valid for this job
only.
"""

from __future__ import annotations

__all__ = ["JobTokens", "job_variables"]

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from ..config import HttpConfig
from ..jobs.errors import StoreError

KEY_NAME = "event.key"
"""Name of the file in the work directory that holds the secret."""

KEY_SIZE = 32
"""Length of the secret (bytes)."""


@dataclass(frozen=True)
class JobTokens:
    """Creates and checks the tokens of jobs.

    Parameters
    ----------
    key : `bytes`
        The secret from which tokens are derived.
    """

    key: bytes

    @classmethod
    def of(cls, work_dir: Path) -> JobTokens:
        """Return the tokens of a work directory; create the secret if it does not exist.

        Raises
        ------
        StoreError
            If the secret can be neither read nor written.
        """
        try:
            return cls._read_or_create(work_dir)
        except OSError as error:
            raise StoreError(f"{work_dir / KEY_NAME}: {error.strerror}") from None

    @classmethod
    def _read_or_create(cls, work_dir: Path) -> JobTokens:
        path = work_dir / KEY_NAME
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = b""
        # A secret that a crash has truncated could be guessed.
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
        return hmac.compare_digest(self.token(job_id).encode(), token.encode(errors="surrogateescape"))


def job_variables(config: HttpConfig | None, work_dir: Path, job_id: str) -> dict[str, str]:
    """Return the environment variables with which a job can report its progress.

    Parameters
    ----------
    config : `HttpConfig` or `None`
        The configuration of the HTTP face, if there is one.
    work_dir : `pathlib.Path`
        The work directory.
    job_id : `str`
        The job.

    Returns
    -------
    variables : `dict` [`str`, `str`]
        JOB_EVENT_URL and JOB_EVENT_TOKEN; empty if OCPS does not know its own
        URL.
    """
    http = config.overridden() if config else None
    if http is None or not http.public_url():
        return {}
    return {
        "JOB_EVENT_URL": f"{http.public_url()}{http.api_root}/job/{job_id}/event",
        "JOB_EVENT_TOKEN": JobTokens.of(work_dir).token(job_id),
    }
