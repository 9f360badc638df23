# SPDX-License-Identifier: GPL-3.0-or-later
"""Preloaded processes from which jobs start quickly."""
