# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for something while the server may be away for a time."""

from __future__ import annotations

__all__ = ["Away", "Patience"]

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import UnreachableError

T = TypeVar("T")

Away = Callable[[str], None]
"""Called with the reason when the server cannot be reached, with an empty text when it answers again."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Pauses (s) between attempts to reach a server that is away."""


class Patience:
    """Sends requests again for as long as a server may be away.

    Parameters
    ----------
    limit : `float`
        How long (s) it may be away at a stretch.
    away : `~collections.abc.Callable` or `None`
        Called when it cannot be reached, and when it answers again.
    """

    def __init__(self, limit: float, away: Away | None) -> None:
        self._limit = limit
        self._away = away
        self._since: float | None = None
        self._pause = FIRST_PAUSE

    async def ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a request that does no harm when it is carried out twice.

        Raises
        ------
        ClientError
            If it is refused, or the server was away for too long.
        """
        while True:
            try:
                answer = await request()
            except UnreachableError as error:
                await self.failed(error)
            else:
                self.answered()
                return answer

    async def failed(self, error: UnreachableError) -> None:
        """Pause after a failure.

        Raises
        ------
        UnreachableError
            The failure, if the server has been away for too long.
        """
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
            if self._away:
                self._away(str(error))
        if now - self._since > self._limit:
            raise error
        await asyncio.sleep(random.uniform(0.5, 1) * self._pause)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def answered(self) -> None:
        """Begin anew: the server has answered."""
        if self._since is not None and self._away:
            self._away("")
        self._since, self._pause = None, FIRST_PAUSE
