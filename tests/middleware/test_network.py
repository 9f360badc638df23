# SPDX-License-Identifier: GPL-3.0-or-later

"""Which network is used, and a host that has none."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import find_service

# A CSC and a remote in two processes; both must find each other.
CONVERSATION = textwrap.dedent(
    """
    import asyncio, subprocess, sys
    from lsst.ts import salobj

    async def serve():
        async with salobj.Controller("OCPS", 1) as controller:
            async def execute(data):
                controller.evt_job_id.set_put(job_id=data.pipeline, seq_num=data.private_seqNum)
            for name in controller.salinfo.command_names:
                getattr(controller, f"cmd_{name}").callback = execute
            controller.evt_heartbeat.put()
            await asyncio.Event().wait()

    async def talk():
        async with salobj.Domain() as domain, salobj.Remote(domain, "OCPS", 1) as remote:
            await remote.evt_heartbeat.aget(timeout=60)
            await remote.cmd_execute.set_start(pipeline="p", timeout=60)
            print((await remote.evt_job_id.next(flush=False, timeout=60)).job_id)

    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        server = subprocess.Popen([sys.executable, __file__, "serve"])
        try:
            asyncio.run(talk())
        finally:
            server.kill()
    """
)


def converse(tmp_path, prefix=(), **environ):
    """Run the conversation and return what it prints."""
    script = tmp_path / "conversation.py"
    script.write_text(CONVERSATION)
    command = [*prefix, sys.executable, str(script)]
    environ = {**os.environ, **environ}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=170)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def may_unshare():
    """Skip the test if this user may not make a network namespace."""
    command = ["unshare", "--net", find_service("ip"), "link", "set", "lo", "up"]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("this user may not make a network namespace")


@pytest.mark.usefixtures("may_unshare")
def test_works_on_a_host_with_loopback_only(tmp_path):
    script = 'ip link set lo up && exec "$@"'
    assert converse(tmp_path, ["unshare", "--net", "sh", "-c", script, "sh"]) == "p"


def test_configuration_of_cyclone_is_obeyed(tmp_path):
    config = '<General><Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces></General>'
    uri = f"<CycloneDDS><Domain>{config}</Domain></CycloneDDS>"
    assert converse(tmp_path, CYCLONEDDS_URI=uri) == "p"
    config = "<General><Interfaces><NetworkInterface name='nosuch0'/></Interfaces></General>"
    uri = f"<CycloneDDS><Domain>{config}</Domain></CycloneDDS>"
    with pytest.raises(AssertionError, match="nosuch0"):
        converse(tmp_path, CYCLONEDDS_URI=uri)


def test_named_interface_is_used(tmp_path):
    with pytest.raises(AssertionError, match="nosuch0"):
        converse(tmp_path, LSST_DDS_INTERFACE="nosuch0")


def test_environment_is_left_alone():
    code = "import os, dds; e = dict(os.environ); dds.DomainParticipant(); assert dict(os.environ) == e"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("may_unshare")
@pytest.mark.parametrize("interface", [None, "cable0"])
def test_network_is_used_when_asked_for_only(tmp_path, interface):
    network = (
        "ip link set lo up && ip link add cable0 type veth peer name cable1 "
        "&& ip addr add 192.0.2.1/24 dev cable0 && ip link set cable0 up && ip link set cable1 up "
        '&& exec "$@"'
    )
    prefix = ["unshare", "--net", "sh", "-c", network, "sh"]
    environ = {"LSST_DDS_INTERFACE": interface} if interface else {}
    assert converse(tmp_path, prefix, **environ) == "p"
    # Who uses a network has joined the multicast group where participants look for each other.
    code = "import dds; p = dds.DomainParticipant(); print(open('/proc/self/net/igmp').read())"
    environ = {**os.environ, **environ}
    result = subprocess.run(
        [*prefix, sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert ("0100FFEF" in result.stdout) == bool(interface)  # 239.255.0.1
