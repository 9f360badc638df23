# SPDX-License-Identifier: GPL-3.0-or-later

"""Conditions and the wait set: how a thread waits for data of many readers at once."""

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

# Cyclone's Python classes want a participant for a wait set; OpenSplice's have none. The C library can make
# them below itself, under this handle (DDS_CYCLONEDDS_HANDLE).
_LIBRARY = 0x7FFF0100

# Own prototypes: the functions of the shared handle carry those of the cyclonedds package.
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
    """Which samples a condition looks at (here: the two that salobj asks for)."""

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
    """A condition that a program triggers itself; it stays triggered."""

    def __init__(self) -> None:
        self._ref = _call("create_guardcondition", _LIBRARY)
        weakref.finalize(self, _c["delete"], self._ref)

    def trigger(self) -> None:
        """Trigger it: `WaitSet.wait` returns."""
        _call("set_guardcondition", self._ref, True)


class ReadCondition:
    """A condition that is triggered while a reader has samples that nobody took.

    Parameters
    ----------
    reader
        The reader.
    mask
        The kinds of samples to look at.
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

    It is triggered by any sample; the wanted ones are picked when they are taken. Cyclone's own query
    condition would decode every sample twice, in a callback from C with locks held.

    Parameters
    ----------
    reader
        The reader.
    mask
        The kinds of samples to look at.
    query
        For example ``OCPSID = 1 AND identity = 'user@host'``: equality and AND are all there is.

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
    """What a thread waits on: any number of conditions."""

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
        """Remove a condition; one that is not attached (any more) is no error."""
        for identifier, attached in list(self._attached.items()):
            if attached is condition:
                del self._attached[identifier]
                # May fail: who closed the reader first has detached it already.
                _c["waitset_detach"](self._ref, condition._ref)

    def wait(self, timeout: DDSDuration) -> list[ReadCondition | GuardCondition]:
        """Wait until a condition is triggered.

        Parameters
        ----------
        timeout
            How long to wait at most.

        Returns
        -------
        conditions
            The triggered ones; none after the timeout.
        """
        size = max(1, len(self._attached))
        fired = (ctypes.c_ssize_t * size)()
        count = min(size, _call("waitset_wait", self._ref, fired, size, timeout.nanoseconds))
        conditions = (self._attached.get(identifier) for identifier in fired[:count])
        return [condition for condition in conditions if condition is not None]
