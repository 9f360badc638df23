# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault campaign: faults are injected into OCPS while it works, and every job is accounted for."""
