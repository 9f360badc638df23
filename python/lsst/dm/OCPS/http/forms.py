# SPDX-License-Identifier: GPL-3.0-or-later
"""Forms of UWS clients, with or without files."""

from __future__ import annotations

__all__ = ["Form", "parse_form", "read_form"]

import asyncio
import contextlib
import errno
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from ..jobs.definition import JobDefinition
from ..jobs.errors import RequestError
from ..jobs.parameters import UPLOAD_PREFIX
from ..jobs.workspace import Workspace
from .bodies import Clock, read_body
from .context import Service
from .uploads import INPUTS, Upload

CONTROLS = frozenset(
    {
        "PHASE",
        "RUNID",
        "ACTION",
        "DESTRUCTION",
        "EXECUTIONDURATION",
        "WAIT",
        "PREREQ_JOBS",
        "PRIORITY",
        "DRYRUN",
    }
)
"""Control parameters of UWS, and three of OCPS; their case is ignored, as UWS requires."""

MAX_FIELDS = 1000
MAX_NAME = 200
"""Longest name (characters) of a part of a form."""

CHUNK = 1 << 18


@dataclass
class Form:
    """A form from a client.

    Parameters
    ----------
    controls : `dict` [`str`, `str`]
        Control parameters, by name in upper case.
    fields : `list`
        Names and values of the other fields.
    files : `dict` [`str`, `pathlib.Path`]
        Files in the form, by the name of their part.
    """

    controls: dict[str, str] = field(default_factory=dict)
    fields: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, fields: Iterable[tuple[str, str]]) -> None:
        """Add fields.

        Raises
        ------
        RequestError
            If a control parameter has two different values.
        """
        for name, value in fields:
            if (control := name.upper()) in CONTROLS:
                if self.controls.setdefault(control, value.strip()) != value.strip():
                    raise RequestError(f"{control} is given twice")
            else:
                self.fields.append((name, value))

    def parameters(self, definition: JobDefinition, known_files: Iterable[str] = ()) -> dict[str, str]:
        """Return the parameters of a job.

        Parameters
        ----------
        definition : `JobDefinition`
            The definition of the job.
        known_files : `~collections.abc.Iterable` [`str`]
            File parameters that the job has a file for already.

        Raises
        ------
        RequestError
            If a parameter is given twice, or refers to a file that is not in
            the form.
        """
        names = {parameter.name.lower(): parameter.name for parameter in definition.parameters}
        files = {parameter.name for parameter in definition.parameters if parameter.type == "file"}
        values: dict[str, str] = {}
        mistakes = []
        used: set[str] = set()
        for name, value in self.fields:
            name = names.get(name.lower(), name)
            if name in values:
                mistakes.append(f"{name}: given twice")
            if name in files and value.startswith(UPLOAD_PREFIX):
                part = value.removeprefix(UPLOAD_PREFIX)
                if part not in self.files and not (part == name and name in known_files):
                    mistakes.append(f"{name}: no file {part[:80]!r} came with the request")
                    continue
                if part in self.files:
                    self.files[name] = self.files[part]
                used.add(part)
                value = UPLOAD_PREFIX + name
            values[name] = value
        for part in self.files:
            name = names.get(part.lower(), part)
            if name in files and name not in values:
                self.files[name] = self.files[part]
                values[name] = UPLOAD_PREFIX + name
            elif name not in files and part not in used:
                mistakes.append(f"{part[:80]}: a file was sent, but this is not a file parameter")
        if mistakes:
            raise RequestError("; ".join(mistakes))
        return values

    async def keep_files(self, workspace: Workspace, values: dict[str, str]) -> None:
        """Link the files of parameters into a job's directory."""
        wanted = {name for name, value in values.items() if value == UPLOAD_PREFIX + name}
        inputs = workspace.root / INPUTS
        for name in wanted & self.files.keys():
            inputs.mkdir(parents=True, exist_ok=True)
            (inputs / name).unlink(missing_ok=True)
            (inputs / name).hardlink_to(self.files[name])


@contextlib.asynccontextmanager
async def read_form(request: web.Request, service: Service, owner: str) -> AsyncIterator[Form]:
    """Read a form; its files are removed at the end of the context unless `Form.keep_files` linked them.

    Parameters
    ----------
    request : `aiohttp.web.Request`
        The request.
    service : `Service`
        Has the limits, and the work directory for temporary files.
    owner : `str`
        Owner of the job.

    Raises
    ------
    RequestError
        If the form cannot be read.
    aiohttp.web.HTTPException
        If it is too long, too slow, or of another media type.
    """
    form = Form()
    form.add(request.query.items())
    if request.content_type == "multipart/form-data":
        await service.uploads.check()
        work_dir = service.manager.workspaces.work_dir
        with (
            service.uploads.arriving(owner) as upload,
            tempfile.TemporaryDirectory(prefix="upload-", dir=work_dir) as folder,
        ):
            await _read_multipart(request, form, Path(folder), upload, service.config.max_upload)
            yield form
        return
    body = await read_body(request)
    if body:
        if request.content_type not in ("application/x-www-form-urlencoded", "application/octet-stream"):
            raise web.HTTPUnsupportedMediaType(
                text="Expected application/x-www-form-urlencoded or multipart/form-data"
            )
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"The form cannot be read: {error}") from None
        form.add(parse_form(text))
    yield form


def parse_form(text: str) -> list[tuple[str, str]]:
    """Return the fields of a URL-encoded form.

    Raises
    ------
    RequestError
        If it cannot be read.
    """
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise RequestError(f"The form cannot be read: {error}") from None


async def _read_multipart(
    request: web.Request, form: Form, folder: Path, upload: Upload, max_upload: int
) -> None:
    length = 0
    fields = []
    clock = Clock()
    try:
        reader = await request.multipart()
        while (part := await clock.bound(reader.next())) is not None:
            if isinstance(part, MultipartReader) or not part.name:
                raise RequestError("The form cannot be read: a part has no name")
            if not part.name.isprintable() or len(part.name) > MAX_NAME:
                raise RequestError(f"The form cannot be read: {part.name[:80]!a} is not the name of a part")
            if part.filename is not None:
                path = folder / str(len(form.files))
                await _save(part, path, clock, upload, max_upload)
                form.files[part.name] = path
            else:
                value = await _text(part, clock, request.client_max_size - length)
                length += len(value)
                fields.append((part.name, value))
            if len(fields) + len(form.files) > MAX_FIELDS:
                raise RequestError(f"The form has more than {MAX_FIELDS} fields")
    except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError) as error:
        words = "".join(character for character in str(error)[:200] if character.isprintable())
        raise RequestError(f"The form cannot be read: {words or hdrs.CONTENT_TYPE}") from None
    form.add(fields)


async def _text(part: BodyPartReader, clock: Clock, limit: int) -> str:
    value = bytearray()
    while chunk := await clock.bound(part.read_chunk(CHUNK)):
        value += chunk
        clock.received += len(chunk)
        if len(value) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, len(value))
    return value.decode()


async def _save(part: BodyPartReader, path: Path, clock: Clock, upload: Upload, max_upload: int) -> None:
    try:
        with path.open("wb") as file:
            while chunk := await clock.bound(part.read_chunk(CHUNK)):
                clock.received += len(chunk)
                upload.add(len(chunk), max_upload)
                await asyncio.to_thread(file.write, chunk)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise web.HTTPInsufficientStorage(text="The disk is full; no files are accepted now\n") from None
