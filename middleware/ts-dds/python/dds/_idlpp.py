# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``idlpp``: stands in for OpenSplice's IDL compiler, which salobj asks for its version."""

import sys

import dds

__all__ = ["main"]


def main() -> int:
    """Print the version of the DDS library; refuse all arguments but ``-v``."""
    if sys.argv[1:] != ["-v"]:
        print("idlpp: only -v is supported; types are created from IDL files at run time.", file=sys.stderr)
        return 1
    # salobj expects "<text> : <version>".
    print(f"Eclipse Cyclone DDS : {dds.__version__.removeprefix('cyclonedds-')}")
    return 0
