# SPDX-License-Identifier: GPL-3.0-or-later

"""Conditions and wait sets, with which a thread waits for the data of many readers."""

from __future__ import annotations

import ctypes
import enum
import itertools
import re
import typing
import weakref
from collections.abc import Iterable

import cyclonedds.core
from cyclonedds.core import DDSException, InstanceState, SampleState, ViewState
from cyclonedds.internal import DDS

if typing.TYPE_CHECKING:
    from ._entities import DataReader

__all__ = ["DDSDuration", "DDSStateKind", "GuardCondition", "QueryCondition", "ReadCondition", "WaitSet"]

# In OpenSplice's interface wait sets belong to no participant; Cyclone's Python classes need one. Its C
# library can create wait sets that belong to the library itself: this is its handle (DDS_CYCLONEDDS_HANDLE).
_LIBRARY = 0x7FFF0100

# Prototypes of our own: those of the shared library object belong to the cyclonedds package.
_c = {
    name: ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)((f"dds_{name}", DDS._dll_handle))
    for name, arguments in {
        "create_waitset": [ctypes.c_int32],
        "create_guardcondition": [ctypes.c_int32],
        "set_guardcondition": [ctypes.c_int32, ctypes.c_bool],
        "waitset_attach": [ctypes.c_int32, ctypes.c_int32, ctypes.c_ssize_t],
        "waitset_detach": [ctypes.c_int32, ctypes.c_int32],
        "waitset_wait": [
            ctypes.c_int32,
            ctypes.POINTER(ctypes.c_ssize_t),
            ctypes.c_size_t,
            ctypes.c_int64,
        ],
        "delete": [ctypes.c_int32],
    }.items()
}

_QUERY_TERM = re.compile(r"(\w+) *= *(?:'([^']*)'|(-?\d+))")


def _call(name: str, *arguments: typing.Any) -> int:
    """Call a function of the C library.

    Raises
    ------
    DDSException
        If it returns an error.
    """
    result: int = _c[name](*arguments)
    if result < 0:
        raise DDSException(result, f"dds_{name} failed")
    return result


class DDSStateKind(enum.IntFlag):
    """The kinds of samples that a condition considers; only the two that salobj uses."""

    NOT_READ_SAMPLE_STATE = SampleState.NotRead
    ANY_INSTANCE_STATE = InstanceState.Any


class DDSDuration(typing.NamedTuple):
    """A span of time, in seconds and nanoseconds."""

    sec: float = 0
    nanosec: int = 0

    @property
    def nanoseconds(self) -> int:
        """The whole span in nanoseconds."""
        return int(self.sec * 1e9) + self.nanosec


class GuardCondition:
    """A condition that the program triggers; it stays triggered."""

    def __init__(self) -> None:
        self._ref = _call("create_guardcondition", _LIBRARY)
        weakref.finalize(self, _c["delete"], self._ref)

    def trigger(self) -> None:
        """Trigger the condition, so that `WaitSet.wait` returns."""
        _call("set_guardcondition", self._ref, True)


class ReadCondition:
    """A condition that is triggered while a reader has samples that were not taken.

    Parameters
    ----------
    reader
        The reader.
    mask
        The kinds of samples to consider.
    """

    def __init__(self, reader: DataReader, mask: Iterable[DDSStateKind]) -> None:
        states = ViewState.Any
        for state in mask:
            states |= state
        self.cyclone = cyclonedds.core.ReadCondition(reader.cyclone, int(states))
        self._ref = self.cyclone._ref
        reader.conditions.append(self)

    def triggered(self) -> bool:
        """Return whether there are samples to take."""
        return bool(self.cyclone.triggered)

    def accepts(self, sample: typing.Any) -> bool:
        """Return whether a sample is wanted."""
        return True


class QueryCondition(ReadCondition):
    """A `ReadCondition` for samples whose fields have given values.

    Every sample triggers it; samples are filtered when they are taken. Cyclone's own query condition would
    decode every sample twice, in a callback from C code that holds locks.

    Parameters
    ----------
    reader
        The reader.
    mask
        The kinds of samples to consider.
    query
        For example ``OCPSID = 1 AND identity = 'user@host'``. Only equality and AND are supported.

    Raises
    ------
    ValueError
        If the query is anything else.
    """

    def __init__(self, reader: DataReader, mask: Iterable[DDSStateKind], query: str) -> None:
        super().__init__(reader, mask)
        self._wanted: list[tuple[str, str | int]] = []
        for term in query.split(" AND "):
            match = _QUERY_TERM.fullmatch(term)
            if match is None:
                raise ValueError(
                    f"Cannot understand the query {query!r}; it must be like \"a = 1 AND b = 'x'\""
                )
            field, string, number = match.groups()
            self._wanted.append((field, string if number is None else int(number)))

    def accepts(self, sample: typing.Any) -> bool:
        """Return whether all fields have the values that the query asks for."""
        return all(getattr(sample, field) == value for field, value in self._wanted)


class WaitSet:
    """A set of conditions that a thread can wait for."""

    def __init__(self) -> None:
        self._ref = _call("create_waitset", _LIBRARY)
        self._ids = itertools.count(1)
        self._attached: dict[int, ReadCondition | GuardCondition] = {}
        weakref.finalize(self, _c["delete"], self._ref)

    def attach(self, condition: ReadCondition | GuardCondition) -> None:
        """Add a condition."""
        identifier = next(self._ids)
        self._attached[identifier] = condition
        _call("waitset_attach", self._ref, condition._ref, identifier)

    def detach(self, condition: ReadCondition | GuardCondition) -> None:
        """Remove a condition; does nothing if it is not attached."""
        for identifier, attached in list(self._attached.items()):
            if attached is condition:
                del self._attached[identifier]
                # Fails if the reader was closed before, which detached the condition; ignore that.
                _c["waitset_detach"](self._ref, condition._ref)

    def wait(self, timeout: DDSDuration) -> list[ReadCondition | GuardCondition]:
        """Wait until a condition is triggered.

        Parameters
        ----------
        timeout
            Longest time to wait.

        Returns
        -------
        conditions
            The triggered conditions; empty after the timeout.
        """
        size = max(1, len(self._attached))
        fired = (ctypes.c_ssize_t * size)()
        count = min(size, _call("waitset_wait", self._ref, fired, size, timeout.nanoseconds))
        conditions = (self._attached.get(identifier) for identifier in fired[:count])
        return [condition for condition in conditions if condition is not None]
