# SPDX-License-Identifier: GPL-3.0-or-later

"""Indices, futures and the environment."""

import asyncio
import contextlib
import os
import unittest.mock
from collections.abc import Iterator

__all__ = ["index_generator", "make_done_future", "modify_environ"]


def index_generator(imin: int = 1, imax: int = 2**31 - 1, i0: int | None = None) -> Iterator[int]:
    """Return an endless counter: i0, i0 + 1, …, imax, imin, imin + 1, …

    Parameters
    ----------
    imin, imax
        Smallest and largest value; by default those of a SAL index.
    i0
        First value; by default imin.

    Raises
    ------
    ValueError
        If imin is not less than imax, or i0 not between them.
    """
    start = imin if i0 is None else i0
    if imin >= imax:
        raise ValueError(f"imin={imin} must be less than imax={imax}")
    if not imin <= start <= imax:
        raise ValueError(f"i0={start} must be from imin={imin} to imax={imax}")

    # A generator of its own, so that the arguments are checked by the call and not by the first value.
    def count() -> Iterator[int]:
        index = start
        while True:
            yield index
            index = index + 1 if index < imax else imin

    return count()


def make_done_future() -> asyncio.Future[None]:
    """Return a future that is done; its result is None."""
    future: asyncio.Future[None] = asyncio.Future()
    future.set_result(None)
    return future


@contextlib.contextmanager
def modify_environ(**kwargs: str | None) -> Iterator[None]:
    """Change environment variables for the duration of a ``with`` block.

    Parameters
    ----------
    **kwargs
        The variables and their values; None removes a variable.

    Raises
    ------
    RuntimeError
        If a value is neither a string nor None.
    """
    for name, value in kwargs.items():
        if value is not None and not isinstance(value, str):
            raise RuntimeError(f"{name} must be set to a string or None, not {value!r}")
    # The patch brings back everything, so removing inside it is safe.
    with unittest.mock.patch.dict(os.environ, {k: v for k, v in kwargs.items() if v is not None}):
        for name, value in kwargs.items():
            if value is None:
                os.environ.pop(name, None)
        yield
