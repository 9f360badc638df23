# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP face: UWS 1.1, and the JSON dialect of Rubin's services."""
