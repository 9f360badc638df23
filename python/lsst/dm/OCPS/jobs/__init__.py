# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: knows no SAL, no HTTP and no backend by name."""
