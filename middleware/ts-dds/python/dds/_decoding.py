# SPDX-License-Identifier: GPL-3.0-or-later

"""Decode samples strictly, and account for those that cannot be decoded."""

from __future__ import annotations

import logging
import time
import typing

from cyclonedds.idl._support import Buffer

if typing.TYPE_CHECKING:
    from ddsutil import Sample

__all__ = ["DroppedSamples", "decode"]

LOG_INTERVAL = 60.0
"""Shortest time (seconds) between two log messages about the same reader."""

_MAX_REASON = 200
"""Longest reason (characters) in a log message."""

# Plain CDR, big and little endian: the only encapsulations of the final structs that SAL has.
_ENCAPSULATIONS = (b"\0\0", b"\0\1")
_HEADER_SIZE = 4
_ALIGNMENT = 4

_log = logging.getLogger("dds")


def decode(data_class: type[Sample], data: bytes) -> Sample:
    """Return the sample that serialized data holds.

    Parameters
    ----------
    data_class
        Class of the topic's samples.
    data
        The serialized sample with its encapsulation header.

    Raises
    ------
    ValueError
        If the data is not exactly one sample of this topic.

    Notes
    -----
    Cyclone checks the layout of what arrives, but neither the characters of strings nor that the data ends
    where the sample does. Whatever is accepted here can be written again: a component copies strings of a
    command into its acknowledgement, and must not fail there.
    """
    if data[:2] not in _ENCAPSULATIONS or len(data) <= _HEADER_SIZE:
        raise ValueError(f"its encapsulation header {data[:_HEADER_SIZE].hex() or '(none)'} is not plain CDR")
    buffer = Buffer(data, align_offset=_HEADER_SIZE)
    try:
        sample: Sample = data_class.__idl__.deserialize(buffer)  # type: ignore[attr-defined]
    except UnicodeDecodeError as e:
        raise ValueError(f"a string is not UTF-8 (byte 0x{e.object[e.start]:02x})") from None
    except Exception as e:
        raise ValueError(f"its layout is wrong ({type(e).__name__}: {e})") from None
    left = len(data) - buffer.tell()
    if not 0 <= left < _ALIGNMENT:
        raise ValueError(f"it has {len(data)} bytes instead of {buffer.tell()}")
    sample.from_wire()
    return sample


class DroppedSamples:
    """Counter of the samples that a reader dropped; reports them to the log ``dds``.

    The first one is reported at once; after that there is at most one message per `LOG_INTERVAL`.

    Parameters
    ----------
    topic
        Name of the topic.
    """

    def __init__(self, topic: str) -> None:
        self.count = 0
        """Number of samples dropped so far."""
        self._topic = topic
        self._logged = -LOG_INTERVAL

    def add(self, reason: Exception) -> None:
        """Count a sample, and log why it was dropped unless that was done a moment ago."""
        self.count += 1
        now = time.monotonic()
        if now - self._logged < LOG_INTERVAL:
            return
        self._logged = now
        words = str(reason)[:_MAX_REASON]
        # Parts of the sample may be in the reason: no control character may reach a terminal or forge a line.
        words = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words)
        _log.warning(f"{self._topic}: dropped a sample that cannot be decoded: {words} ({self.count} so far)")
