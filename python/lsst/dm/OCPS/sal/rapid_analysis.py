# SPDX-License-Identifier: GPL-3.0-or-later
"""Index 101: what ``execute`` says goes to Rapid Analysis through Redis.

No job and no event: the reader pops from the left of each list.
"""

from __future__ import annotations

__all__ = ["RapidAnalysis"]

import asyncio
import json
import os

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..jobs.errors import BackendError, RequestError

TIMEOUT = 4.0
"""How long (s) Redis may take to answer."""


class RapidAnalysis:
    """Pushes to the Redis that REDIS_HOST, REDIS_PORT and REDIS_PASSWORD name."""

    @staticmethod
    def address() -> tuple[str, int]:
        """Return host and port.

        Raises
        ------
        BackendError
            If they are not set, or no host and port.
        """
        host, port = os.environ.get("REDIS_HOST"), os.environ.get("REDIS_PORT") or "6379"
        if not host:
            raise BackendError("REDIS_HOST is not set, so Rapid Analysis cannot be reached")
        if not port.isdecimal():
            raise BackendError(f"REDIS_PORT is {port!r}; it must be a number")
        return host, int(port)

    async def push(self, config: str) -> None:
        """Push each key and value of a JSON object to the list of that key.

        Parameters
        ----------
        config : `str`
            The JSON object. Values that are not text are pushed as JSON.

        Raises
        ------
        RequestError
            If it is none.
        BackendError
            If Redis cannot be reached or does not answer in time.
        """
        try:
            items = json.loads(config)
        except ValueError as error:
            raise RequestError(f"config is not JSON: {error}") from None
        if not isinstance(items, dict) or not items:
            raise RequestError('config must be a JSON object with at least one key, such as {"KEY": "value"}')
        host, port = self.address()
        client = redis.asyncio.Redis(
            host=host,
            port=port,
            password=os.environ.get("REDIS_PASSWORD") or None,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # A push that was sent again after a doubtful answer would be there twice.
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with asyncio.timeout(TIMEOUT), client.pipeline(transaction=True) as pipeline:
                for key, value in items.items():
                    pipeline.lpush(key, value if isinstance(value, str) else json.dumps(value))
                await pipeline.execute()
        except (TimeoutError, redis.exceptions.TimeoutError):
            words = f"did not answer within {TIMEOUT:g} s; it may have been pushed or not"
            raise BackendError(f"Redis at {host} {words}") from None
        except redis.exceptions.RedisError as error:
            raise BackendError(f"Redis at {host}: {error}") from None
        finally:
            await client.aclose()
