# SPDX-License-Identifier: GPL-3.0-or-later
"""``run_uws.py``, by a name that can be given to an interpreter."""

import sys

from lsst.dm.OCPS.run_uws import main

if __name__ == "__main__":
    sys.exit(main())
