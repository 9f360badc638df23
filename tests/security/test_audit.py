# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: who commanded what, and what came of it (for SAL see tests/http/test_beside_csc.py)."""

from __future__ import annotations

import json
import stat

from lsst.dm.OCPS import audit

from tests.security.conftest import attacker, bearer


def lines(work_dir) -> list[dict]:
    audit.flush()
    return [json.loads(line) for line in (work_dir / audit.FILE_NAME).read_bytes().splitlines()]


async def test_each_request_that_changes_something_is_one_line(start, auth, monkeypatch):
    # Other tests of this process may have had many requests refused just now.
    monkeypatch.setattr(audit, "MAX_REFUSED", 10**6)
    served = await start(http={"auth": auth})
    who = attacker(served)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    _, answer = await who.ask("POST", "/uws/sleep", b"duration=0&text=secret", form | bearer("alice"))
    job = answer.partition(b"Location: ")[2].partition(b"\r\n")[0].decode().rpartition("/")[2]
    await who.ask("GET", f"/uws/sleep/{job}", headers=bearer("alice"))
    await who.ask("POST", f"/uws/sleep/{job}", b"text=b", form | bearer("alice"))
    await who.ask("POST", f"/uws/sleep/{job}/phase", b"PHASE=ABORT", form | bearer("bob"))
    await who.ask("POST", f"/uws/sleep/{job}/phase", b"PHASE=RUN", form | bearer("alice"))
    await who.ask("PUT", "/api/v1/job", b'{"command": "id"}', bearer("alice"))
    await who.ask("DELETE", f"/uws/sleep/{job}", headers=bearer("olga"))
    await who.ask("POST", "/uws/sleep", b"x%0a=y", form)
    await who.ask("POST", "/nowhere", b"a=b", form | bearer("alice"))
    await who.ask("POST", "/healthz", b"a=b", form)
    # Progress that a job reports is not a command.
    await who.ask("POST", f"/api/v1/job/{job}/event", b"{}", bearer("alice"))
    found = lines(served.manager.workspaces.work_dir)
    shown = [(line["owner"], line["action"], line["job_id"], line["outcome"]) for line in found]
    assert shown == [
        ("alice", "create", job, "HTTP 303"),
        ("alice", "change", job, "HTTP 303"),
        ("bob", f"POST /uws/sleep/{job}/phase", "", "HTTP 403"),
        ("alice", "run", job, "HTTP 303"),
        ("alice", "PUT /api/v1/job", "", "HTTP 403"),
        ("olga", "delete", job, "HTTP 303"),
        ("", "POST /uws/sleep", "", "HTTP 401"),
        ("alice", "POST /nowhere", "", "HTTP 404"),
        ("", "POST /healthz", "", "HTTP 401"),
    ]
    assert {(line["origin"], line["address"]) for line in found} == {("http", "127.0.0.1")}
    assert found[0]["definition"] == "sleep"
    assert found[1]["changed"] == ["text"]
    text = (served.manager.workspaces.work_dir / audit.FILE_NAME).read_text()
    assert "secret" not in text
    assert stat.S_IMODE((served.manager.workspaces.work_dir / audit.FILE_NAME).stat().st_mode) == 0o600


def note(path, **more) -> None:
    audit.record(path, **({"origin": "http", "owner": "x", "address": "", "action": "a"} | more))


def test_no_value_forges_a_line_and_long_ones_are_cut(tmp_path):
    note(tmp_path, action='a\n{"owner": "root"}\x1b\u2028', address="\udcff", owner="x" * 10_000)
    (line,) = lines(tmp_path)
    assert line["owner"] == "x" * audit.MAX_VALUE
    assert (tmp_path / audit.FILE_NAME).read_bytes().count(b"\n") == 1


def test_refused_requests_do_not_push_others_out(tmp_path, monkeypatch):
    monkeypatch.setattr(audit._State, "period_start", 0.0)
    monkeypatch.setattr(audit, "REFUSED_PERIOD", 1e6)
    for number in range(1000):
        note(tmp_path, action=str(number), refused=True)
    note(tmp_path, action="allowed")
    found = lines(tmp_path)
    assert len(found) <= audit.MAX_REFUSED + 1
    assert found[-1]["action"] == "allowed"
    assert found[-1]["left_out_before"] >= 900


def test_the_file_is_renamed_when_it_is_long_and_only_so_many_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MAX_SIZE", 500)
    for number in range(100):
        note(tmp_path, action=f"{number:03}")
    audit.flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[-audit.KEPT :] == [f"{audit.FILE_NAME}.{number}" for number in range(1, audit.KEPT + 1)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1000 * (audit.KEPT + 1)


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path):
    (tmp_path / "victim").touch()
    (tmp_path / audit.FILE_NAME).symlink_to(tmp_path / "victim")
    note(tmp_path)
    audit.flush()
    assert (tmp_path / "victim").read_bytes() == b""
