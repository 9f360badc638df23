# SPDX-License-Identifier: GPL-3.0-or-later

"""The other process of the tests: ``peer.py csc <index>…`` or ``peer.py remote <index> <commands>``.

Each line that it prints is one JSON document for the test.
"""

import asyncio
import gc
import json
import os
import sys

# Without collections it takes less time to import all this.
gc.disable()

from lsst.ts import salobj  # noqa: E402

gc.enable()

# Under load, finding each other and starting Python take long; nothing here should fail before.
TIMEOUT = 60


def tell(**document: object) -> None:
    """Print a document for the test."""
    print(json.dumps(document), flush=True)


async def run_cscs(indices: list[int]) -> None:
    """Run an enabled TestCsc for each index, until killed."""
    cscs = [
        salobj.TestCsc(index=i, config_dir=os.environ["PEER_CONFIG_DIR"], initial_state=salobj.State.ENABLED)
        for i in indices
    ]
    await asyncio.gather(*(csc.start_task for csc in cscs))
    tell(ready=True, origin=os.getpid())
    await asyncio.gather(*(csc.done_task for csc in cscs))


async def run_remote(index: int, count: int) -> None:
    """Send a command ``count`` times, then tell which answers were seen; wait to be killed."""
    async with salobj.Domain() as domain, salobj.Remote(domain, "Test", index) as remote:
        seen = []
        reader = remote.salinfo._ackcmd_reader
        callback = reader.callback
        reader.callback = lambda ack: (seen.append([ack.identity, ack.origin]), callback(ack))
        await remote.evt_summaryState.aget(timeout=TIMEOUT)
        tell(ready=True)
        for _ in range(count):
            await remote.cmd_wait.set_start(duration=0, timeout=TIMEOUT)
        tell(seen=seen, origin=domain.origin, identity=remote.salinfo.identity)
        await asyncio.Event().wait()


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    asyncio.run(run_cscs(numbers) if sys.argv[1] == "csc" else run_remote(*numbers))
