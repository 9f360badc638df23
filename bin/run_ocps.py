#!/usr/bin/env python
"""Run the OCPS CSC."""

from lsst.dm.OCPS.run_csc import main

if __name__ == "__main__":
    main()
