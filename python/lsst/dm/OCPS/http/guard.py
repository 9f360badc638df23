# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to every request, whatever its address: checks, errors, audit log, and names in the answer."""

from __future__ import annotations

__all__ = ["Guard", "Handler"]

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .. import audit
from ..jobs.errors import (
    BackendError,
    JobError,
    NotAllowedError,
    QueueFullError,
    RequestError,
    StoreError,
    TransitionError,
    UnknownJobError,
    WouldFailError,
)
from .connections import Connection
from .context import CALLER, DONE, GUARDED, ORIGIN, Service
from .signature import sign
from .site import SAFE_METHODS, Site

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: dict[type[JobError], int] = {
    RequestError: 400,
    NotAllowedError: 403,
    TransitionError: 403,
    UnknownJobError: 404,
    QueueFullError: 503,
    StoreError: 503,
    BackendError: 503,
    WouldFailError: 422,
}

_FIELD_NAMES = {"execution_duration": "executionDuration", "run_id": "runId"}
"""Names of UWS by those of `~lsst.dm.OCPS.jobs.model.JobRequest`, where they differ."""


class Guard:
    """Answers all requests of a server, with the application behind it.

    This is not a middleware of aiohttp, which would take longer than all
    that is done here: clients poll jobs every second.

    Parameters
    ----------
    service : `Service`
        The server's parts.
    serve : `~collections.abc.Callable`
        Finds the handler of a request and calls it: the application.
    """

    def __init__(self, service: Service, serve: Handler) -> None:
        self._service = service
        self._serve = serve
        self._site = Site(service.config)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; write it into the audit log if it may change something."""
        connection: Connection = request.protocol  # type: ignore[assignment]
        response: web.StreamResponse | None = None
        connection.begin_request()
        try:
            self._check(request)
            request[GUARDED] = True
            try:
                response = await self._serve(request)
            except web.HTTPException:
                if request.match_info.http_exception is not None:
                    # Strangers do not learn which addresses exist.
                    request[CALLER] = await self._service.authenticator.caller(request)
                raise
        except web.HTTPException as answer:
            response = answer
            raise
        except Exception as error:
            response = self._explain(request, error)
        finally:
            connection.end_request()
            if request.method not in SAFE_METHODS:
                self._record(request, connection, 500 if response is None else response.status)
            # The head of a stream has been sent.
            if response is not None and not response.prepared:
                sign(response)
        return response

    def _check(self, request: web.Request) -> None:
        headers = request.headers
        if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":
            raise web.HTTPUnsupportedMediaType(text="Compressed requests are not read\n")
        self._site.check(request)

    def _explain(self, request: web.Request, error: Exception) -> web.Response:
        """Return the answer that tells a client about an error."""
        if isinstance(error, JobError):
            return _answer_to(error)
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return web.Response(text="The request cannot be read\n", status=400)
        if isinstance(error, ConnectionError):
            # The client has disconnected.
            if request.transport:
                request.transport.abort()
            return web.Response(status=499)
        # Details go to the log only: they may contain data that the caller must not see.
        self._service.log.error(f"{request.method} {request.path} failed", exc_info=error)
        return web.Response(text="An error in OCPS; its log has the details\n", status=500)

    def _record(self, request: web.Request, connection: Connection, status: int) -> None:
        """Write a request into the audit log."""
        done = request.get(DONE, {"action": f"{request.method} {request.path}"})
        if not done:
            return
        service = self._service
        caller = request.get(CALLER)
        if service.authenticator.is_proxy(connection.peer) and "X-Forwarded-For" in request.headers:
            done = {**done, "forwarded_for": request.headers["X-Forwarded-For"]}
        audit.record(
            service.manager.workspaces.work_dir,
            origin=ORIGIN,
            owner=caller.name if caller else "",
            address=connection.peer,
            outcome=f"HTTP {status}",
            refused=status >= 400,
            **done,
        )


def _answer_to(error: JobError) -> web.Response:
    """Return the answer that tells a client about an error of its request, or of the engine."""
    status = _STATUS.get(type(error), 500)
    headers = {"Retry-After": "10"} if status == 503 else {}
    if isinstance(error, RequestError):
        error = error.renamed(_FIELD_NAMES)
    # The message may repeat text of the client that is not valid Unicode.
    words = f"{error}\n".encode(errors="backslashreplace")
    return web.Response(
        body=words, status=status, headers=headers, content_type="text/plain", charset="utf-8"
    )
