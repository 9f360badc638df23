# SPDX-License-Identifier: GPL-3.0-or-later
"""Job definitions: what may be asked for, and how a request becomes a job's spec."""
