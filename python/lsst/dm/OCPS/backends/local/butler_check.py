# SPDX-License-Identifier: GPL-3.0-or-later
"""Check whether a Butler and its input collections can be used.

    python -P butler_check.py REPO COLLECTION ...

Runs in the Science Pipelines environment, so that OCPS itself never loads
the Butler. The last line of its output is JSON: the problem, or ``""``.
"""

from __future__ import annotations

import json
import sys


def problem(repo: str, collections: list[str]) -> str:
    """Return why the repository or a collection cannot be used; empty if they can."""
    try:
        from lsst.daf.butler import Butler
    except ImportError as error:
        return f"the environment has no Butler: {error}"
    try:
        butler = Butler.from_config(repo)
    except Exception as error:
        return f"cannot be opened: {first_line(error)}"
    for collection in collections:
        try:
            butler.collections.query(collection, include_chains=True)
            if not any(char in collection for char in "*?["):
                butler.collections.get_info(collection)
        except Exception as error:
            return f"no input collection {collection!r}: {first_line(error)}"
    return ""


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    print(json.dumps(problem(sys.argv[1], sys.argv[2:])))
