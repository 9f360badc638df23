# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of requests to a server, classified by what a caller can do about them."""

from __future__ import annotations

__all__ = ["ClientError", "DocumentError", "RefusedError", "UnknownError", "UnreachableError"]


class ClientError(Exception):
    """Base class; the message is for people and contains no secret.

    Parameters
    ----------
    reason : `str`
        What happened.
    status : `int`
        HTTP status of the answer; 0 if there was none.
    """

    def __init__(self, reason: str, *, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status

    def _render_traceback_(self) -> list[str]:
        """Return the text that a notebook shows: the reason without a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UnreachableError(ClientError):
    """The server does not answer, or not sensibly; a later request may succeed.

    Parameters
    ----------
    reason : `str`
        What happened.
    sent : `bool`
        Whether the request may have been processed all the same.
    reached : `bool`
        Whether there was an answer.
    status : `int`
        HTTP status of the answer; 0 if there was none.
    """

    def __init__(self, reason: str, *, sent: bool = False, reached: bool = False, status: int = 0) -> None:
        super().__init__(reason, status=status)
        self.sent = sent
        self.reached = reached


class RefusedError(ClientError):
    """The server understood the request and refused it."""


class UnknownError(RefusedError):
    """The server has no such job, list or result."""


class DocumentError(Exception):
    """A document from a server is not valid; the message says what was found."""
