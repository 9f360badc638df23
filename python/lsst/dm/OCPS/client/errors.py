# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong at a server, sorted by what a caller can do about it."""

from __future__ import annotations

__all__ = ["ClientError", "RefusedError", "UnknownError", "UnreachableError"]


class ClientError(Exception):
    """Base of all; the text is for people and holds no secret."""


class UnreachableError(ClientError):
    """The server could not be asked, or gave no sensible answer; later it may.

    Parameters
    ----------
    reason : `str`
        What happened.
    sent : `bool`
        Whether the request may have been carried out all the same.
    """

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent


class RefusedError(ClientError):
    """The server understood and said no."""


class UnknownError(RefusedError):
    """The server has no such job, list or result."""
