# SPDX-License-Identifier: GPL-3.0-or-later

"""``idlpp``: salobj asks OpenSplice's IDL compiler for its version, so there is one that answers."""

import sys

import dds

__all__ = ["main"]


def main() -> int:
    """Print the version of the DDS in use; everything else is refused."""
    if sys.argv[1:] != ["-v"]:
        print("This idlpp only knows -v: types are made from the IDL files at run time.", file=sys.stderr)
        return 1
    # salobj looks for "<anything> : <version>".
    print(f"Eclipse Cyclone DDS : {dds.__version__.removeprefix('cyclonedds-')}")
    return 0
