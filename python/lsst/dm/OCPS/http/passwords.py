# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on how often passwords are checked, because each check takes 50 ms of CPU time."""

from __future__ import annotations

__all__ = ["PasswordGate", "TooManyTriesError"]

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

PARALLEL = 2
"""How many passwords are checked at a time; each check takes 16 MB."""

MAX_WAITING = 32
"""How many checks may wait in total."""

MAX_WAITING_OF_PEER = 8
"""How many checks of one peer may wait."""

FREE_TRIES = 4
"""How many wrong passwords for one name a peer may send without delay."""

FIRST_DELAY = 0.5
"""Delay (s) after the next wrong password; it doubles with each further one."""

LONGEST_DELAY = 60.0
"""The longest such delay (s)."""

PEER_TRIES = 20
"""How many wrong passwords a peer may send without delay, for all names together."""

PEER_RATE = 0.5
"""How fast (per s) these `PEER_TRIES` are restored."""

REMEMBERED = 10_000
"""How many peers, and names of peers, are remembered."""


class TooManyTriesError(Exception):
    """A password is not checked now.

    Parameters
    ----------
    delay : `float`
        Time (s) after which to try again.
    """

    def __init__(self, delay: float) -> None:
        super().__init__(f"Too many wrong passwords, or too many at a time; try again in {delay:.0f} s")
        self.delay = delay


@dataclass
class _Failures:
    """Wrong passwords of one peer for one name."""

    count: int = 0
    blocked_until: float = 0.0


@dataclass
class _Tries:
    """How many of `PEER_TRIES` a peer has left."""

    left: float
    at: float


class PasswordGate:
    """Decides which passwords are checked now.

    A user who has sent the right password from a peer before is not delayed
    by wrong passwords of others from the same peer.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()
        self._tries: OrderedDict[str, _Tries] = OrderedDict()
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(PARALLEL)

    async def check(self, peer: str, name: str, right: Callable[[], Awaitable[bool]]) -> bool:
        """Check a password by ``right`` when it is this peer's turn; return whether it is right.

        Parameters
        ----------
        peer : `str`
            The peer that sent the password.
        name : `str`
            The user.
        right : `~collections.abc.Callable`
            Checks the password.

        Raises
        ------
        TooManyTriesError
            If the password is not checked.
        """
        key = (peer, name)
        self._check_delay(key)
        if self._waiting.total() >= MAX_WAITING or self._waiting[peer] >= MAX_WAITING_OF_PEER:
            raise TooManyTriesError(1.0)
        self._waiting[peer] += 1
        try:
            async with self._slots:
                # Others may have failed for the same name while this one waited.
                self._check_delay(key)
                found = await right()
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]
        if found:
            self._failures.pop(key, None)
            _remember(self._welcome, key, None)
        else:
            self._count_failure(key)
        return found

    def _check_delay(self, key: tuple[str, str]) -> None:
        now = time.monotonic()
        if (failures := self._failures.get(key)) and failures.blocked_until > now:
            raise TooManyTriesError(max(1.0, failures.blocked_until - now))
        if key not in self._welcome and self._peer(key[0], now).left < 1:
            raise TooManyTriesError(1 / PEER_RATE)

    def _count_failure(self, key: tuple[str, str]) -> None:
        now = time.monotonic()
        self._peer(key[0], now).left -= 1
        failures = self._failures.setdefault(key, _Failures())
        failures.count += 1
        if (counted := failures.count - FREE_TRIES) > 0:
            failures.blocked_until = now + min(FIRST_DELAY * 2.0 ** min(counted - 1, 20), LONGEST_DELAY)
        _remember(self._failures, key, failures)

    def _peer(self, peer: str, now: float) -> _Tries:
        tries = self._tries.get(peer) or _Tries(PEER_TRIES, now)
        tries.left = min(PEER_TRIES, tries.left + (now - tries.at) * PEER_RATE)
        tries.at = now
        _remember(self._tries, peer, tries)
        return tries


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
