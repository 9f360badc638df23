#!/usr/bin/env python
"""Run the OCPS CSC."""

from lsst.dm.OCPS.sal.main import main

if __name__ == "__main__":
    main()
