# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program as under ``RestrictAddressFamilies=``: ``address_families.py "AF_UNIX AF_INET" PROGRAM …``.

A stand-in for systemd, which cannot be had in a container: the same kernel
filter (seccomp) refuses sockets of other families.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

# Number of the system call socket.
SOCKET = {"x86_64": 41, "aarch64": 198}

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, FIRST_ARGUMENT = 0, 16
"""Offsets in ``struct seccomp_data``."""
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT


class Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def restrict(families: list[int]) -> None:
    """Refuse sockets of all but some families to this process and its children."""
    steps = [(LOAD, 0, 0, NUMBER), (JUMP_IF_EQUAL, 0, len(families) + 2, SOCKET[platform.machine()])]
    steps.append((LOAD, 0, 0, FIRST_ARGUMENT))
    for number, family in enumerate(families):
        steps.append((JUMP_IF_EQUAL, len(families) - number, 0, family))
    steps += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.addressof(text))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    restrict([getattr(socket, name) for name in sys.argv[1].split()])
    os.execvp(sys.argv[2], sys.argv[2:])
