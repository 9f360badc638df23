# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault campaign: OCPS is broken on purpose while it works, and every job is accounted for."""
