# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the process that an engine runs in."""

from __future__ import annotations

import os
import subprocess
import sys

# Many threads that allocate at the same time; glibc then tells how many heaps it has made.
HEAPS = """
import ctypes, sys, threading
from lsst.dm.OCPS.jobs.own_process import limit_heaps
if sys.argv[1] == "limited":
    limit_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(16)
def allocate():
    together.wait()
    assert libc.malloc(10_000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, file)
libc.fflush(file)
"""


def heaps(kind: str) -> int:
    """Return how many heaps the threads of a process have."""
    command = [sys.executable, "-c", HEAPS, kind]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return done.stdout.count("<heap nr=")


def test_threads_do_not_get_a_heap_each():
    assert heaps("unlimited") > 2, "else this test tells nothing"
    assert heaps("limited") <= 2
