# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a pipetask job, read from its growing log."""

from __future__ import annotations

__all__ = ["ProgressReader"]

import contextlib
import os
import re
import threading
from pathlib import Path

from ...jobs.file_access import open_below
from ...jobs.model import Progress

# A job can write anything into its log: numbers of more digits than these are not progress.
_TOTAL = re.compile(rb"QuantumGraph contains (\d{1,9}) quant")
_STEP = re.compile(
    rb"Executed (\d{1,9}) quanta successfully, (\d{1,9}) failed and \d{1,9} remain"
    rb" out of total (\d{1,9}) quanta"
)
_CHUNK = 1 << 20

MAX_READ = 256 << 20
"""How much (bytes) is read at a time at most."""


class ProgressReader:
    """Reads the lines that were added to a log since the last time.

    Parameters
    ----------
    path : `pathlib.Path`
        The log; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._progress = Progress()
        self._lock = threading.Lock()

    def read(self) -> Progress:
        """Return the present progress; may be called from several threads."""
        with self._lock:
            self._read_on()
            return self._progress

    def _read_on(self) -> None:
        try:
            descriptor = open_below(self._path.parent, self._path.name)
        except OSError:
            # The log does not exist, or the job has replaced it by something else.
            return
        with os.fdopen(descriptor, "rb") as file, contextlib.suppress(OSError):
            file.seek(self._offset)
            end = self._offset + MAX_READ
            while self._offset < end and (chunk := file.read(_CHUNK)):
                self._offset += len(chunk)
                self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        lines = (self._rest + chunk).split(b"\n")
        # The last line may still grow; of a very long one only the end is kept.
        self._rest = lines.pop()[-4096:]
        for line in lines:
            # A fast test first: logs of 100 MB are common.
            if b" quanta" in line or b"QuantumGraph contains" in line:
                self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        if match := _STEP.search(line):
            done, failed, total = (int(number) for number in match.groups())
            self._progress = Progress(done, failed, total)
        elif match := _TOTAL.search(line):
            self._progress = Progress(0, 0, int(match[1]))
