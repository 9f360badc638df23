#!/usr/bin/env python
"""Serve OCPS over HTTP, without a CSC."""

import gc
import sys

# Importing makes many objects and hardly any garbage: without collections it takes less time.
gc.disable()

from lsst.dm.OCPS.run_uws import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    sys.exit(main())
