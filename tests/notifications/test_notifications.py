# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends of jobs are told to a real web server and a real mail server, at least once, and in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
from email.errors import HeaderParseError

import aiohttp
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lsst.dm.OCPS.config import ConfigError, NotificationsConfig, load_instance
from lsst.dm.OCPS.host import check_file
from lsst.dm.OCPS.jobs.model import JobRequest
from lsst.dm.OCPS.notifications import notifier as module
from lsst.dm.OCPS.notifications.message import mail
from lsst.dm.OCPS.notifications.spool import Spool

from tests.http.test_operation import expressions, named
from tests.ports import free_port
from tests.waiting import TIMEOUT, until

ALL = ["COMPLETED", "ERROR", "ABORTED"]


async def test_an_end_is_told_with_a_signature_and_a_compact_document(engine, receiver):
    await engine.open([{"url": receiver.url}])
    job = await engine.run(text="no such exposure")
    document = await receiver.next()
    assert (document["type"], document["source"]) == ("job.ended", "LATISS")
    data = document["data"]
    assert (data["jobId"], data["definition"], data["owner"]) == (job.id, "bad", "alice")
    assert (data["phase"], data["exitCode"], data["attempt"]) == ("ERROR", 3, 1)
    assert "no such exposure" in data["message"]
    assert (
        data["endTime"]
        == document["timestamp"]
        == job.end_time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    # Delivered, it is not kept.
    await until(lambda: not engine.waiting())
    assert engine.measure("sent") == 1


async def test_a_job_that_is_run_again_is_told_of_when_its_last_attempt_has_ended(engine, receiver):
    await engine.open([{"url": receiver.url, "phases": ALL}])
    job = await engine.run("flaky")
    assert job.attempt == 3
    data = (await receiver.next())["data"]
    assert (data["jobId"], data["attempt"], data["exitCode"]) == (job.id, 3, 75)
    await until(lambda: engine.measure("waiting") == 0)
    assert receiver.requests == 1


async def test_rules_select_by_phase_owner_and_definition(engine, receiver):
    await engine.open(
        [
            {"url": receiver.url, "phases": ["COMPLETED"], "owner": "al*", "definition": "go?d"},
            # Another rule with the same receiver tells it nothing twice.
            {"url": receiver.url, "phases": ALL, "owner": "alice"},
        ]
    )
    for definition, owner in (
        ("good", "bob"),
        ("bad", "bob"),
        ("good", "alan"),
        ("bad", "alice"),
        ("good", "alice"),
    ):
        await engine.run(definition, owner)
    told = [(await receiver.next())["data"] for _ in range(3)]
    assert sorted((one["definition"], one["owner"]) for one in told) == [
        ("bad", "alice"),
        ("good", "alan"),
        ("good", "alice"),
    ]
    await until(lambda: engine.measure("waiting") == 0)
    assert receiver.requests == 3


async def test_a_mail_tells_it_to_people(engine, mail_server):
    rule = {"mail": ["night@example.org", "chief@example.org"], "phases": ALL}
    settings = {"host": "127.0.0.1", "port": mail_server.port, "tls": "none", "sender": "ocps@example.org"}
    await engine.open([rule], mail=settings)
    job = await engine.run(owner="alice")
    message = await mail_server.next()
    assert mail_server.envelopes == [("ocps@example.org", rule["mail"])]
    assert message["Subject"] == f"OCPS LATISS: bad ERROR (job {job.id})"
    assert message["To"] == "night@example.org, chief@example.org"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    assert "alice" in text
    assert "it ended with exit code 3: boom" in text


async def test_what_a_job_writes_gets_into_no_header(engine, mail_server):
    settings = {"host": "127.0.0.1", "port": mail_server.port, "tls": "none", "sender": "ocps@example.org"}
    await engine.open([{"mail": ["night@example.org"]}], mail=settings)
    text = "x\r\nBcc: victim@example.org\r\n.\r\nMAIL FROM:<a@b>\r\n"
    await engine.host.manager.submit(
        JobRequest("bad", {"text": text}, owner="a\nBcc: b@c", run_id="\r\nTo: d@e")
    )
    message = await mail_server.next()
    assert message["Bcc"] is None
    assert message["To"] == "night@example.org"
    assert mail_server.envelopes == [("ocps@example.org", ["night@example.org"])]
    assert "MAIL FROM" in message.get_content() or "Bcc: victim" in message.get_content()


@given(st.text(), st.text())
def test_no_text_adds_a_header(source, words):
    data = dict.fromkeys(("owner", "runId", "message"), words) | dict.fromkeys(
        ("creationTime", "startTime", "endTime", "exitCode", "attempt")
    )
    data |= {"jobId": "abc", "definition": "bad", "phase": "ERROR"}
    with contextlib.suppress(ValueError, HeaderParseError):
        message = mail({"source": source, "data": data}, "id", "ocps@example.org", ("night@example.org",))
        head = bytes(message).partition(b"\r\n\r\n")[0]
        names = {
            line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))
        }
        allowed = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type"}
        allowed |= {"Content-Transfer-Encoding", "MIME-Version"}
        assert names <= {name.encode() for name in allowed}


