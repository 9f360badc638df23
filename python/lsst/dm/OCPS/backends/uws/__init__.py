# SPDX-License-Identifier: GPL-3.0-or-later
"""Forwards jobs to a UWS server."""
