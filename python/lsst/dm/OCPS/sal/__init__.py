# SPDX-License-Identifier: GPL-3.0-or-later
"""The SAL face: commands in, acknowledgements and events out."""