async def test_a_receiver_that_fails_is_asked_again_with_the_same_id(engine, receiver):
    receiver.answers = [503, 429]
    await engine.open([{"url": receiver.url}])
    await engine.run()
    await receiver.next()
    assert receiver.requests == 3
    await until(lambda: engine.measure("sent") == 1)
    assert engine.measure("retried") == 2


async def test_an_end_that_a_receiver_never_accepts_does_not_hold_up_later_ones(engine, receiver):
    receiver.poison = "poison"
    await engine.open([{"url": receiver.url}])
    await engine.run(text="poison")
    await until(lambda: engine.measure("retried") >= 1)
    later = [await engine.run() for _ in range(2)]
    assert [(await receiver.next())["data"]["jobId"] for _ in later] == [job.id for job in later]
    await until(lambda: len(engine.waiting()) == 1)
    # In the end it is accepted after all.
    receiver.poison = ""
    await receiver.next()


@pytest.mark.parametrize("status", [301, 307, 400, 410])
async def test_a_refusal_is_final_and_no_redirect_is_followed(engine, receiver, status):
    receiver.answers = [status]
    await engine.open([{"url": receiver.url}])
    await engine.run()
    await until(lambda: engine.measure("failed") == 1)
    # The next one is told all the same.
    second = await engine.run()
    assert (await receiver.next())["data"]["jobId"] == second.id
    assert receiver.requests == 2


async def test_what_was_accepted_is_not_sent_again_while_its_file_cannot_be_removed(
    engine, receiver, monkeypatch
):
    remove, failures = Spool.remove, [OSError("read-only"), OSError("read-only")]

    def failing(spool, name):
        if failures:
            raise failures.pop()
        remove(spool, name)

    monkeypatch.setattr(module, "STORE_PAUSE", 0.05)
    monkeypatch.setattr(Spool, "remove", failing)
    await engine.open([{"url": receiver.url}])
    await engine.run()
    await receiver.next()
    await until(lambda: not engine.waiting())
    assert not failures
    assert receiver.requests == 1


async def test_a_mail_server_that_is_busy_is_asked_again_and_a_refusal_is_final(engine, mail_server):
    mail_server.refusals = ["451 busy", "554 no"]
    settings = {"host": "127.0.0.1", "port": mail_server.port, "tls": "none", "sender": "ocps@example.org"}
    await engine.open([{"mail": ["night@example.org"]}], mail=settings)
    await engine.run()
    await until(lambda: engine.measure("failed") == 1)
    assert engine.measure("retried") == 1
    await engine.run()
    await mail_server.next()


async def test_a_receiver_that_is_away_holds_up_neither_jobs_nor_other_receivers(engine, receiver):
    nobody = f"http://127.0.0.1:{free_port()}/hook"
    await engine.open([{"url": nobody}, {"url": receiver.url}])
    for _ in range(3):
        await engine.run()
        await receiver.next()
    assert len(engine.waiting()) >= 3
    assert engine.host.manager.live() == []


