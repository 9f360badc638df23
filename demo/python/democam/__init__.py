# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.

"""DemoCam: a simulated instrument small enough to carry around and honest enough to test with.

Raw frames come from `democam.simulate`, repositories from `democam.make_repo`, and the pipelines in
``$DEMOCAM_DIR/pipelines`` run the tasks of `democam.tasks` under an ordinary ``pipetask run``.
"""
