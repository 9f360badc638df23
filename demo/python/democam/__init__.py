# SPDX-License-Identifier: GPL-3.0-or-later

"""DemoCam: a simulated instrument small enough to carry around and honest enough to test with.

Raw frames come from `democam.simulate`, repositories from `democam.make_repo`, and the pipelines in
``$DEMOCAM_DIR/pipelines`` run the tasks of `democam.tasks` under an ordinary ``pipetask run``.
"""
