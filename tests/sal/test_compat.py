# SPDX-License-Identifier: GPL-3.0-or-later
"""What salobj 6 needs help with."""

from __future__ import annotations

import asyncio
import time
import types

from lsst.dm.OCPS.sal import compat as salobj_compat
from lsst.dm.OCPS.sal.csc import OcpsCsc
from lsst.ts import salobj


async def test_acknowledgements_from_two_threads_do_not_mix(bus, monkeypatch):
    """salobj sends CMD_ACK from its reading thread, the others from the event loop."""
    async with OcpsCsc(1, simulation_mode=1) as csc:
        writer, written = csc.salinfo._ackcmd_writer, []

        def slow_put(data=None) -> None:
            data = writer.data
            before = (data.private_seqNum, data.ack, data.result)
            time.sleep(0.0002)
            written.append((before, (data.private_seqNum, data.ack, data.result)))

        monkeypatch.setattr(writer, "put", slow_put)
        command = csc.cmd_execute.DataType()

        def send(number: int, kind: salobj.SalRetCode) -> None:
            command.private_seqNum = number
            words = f"{number} {int(kind)}"
            ack = csc.salinfo.make_ackcmd(private_seqNum=number, ack=kind, result=words)
            csc.cmd_execute.ack(csc.cmd_execute.DataType(private_seqNum=number), ack)

        def send_many() -> None:
            for number in range(1000, 1300):
                send(number, salobj.SalRetCode.CMD_ACK)

        reading = asyncio.create_task(asyncio.to_thread(send_many))
        for number in range(2000, 2300):
            send(number, salobj.SalRetCode.CMD_INPROGRESS)
            await asyncio.sleep(0)
        await reading
    assert len(written) == 600
    for before, after in written:
        assert before == after
        assert after[2] == f"{after[0]} {int(after[1])}"


class Newer:
    """Stand-in for what salobj 8 has instead; written after its documentation."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict]] = []

    async def set_write(self, **fields) -> None:
        self.seen.append(("set_write", fields))

    async def ack_in_progress(self, **fields) -> None:
        self.seen.append(("ack_in_progress", fields))

    async def fault(self, **fields) -> None:
        self.seen.append(("fault", fields))


async def test_what_salobj_8_makes_coroutines_of_is_awaited(monkeypatch):
    monkeypatch.setattr(salobj_compat, "SALOBJ_MAJOR", 8)
    newer = Newer()
    await salobj_compat.put(newer, job_id="a")
    await salobj_compat.ack_in_progress(newer, "data", 3, "{}")
    await salobj_compat.enter_fault(newer, 2, "why")
    assert newer.seen == [
        ("set_write", {"force_output": True, "job_id": "a"}),
        ("ack_in_progress", {"data": "data", "timeout": 3, "result": "{}"}),
        ("fault", {"code": 2, "report": "why"}),
    ]
    assert salobj_compat.csc_arguments("x.yaml") == {"override": "x.yaml"}
    assert salobj_compat.settings_of(types.SimpleNamespace(configurationOverride="x.yaml")) == "x.yaml"
    # Nothing to help with there.
    salobj_compat.make_acks_atomic(None)
    salobj_compat.handle_sigterm(None)


def test_fields_that_an_older_interface_lacks_are_empty():
    assert salobj_compat.field(types.SimpleNamespace(pipeline=" a "), "pipeline") == "a"
    assert salobj_compat.field(types.SimpleNamespace(pipeline="a"), "prereq_jobs") == ""
