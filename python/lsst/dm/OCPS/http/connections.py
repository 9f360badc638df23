# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of the HTTP server, with limits of their number and of silence.

Every connection needs a descriptor, and the engine needs descriptors to run
jobs. So connections are limited in total and per peer, below the limit of the
process. At the limit an idle connection is closed for a new one; if none is
idle, the new one is refused with 503.
"""

from __future__ import annotations

__all__ = ["Connection", "ConnectionLimits", "Credentials", "Listener"]

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .signature import sign

HEADER_TIMEOUT = 10.0
"""How long (s) a client may take to send the head of its first request."""

KEEPALIVE_TIMEOUT = 60.0
"""How long (s) a connection is kept open between requests."""

WRITE_TIMEOUT = 60.0
"""Disconnect a client that accepts no data for this long (s)."""

LINGERING_TIME = 1.0
"""How long (s) to read the rest of a request that was refused before its end."""

JUST_SERVED = 1.0
"""How long (s) after an answer a connection does not count as idle, because it may still be sent."""

BACKLOG = 1024
"""How many connections may wait in the kernel to be accepted."""

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections there may be.

    Parameters
    ----------
    total : `int`
        In total.
    per_peer : `int`
        From one address, or from one local account at a Unix socket.
    unlimited : `~collections.abc.Callable`
        Returns whether ``per_peer`` does not apply to a peer, because it is a
        proxy that many clients share.
    """

    total: int
    per_peer: int
    unlimited: Callable[[str], bool] = lambda peer: False

    @classmethod
    def of(
        cls, total: int, per_peer: int, open_files: int, unlimited: Callable[[str], bool]
    ) -> ConnectionLimits:
        """Return the limits for a process that may open ``open_files`` files.

        A quarter of the descriptors, at least 128, is reserved for the
        engine. A limit of 0 means its default.
        """
        available = max(16, open_files - max(128, open_files // 4))
        total = min(total or 4096, available)
        return cls(total, min(per_peer or max(1, total // 2), total), unlimited)


@dataclass(frozen=True)
class Credentials:
    """The process at the other end of a Unix socket, as identified by the kernel.

    Parameters
    ----------
    pid, uid, gid : `int`
        Ids of its process, account and group when it connected.
    """

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, sock: socket.socket) -> Credentials:
        """Return the credentials of the process that connected to a Unix socket."""
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return cls(*struct.unpack("3i", data))


class Connection(web.RequestHandler):
    """One connection, served by aiohttp.

    Parameters
    ----------
    listener : `Listener`
        The listener that accepted it.
    peer : `str`
        The peer: an address, or ``uid:`` and the id of a local account.
    credentials : `Credentials` or `None`
        The process at the other end of a Unix socket.
    server : `aiohttp.web.Server`
        Handles its requests.
    **options
        As for `aiohttp.web.RequestHandler`.
    """

    def __init__(
        self,
        listener: Listener,
        peer: str,
        credentials: Credentials | None,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.peer = peer
        self.credentials = credentials
        self.on_lost: set[Callable[[], None]] = set()
        """Called when the connection has ended."""
        self._listener = listener
        self._busy = 0
        self._served_at: float | None = None
        self._timer = loop.call_later(HEADER_TIMEOUT, self.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up at the end of the connection; called by the event loop."""
        self._timer.cancel()
        self._listener.discard(self)
        for call in list(self.on_lost):
            call()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP in one line, without repeating its text."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        self.logger.info(f"Request from {self.peer} cannot be read: {type(exc).__name__}")
        answer = web.Response(text="The request cannot be read\n", status=status)
        answer.force_close()
        sign(answer)
        return answer

    def begin_request(self) -> None:
        """Mark the connection as busy, because one of its requests is handled now."""
        if self._served_at is None:
            self._timer.cancel()
        self._busy += 1

    def end_request(self) -> None:
        """Mark the connection as no longer busy."""
        self._busy -= 1
        self._served_at = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether it can be closed without losing a request or an answer."""
        if self._busy:
            return False
        return self._served_at is None or time.monotonic() - self._served_at > JUST_SERVED

    def abort(self) -> None:
        """Close the connection immediately."""
        if self.transport is not None:
            self.transport.abort()


class Listener:
    """Accepts connections at sockets, within limits.

    This does not use ``loop.create_server``, which logs a traceback for every
    place in the backlog when no descriptors are free.

    Parameters
    ----------
    sockets : `~collections.abc.Sequence` [`socket.socket`]
        The sockets, listening and non-blocking.
    server : `aiohttp.web.Server`
        Handles the requests.
    limits : `ConnectionLimits`
        How many connections there may be.
    log : `logging.Logger`
        Gets warnings; should be limited in its rate.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        server: web.Server,
        limits: ConnectionLimits,
        log: logging.Logger,
    ) -> None:
        self.sockets = tuple(sockets)
        self.limits = limits
        self._server = server
        self._log = log
        # In the order of arrival.
        self._peers: dict[str, dict[Connection, None]] = {}
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """How many connections are open."""
        return self._count

    def start(self) -> None:
        """Start accepting connections."""
        self._tasks = [asyncio.create_task(self._accept_all(sock)) for sock in self.sockets]

    async def close(self) -> None:
        """Stop accepting connections; existing ones stay open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self.sockets:
            sock.close()

    def discard(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        mine = self._peers.get(connection.peer, {})
        if connection in mine:
            del mine[connection]
            self._count -= 1
            if not mine:
                del self._peers[connection.peer]

    async def _accept_all(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(sock)
            except OSError as error:
                # Most likely no descriptor is free; some will be when connections end.
                self._log.warning(f"No connection can be accepted: {error.strerror}")
                await asyncio.sleep(0.5)
                continue
            try:
                await self._accept(accepted, address)
            except (OSError, ValueError) as error:
                accepted.close()
                self._log.warning(f"A connection could not be accepted: {error}")
            # While connections wait, sock_accept returns without letting other tasks run.
            await asyncio.sleep(0)

    async def _accept(self, accepted: socket.socket, address: Any) -> None:
        credentials = None
        if accepted.family == socket.AF_UNIX:
            credentials = Credentials.of(accepted)
            peer = f"uid:{credentials.uid}"
        else:
            peer = str(_plain_address(address[0]))
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(WRITE_TIMEOUT * 1000))
        if not self._make_room(peer):
            self._log.warning(f"Connection from {peer} refused: {self._count} are open")
            with contextlib.suppress(OSError):
                accepted.send(_REFUSAL)
            accepted.close()
            return
        loop = asyncio.get_running_loop()
        connection = Connection(
            self,
            peer,
            credentials,
            self._server,
            loop,
            access_log=None,
            # Not decompressed: a megabyte could expand to a gigabyte.
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            lingering_time=LINGERING_TIME,
            logger=self._log,
        )
        self._peers.setdefault(peer, {})[connection] = None
        self._count += 1
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted)
        except BaseException:
            self.discard(connection)
            raise

    def _make_room(self, peer: str) -> bool:
        """Return whether one more connection from a peer is possible, after closing an idle one if needed."""
        mine = self._peers.get(peer, {})
        if len(mine) >= self.limits.per_peer and not self.limits.unlimited(peer):
            return self._close_idle(mine)
        if self._count >= self.limits.total:
            return self._close_idle(max(self._peers.values(), key=len))
        return True

    def _close_idle(self, connections: dict[Connection, None]) -> bool:
        found = next((connection for connection in connections if connection.idle), None)
        if found is None:
            return False
        self.discard(found)
        found.abort()
        return True


def _plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
