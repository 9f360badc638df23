# SPDX-License-Identifier: GPL-3.0-or-later
"""Index 101: pass the ``config`` of ``execute`` to Rapid Analysis through Redis.

There is no job and no event; the reader pops from the left of each list.
"""

from __future__ import annotations

__all__ = ["RapidAnalysis"]

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..jobs.errors import BackendError, RequestError

TIMEOUT = 4.0
"""How long (s) Redis may take to answer."""


class RapidAnalysis:
    """Pushes values to the Redis server of REDIS_HOST, REDIS_PORT and REDIS_PASSWORD."""

    @staticmethod
    def address() -> tuple[str, int]:
        """Return host and port.

        Raises
        ------
        BackendError
            If REDIS_HOST is not set, or REDIS_PORT is not a number.
        """
        host, port = os.environ.get("REDIS_HOST"), os.environ.get("REDIS_PORT") or "6379"
        if not host:
            raise BackendError("REDIS_HOST is not set, so Rapid Analysis cannot be reached")
        if not re.fullmatch("[0-9]{1,5}", port):
            raise BackendError(f"REDIS_PORT is {port[:40]!r}; it must be a number")
        return host, int(port)

    async def check(self) -> None:
        """Check that Redis answers, and accepts the password.

        Raises
        ------
        BackendError
            If it does not.
        """
        async with self._connected() as client:
            await client.ping()

    async def push(self, config: str) -> None:
        """Push each key and value of a JSON object to the list of that key.

        Parameters
        ----------
        config : `str`
            The JSON object. Values that are not text are pushed as JSON.

        Raises
        ------
        RequestError
            If it is not a JSON object.
        BackendError
            If Redis cannot be reached or does not answer in time.
        """
        try:
            items = json.loads(config)
        except ValueError as error:
            raise RequestError(f"config is not JSON: {error}") from None
        if not isinstance(items, dict) or not items:
            raise RequestError('config must be a JSON object with at least one key, such as {"KEY": "value"}')
        doubt = "; whether it received the values is not known"
        async with self._connected(doubt) as client, client.pipeline(transaction=True) as pipeline:
            for key, value in items.items():
                pipeline.lpush(key, value if isinstance(value, str) else json.dumps(value))
            await pipeline.execute()

    @contextlib.asynccontextmanager
    async def _connected(self, doubt: str = "") -> AsyncIterator[redis.asyncio.Redis]:
        """Provide a connection for at most `TIMEOUT`; ``doubt`` is added to the error of a time-out."""
        host, port = self.address()
        client = redis.asyncio.Redis(
            host=host,
            port=port,
            password=os.environ.get("REDIS_PASSWORD") or None,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # No retry: a push whose answer was lost would be repeated.
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                yield client
        except (TimeoutError, redis.exceptions.TimeoutError):
            raise BackendError(f"Redis at {host} did not answer within {TIMEOUT:g} s{doubt}") from None
        except redis.exceptions.RedisError as error:
            raise BackendError(f"Redis at {host}: {error}") from None
        finally:
            await client.aclose()
