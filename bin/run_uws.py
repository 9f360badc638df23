#!/usr/bin/env python
"""Serve OCPS over HTTP, without a CSC."""

import sys

from lsst.dm.OCPS.run_uws import main

if __name__ == "__main__":
    sys.exit(main())