async def test_a_receiver_that_never_answers_does_not_keep_ocps_from_ending(engine):
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda *_: connected.set(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await engine.open([{"url": f"http://127.0.0.1:{port}/hook"}])
    await engine.run()
    await asyncio.wait_for(connected.wait(), TIMEOUT)
    await asyncio.wait_for(engine.host.close(), TIMEOUT)
    assert len(engine.waiting()) == 1
    server.close()


async def test_what_was_not_told_is_told_after_a_restart(engine, receiver):
    await receiver.stop()
    await engine.open([{"url": receiver.url}])
    jobs = [await engine.run() for _ in range(3)]
    await until(lambda: len(engine.waiting()) == 3)
    await engine.host.close()
    await receiver.start()
    await engine.open([{"url": receiver.url}])
    told = [(await receiver.next())["data"]["jobId"] for _ in range(3)]
    assert told == [job.id for job in jobs]
    # And those told are not told again by the next start.
    await until(lambda: not engine.waiting())
    await engine.host.close()
    await engine.open([{"url": receiver.url}])
    last = await engine.run()
    assert (await receiver.next())["data"]["jobId"] == last.id
    assert receiver.requests == 4


async def test_an_end_that_was_stored_when_ocps_was_killed_is_told_by_the_next_start(
    engine, receiver, monkeypatch
):
    await engine.open([{"url": receiver.url}])
    first = await engine.run()
    await receiver.next()
    await until(lambda: engine.measure("waiting") == 0)

    def killed(*_):
        raise OSError("killed")

    # As if it were killed between the end in the store and the file: nothing is written any more.
    with monkeypatch.context() as context:
        context.setattr(Spool, "put", killed)
        second = await engine.run()
        await engine.host.close()
    assert not engine.waiting()
    await engine.open([{"url": receiver.url}])
    told = {(await receiver.next())["data"]["jobId"]}
    while second.id not in told:
        told.add((await receiver.next())["data"]["jobId"])
    # What is told twice has the same id both times.
    assert told <= {first.id, second.id}
    assert len(set(receiver.ids)) == 2


def test_temporary_files_of_a_crash_are_removed_at_the_start_and_nothing_else(tmp_path):
    name = f"{1:015d}-{'a' * 12}-{'b' * 32}.json"
    for one in (name, f".{name}.4711", ".hidden", "notes.txt"):
        (tmp_path / one).write_text("{}")
    assert Spool(tmp_path).open() == [name]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", name, "notes.txt"]


async def test_ends_before_notifications_were_configured_are_not_told(engine, receiver):
    await engine.open([])
    await engine.run()
    await engine.host.close()
    await engine.open([{"url": receiver.url}])
    job = await engine.run()
    assert (await receiver.next())["data"]["jobId"] == job.id
    assert receiver.requests == 1


async def test_nobody_is_told_whose_rule_is_gone(engine, receiver):
    await receiver.stop()
    await engine.open([{"url": receiver.url}])
    await engine.run()
    await until(engine.waiting)
    await engine.host.close()
    await receiver.start()
    await engine.open([{"url": receiver.url + "?other", "phases": ["ABORTED"]}])
    assert not engine.waiting()
    assert receiver.requests == 0


async def test_no_more_wait_than_may_and_a_burst_is_read_from_the_store(engine, receiver, monkeypatch):
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    await engine.open([{"url": receiver.url, "phases": ALL}])
    manager = engine.host.manager
    jobs = [await manager.submit(JobRequest("good", owner="alice")) for _ in range(12)]
    for job in jobs:
        await manager.wait(job.id, TIMEOUT)
    told = {(await receiver.next())["data"]["jobId"] for _ in jobs}
    assert told == {job.id for job in jobs}
    monkeypatch.setattr(module, "MAX_QUEUED", 0)
    await engine.run()
    await until(lambda: engine.measure("dropped") == 1)


async def test_the_figures_are_in_metrics(engine, receiver):
    config = engine.config([{"url": receiver.url}])
    http = {"port": 0, "auth": {"open": True}}
    await engine.host.configure(type(config).model_validate({**config.model_dump(), "http": http}))
    await engine.run()
    await receiver.next()
    await until(lambda: engine.measure("waiting") == 0)
    port = engine.host._http.port
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/metrics") as answer:
        text = await answer.text()
    assert "ocps_notifications_sent_total 1.0" in text
    assert "ocps_notifications_waiting 0.0" in text
    # Those that the alarm rules look at are among them.
    wanted = {name for found in expressions()["rules"] for name in named(found) if "notifications" in name}
    assert wanted
    assert all(f"{name} 0.0" in text for name in wanted)


# The configuration


def instance(folder, notifications) -> dict:
    (folder / "jobs.yaml").write_text(
        yaml.safe_dump({"definitions": [{"name": "good", "kind": "command", "argv": ["true"]}]})
    )
    entry = {"sal_index": 1, "work_dir": str(folder / "work"), "definitions": [str(folder / "jobs.yaml")]}
    return {"instances": [{**entry, "notifications": notifications}]}


HOOK = [{"url": "https://hooks.example.org/a"}]
MAIL = [{"mail": ["night@example.org"]}]


@pytest.mark.parametrize(
    ("notifications", "words"),
    [
        ({"rules": HOOK}, "webhook/secret_file: expected a file"),
        ({"rules": HOOK, "webhook": {"secret_file": "missing"}}, "secret_file missing: No such file"),
        ({"rules": HOOK, "webhook": {"secret_file": "{}/open"}}, "use chmod 600"),
        ({"rules": HOOK, "webhook": {"secret_file": "{}/short"}}, "expected whsec_ and base64"),
        ({"rules": HOOK, "webhook": {"secret_file": "{}/good"}}, "'hooks.example.org' is not among"),
        ({"rules": MAIL}, "mail/sender: expected the address"),
        (
            {"rules": MAIL, "mail": {"sender": "a@example.org", "user": "u", "tls": "none"}},
            "a password is not sent without TLS",
        ),
        ({"rules": MAIL, "mail": {"sender": "a@example.org", "user": "u"}}, "password_file: expected a file"),
        ({"rules": [{"phases": ["ERROR"]}]}, "notifications/rules/0"),
        ({"rules": [{"mail": ["a@b\nBcc: c@d"]}]}, "notifications/rules/0"),
        ({"rules": [{"url": "file:///etc/passwd"}]}, "notifications/rules/0/url"),
    ],
)
async def test_a_check_finds_what_would_not_work_and_shows_no_secret(tmp_path, notifications, words):
    for name, text, mode in (
        ("open", "whsec_AAAA", 0o644),
        ("short", "whsec_c2VjcmV0", 0o600),
        ("good", f"whsec_{'A' * 44}", 0o600),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    text = yaml.safe_dump(instance(tmp_path, notifications)).replace("{}", str(tmp_path))
    (tmp_path / "config.yaml").write_text(text)
    reason = await check_file(tmp_path / "config.yaml", 1)
    assert words in reason
    assert "c2VjcmV0" not in reason
    assert "AAAA" not in reason


async def test_a_check_accepts_what_works(tmp_path):
    (tmp_path / "good").write_text(f"whsec_{'A' * 44}\n")
    (tmp_path / "good").chmod(0o600)
    webhook = {"secret_file": str(tmp_path / "good"), "hosts": ["*.example.org"]}
    document = instance(tmp_path, {"rules": HOOK, "webhook": webhook})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    assert await check_file(tmp_path / "config.yaml", 1) == ""
    config = load_instance(document, 1)
    assert isinstance(config.notifications, NotificationsConfig)
    # A receiver is no reason to run jobs elsewhere.
    assert config.key() == config.model_copy(update={"notifications": None}).key()


async def test_a_work_dir_that_takes_no_notifications_is_refused_with_the_reason(engine, receiver):
    (engine.folder / "work").mkdir()
    (engine.folder / "work" / "notifications").write_text("in the way")
    with pytest.raises(ConfigError, match="work/notifications: File exists"):
        await engine.open([{"url": receiver.url}])


@pytest.mark.parametrize(
    "url", ["https://u:p@hooks.example.org/", "https://[::1/", "https://hooks.example.org:x/", "https:///x"]
)
async def test_a_url_that_hides_its_host_is_refused(tmp_path, url):
    (tmp_path / "good").write_text(f"whsec_{'A' * 44}\n")
    (tmp_path / "good").chmod(0o600)
    webhook = module.NotificationsConfig.model_validate(
        {"rules": [{"url": url}], "webhook": {"secret_file": str(tmp_path / "good"), "hosts": ["*"]}}
    )
    with pytest.raises(ConfigError, match="notifications/rules/0/url"):
        module.make_channels(webhook)
