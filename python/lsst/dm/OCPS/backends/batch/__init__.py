# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on the nodes of a batch system, whichever it is."""
