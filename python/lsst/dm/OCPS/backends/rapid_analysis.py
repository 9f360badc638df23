# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Index 101: what ``execute`` says goes to Rapid Analysis through Redis.

No job and no event: the reader pops from the left of each list.
"""

from __future__ import annotations

__all__ = ["RapidAnalysis"]

import json
import os

import redis.asyncio
import redis.exceptions

from ..jobs.errors import BackendError, RequestError

TIMEOUT = 5.0
"""How long (s) Redis may take to answer."""


class RapidAnalysis:
    """Pushes to the Redis that REDIS_HOST, REDIS_PORT and REDIS_PASSWORD name."""

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
            If Redis cannot be reached; then nothing was pushed.
        """
        try:
            items = json.loads(config)
        except ValueError as error:
            raise RequestError(f"config is not JSON: {error}") from None
        if not isinstance(items, dict) or not items:
            raise RequestError('config must be a JSON object with at least one key, such as {"KEY": "value"}')
        host = os.environ.get("REDIS_HOST")
        if not host:
            raise BackendError("REDIS_HOST is not set, so Rapid Analysis cannot be reached")
        client = redis.asyncio.Redis(
            host=host,
            port=int(os.environ.get("REDIS_PORT") or 6379),
            password=os.environ.get("REDIS_PASSWORD") or None,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
        )
        try:
            async with client.pipeline(transaction=True) as pipeline:
                for key, value in items.items():
                    pipeline.lpush(key, value if isinstance(value, str) else json.dumps(value))
                await pipeline.execute()
        except redis.exceptions.RedisError as error:
            raise BackendError(f"Redis at {host}: {error}") from None
        finally:
            await client.aclose()
