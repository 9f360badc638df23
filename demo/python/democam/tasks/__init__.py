# SPDX-License-Identifier: GPL-3.0-or-later

"""PipelineTasks, one module per pipeline, so that a pipeline imports only what it runs."""
