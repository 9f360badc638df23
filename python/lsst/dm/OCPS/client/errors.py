# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of requests to a server, sorted by what a caller can do about them."""

from __future__ import annotations

__all__ = ["ClientError", "DocumentError", "RefusedError", "UnknownError", "UnreachableError"]


class ClientError(Exception):
    """Base class; the text is for people and holds no secret.

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
        """Return what a notebook shows: the reason, without the frames of libraries."""
        return [f"{type(self).__name__}: {self}"]


class UnreachableError(ClientError):
    """The server could not be asked, or its answer makes no sense; later it may.

    Parameters
    ----------
    reason : `str`
        What happened.
    sent : `bool`
        Whether the request may have been carried out all the same.
    reached : `bool`
        Whether something answered.
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
    """A document from a server is not valid; the text says what was found."""
