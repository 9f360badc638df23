# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks: ``python -m benchmarks.NAME --json``; the last line is one JSON object."""
