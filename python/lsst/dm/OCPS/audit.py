# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: who commanded what, and with what outcome.

``audit.jsonl`` in the work directory has one line for each command or request
that changes something, even if it was refused. A line is a JSON object with
``time`` (UTC), ``origin`` (``sal`` or ``http``), ``owner``, ``address`` (of
the connection, or the identity that a SAL command claims), ``action``,
``job_id``, ``outcome``, and further members of the face. Values of parameters
are in the record of the job instead.
"""

from __future__ import annotations

__all__ = ["FILE_NAME", "flush", "record"]

import contextlib
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE_NAME = "audit.jsonl"

MAX_SIZE = 64 * 2**20
"""Size (bytes) at which the file is renamed and a new one begun."""

KEPT = 4
"""How many renamed files are kept: ``audit.jsonl.1`` is the newest."""

MAX_PENDING = 10_000
"""How many lines may wait to be written if the disk does not answer."""

MAX_REFUSED = 100
"""How many refused requests are recorded in `REFUSED_PERIOD`, so that they do not fill the log."""

REFUSED_PERIOD = 10.0
"""Period (s) for `MAX_REFUSED`."""

MAX_VALUE = 300
"""Longest text (characters) of one value."""

_LOG = logging.getLogger(__name__)

# A separate thread: a disk that hangs must delay neither the event loop nor the engine.
_writer = ThreadPoolExecutor(1, thread_name_prefix="audit")


class _State:
    """Counters of this process."""

    pending = 0
    left_out = 0
    refused = 0
    period_start = 0.0
    complained = False


def record(
    work_dir: Path,
    *,
    origin: str,
    owner: str,
    address: str,
    action: str,
    job_id: str = "",
    outcome: str = "ok",
    refused: bool = False,
    **more: Any,
) -> None:
    """Append a line, without waiting until it is written.

    Parameters
    ----------
    work_dir : `pathlib.Path`
        The work directory; if it does not exist, nothing is written.
    origin, owner, address : `str`
        The face, the user, and where the command came from.
    action : `str`
        The command.
    job_id : `str`
        The job; empty for none.
    outcome : `str`
        The outcome.
    refused : `bool`
        Whether the command was refused; see `MAX_REFUSED`.
    **more
        Further members, as JSON types.
    """
    if refused and not _may_record_refusal():
        _State.left_out += 1
        return
    if _State.pending >= MAX_PENDING:
        _State.left_out += 1
        return
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "origin": origin,
        "owner": owner,
        "address": address,
        "action": action,
        "job_id": job_id,
        "outcome": outcome,
        **more,
    }
    line = {name: value[:MAX_VALUE] if isinstance(value, str) else value for name, value in line.items()}
    if _State.left_out:
        line["left_out_before"], _State.left_out = _State.left_out, 0
    _State.pending += 1
    # ASCII only: neither a control character nor half a character can get into the file.
    _writer.submit(_append, work_dir / FILE_NAME, json.dumps(line).encode() + b"\n")


def flush(timeout: float = 10.0) -> None:
    """Wait until all lines are written, at most ``timeout`` (s)."""
    _writer.submit(lambda: None).result(timeout)


def _may_record_refusal() -> bool:
    now = time.monotonic()
    if now - _State.period_start > REFUSED_PERIOD:
        _State.period_start, _State.refused = now, 0
    _State.refused += 1
    return _State.refused <= MAX_REFUSED


def _append(path: Path, line: bytes) -> None:
    _State.pending -= 1
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, line)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size > MAX_SIZE:
            _rotate(path)
        _State.complained = False
    except FileNotFoundError:
        # A simulation has no work directory.
        return
    except OSError as error:
        _State.left_out += 1
        if not _State.complained:
            _State.complained = True
            _LOG.error(f"{path} cannot be written: {error.strerror}")


def _rotate(path: Path) -> None:
    for number in range(KEPT - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}.{number}", f"{path}.{number + 1}")
    os.replace(path, f"{path}.1")
