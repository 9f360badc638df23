# SPDX-License-Identifier: GPL-3.0-or-later
"""Make sure that the output run of a pipeline exists, whatever a former attempt has left.

    python -P prepare_run.py REPO RUN OUTPUT INPUTS

``pipetask run --extend-run`` demands an output run that exists, and an output
chain that has it and the inputs. A former attempt may have been killed before
it had made them, or in between. Runs in the Science Pipelines environment.
"""

from __future__ import annotations

import sys


def prepare(repo: str, run: str, output: str, inputs: list[str]) -> None:
    """Register a run, and the chain of it and its inputs, where they are missing."""
    from lsst.daf.butler import Butler, CollectionType

    with Butler.from_config(repo, writeable=True) as butler:
        collections = butler.collections
        collections.register(run, CollectionType.RUN)
        collections.register(output, CollectionType.CHAINED)
        if run not in collections.get_info(output).children:
            flat = collections.query(inputs, flatten_chains=True, include_chains=False)
            collections.redefine_chain(output, [run, *flat])


if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2], sys.argv[3], [name for name in sys.argv[4].split(",") if name])
