# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: secrets, proxies, owners, quotas, other sites' pages."""

from __future__ import annotations

import asyncio
import base64
import os

import pytest
import yaml
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.http.secrets_file import hash_password, hash_token
from lsst.dm.OCPS.jobs.model import JobRequest


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ALICE, BOB, OPERATOR = basic("alice", "wonder:land"), bearer("bobs-long-token"), bearer("operators-token")


@pytest.fixture
def secrets(tmp_path):
    users = {
        "alice": {"password": hash_password("wonder:land")},
        "bob": {"token": hash_token("bobs-long-token")},
        "olga": {"token": hash_token("operators-token")},
    }
    path = tmp_path / "secrets.yaml"
    path.touch(0o600)
    path.write_text(yaml.safe_dump({"users": users}))
    return path


@pytest.fixture
def auth(secrets):
    return {"method": "secrets", "file": str(secrets), "operators": ["olga"]}


async def create(served, headers, **form) -> str:
    status, body, answer = await served.ask("POST", served.url(), data=form, headers=headers)
    assert status == 303, body
    return answer.headers["Location"]


async def test_without_a_right_secret_nothing_is_served(start, auth):
    served = await start(http={"auth": auth})
    wrong = [{}, basic("alice", "x"), basic("nobody", "x"), basic("bob", ""), bearer("x"), bearer("")]
    wrong += [basic("", ""), {"Authorization": "Basic !"}, {"Authorization": "Digest x"}, bearer("é")]
    for headers in wrong:
        for path in ("/uws/sleep", "/api/v1/job", "/api/v1/definitions"):
            status, body, answer = await served.ask("GET", path, headers=headers)
            assert status == 401, headers
            assert "Basic" in answer.headers["WWW-Authenticate"]
            assert "sleep" not in body
    for path in ("/healthz", "/availability", "/capabilities", "/api/v1/openapi.json"):
        assert (await served.ask("GET", path))[0] == 200


async def test_owners_see_and_touch_their_own_jobs_and_operators_all(start, auth):
    served = await start(http={"auth": auth})
    alices, bobs = await create(served, ALICE), await create(served, BOB)
    assert "<uws:ownerId>alice<" in (await served.ask("GET", alices, headers=ALICE))[1]
    for path in ("/uws/sleep", "/api/v1/job"):
        _, body, _ = await served.ask("GET", path, headers=ALICE)
        assert (alices.rpartition("/")[2] in body, bobs.rpartition("/")[2] in body) == (True, False)
        _, body, _ = await served.ask("GET", path, headers=OPERATOR)
        assert (alices.rpartition("/")[2] in body, bobs.rpartition("/")[2] in body) == (True, True)
    api = f"/api/v1/job/{bobs.rpartition('/')[2]}"
    touched = [("GET", bobs), ("GET", f"{bobs}/phase"), ("GET", f"{bobs}/results/ocps.log"), ("DELETE", bobs)]
    touched += [("GET", api), ("GET", f"{api}/results"), ("DELETE", api), ("GET", f"{bobs}/parameters")]
    for method, url in touched:
        assert (await served.ask(method, url, headers=ALICE))[0] == 403, url
    for form in ({"PHASE": "RUN"}, {"text": "x"}, {"ACTION": "DELETE"}):
        assert (await served.ask("POST", bobs, data=form, headers=ALICE))[0] == 403
    assert (await served.ask("GET", f"{bobs}/phase", headers=BOB))[1] == "PENDING"
    assert (await served.ask("DELETE", bobs, headers=OPERATOR))[0] == 303


async def test_anonymous_is_an_owner_of_its_own(start, auth):
    served = await start(http={"auth": auth | {"anonymous": True}})
    nobodys, alices = await create(served, {}), await create(served, ALICE)
    assert '<uws:ownerId xsi:nil="true"/>' in (await served.ask("GET", nobodys, headers=basic("", "")))[1]
    assert (await served.ask("GET", alices))[0] == 403
    assert (await served.ask("GET", nobodys, headers=ALICE))[0] == 403
    assert (await served.ask("GET", nobodys, headers=basic("alice", "x")))[0] == 401


async def test_who_may_use_a_definition_is_in_it(start, auth):
    served = await start(http={"auth": auth})
    for headers, expected in ((ALICE, 303), (BOB, 403), (OPERATOR, 403)):
        assert (await served.ask("POST", served.url("private"), headers=headers))[0] == expected


async def test_an_owner_has_a_limit_which_two_at_once_do_not_pass(start, auth):
    served = await start(max_jobs_per_owner=3, http={"auth": auth})
    asked = (served.ask("POST", served.url(), headers=BOB) for _ in range(10))
    statuses = [status for status, _, _ in await asyncio.gather(*asked)]
    assert sorted(statuses) == [303] * 3 + [503] * 7
    await create(served, ALICE)
    assert (await served.ask("GET", served.url(), headers=BOB))[1].count("<uws:jobref") == 3


async def test_dry_runs_take_nothing_of_an_owners_limit_and_respect_it(start, auth):
    served = await start(max_jobs_per_owner=1, http={"auth": auth})
    tried = f"{served.url()}?dryrun"
    for _ in range(3):
        assert (await served.ask("POST", tried, headers=BOB))[0] == 200
    assert (await served.ask("POST", served.url(), headers=BOB))[0] == 303
    status, text, _ = await served.ask("POST", tried, headers=BOB)
    assert (status, text) == (503, "1 of your jobs have not ended; the limit is 1\n")
    assert (await served.ask("POST", f"{served.url('private')}?dryrun", headers=OPERATOR))[0] == 403


async def test_the_file_is_read_again_when_it_changes(start, auth, secrets):
    served = await start(http={"auth": auth})
    await create(served, ALICE)
    secrets.write_text(yaml.safe_dump({"users": {"carol": {"token": hash_token("carols")}}}))
    os.utime(secrets, ns=(1, 1))
    assert (await served.ask("GET", "/uws/sleep", headers=ALICE))[0] == 401
    await create(served, bearer("carols"))


async def test_the_file_holds_no_secret_in_clear(secrets):
    text = secrets.read_text()
    assert "wonder" not in text
    assert "token: bobs" not in text
    assert hash_password("x") != hash_password("x")


# A proxy


SECRET = "a-secret-of-the-proxy"


def by_proxy(user: str, secret: str = SECRET) -> dict[str, str]:
    return {"X-Auth-Request-User": user, "X-OCPS-Proxy-Secret": secret}


@pytest.fixture
def proxy(tmp_path):
    """A proxy at this machine's own address, which shows a secret."""
    path = tmp_path / "proxy-secret"
    path.touch(0o600)
    path.write_text(f"{SECRET}\n")
    return {
        "method": "proxy",
        "proxies": ["127.0.0.0/8"],
        "secret_file": str(path),
        "operators": ["olga"],
    }


async def test_a_trusted_proxy_names_the_user(start, proxy):
    served = await start(http={"auth": proxy})
    job = await create(served, by_proxy("alice"))
    assert (await served.ask("GET", job, headers=by_proxy("alice")))[0] == 200
    assert (await served.ask("GET", job, headers=by_proxy("olga")))[0] == 200
    assert (await served.ask("GET", job, headers=by_proxy("bob")))[0] == 403
    assert (await served.ask("GET", job))[0] == 401
    twice = [*by_proxy("alice").items(), ("X-Auth-Request-User", "bob")]
    assert (await served.ask("GET", job, headers=twice))[0] == 401
    for name in ("sal", "anonymous", "a b", "../x", "é"):
        assert (await served.ask("GET", job, headers=by_proxy(name)))[0] == 403


async def test_a_process_of_this_machine_that_plays_the_proxy_needs_its_secret(start, proxy):
    served = await start(http={"auth": proxy})
    for headers in ({"X-Auth-Request-User": "alice"}, by_proxy("alice", "wrong"), by_proxy("alice", "")):
        assert (await served.ask("GET", "/uws/sleep", headers=headers))[0] == 401
    twice = [*by_proxy("alice").items(), ("X-OCPS-Proxy-Secret", SECRET)]
    assert (await served.ask("GET", "/uws/sleep", headers=twice))[0] == 401


@pytest.mark.parametrize(("anonymous", "expected"), [(False, 401), (True, 403)])
async def test_a_header_from_elsewhere_counts_for_nothing(start, anonymous, expected):
    auth = {"method": "proxy", "proxies": ["192.0.2.1"], "operators": ["olga"], "anonymous": anonymous}
    served = await start(http={"auth": auth})
    job = await served.manager.submit(JobRequest("sleep", {}, owner="alice"), run=False)
    for header in ({"X-Auth-Request-User": "olga"}, {"X-Forwarded-For": "192.0.2.1"}):
        headers = {"X-Auth-Request-User": "alice"} | header
        assert (await served.ask("GET", f"{served.url()}/{job.id}", headers=headers))[0] == expected


# Everybody


@pytest.mark.parametrize(
    ("http", "words"),
    [
        ({"host": "0.0.0.0"}, "auth method none"),
        ({"host": "::"}, "auth method none"),
        ({"auth": {"method": "proxy"}}, "proxies"),
        ({"auth": {"method": "proxy", "proxies": ["x"]}}, "proxies"),
        ({"auth": {"method": "proxy", "proxies": ["0.0.0.0/0"]}}, "secret"),
        ({"auth": {"method": "proxy", "proxies": ["::1"]}}, "secret"),
        ({"auth": {"open": False}}, "pipetask; choose"),
        ({"host": ""}, "host or socket"),
        ({"auth": {"method": "secrets", "file": "/nowhere"}}, "/nowhere"),
        ({"host": "no.such.host.invalid", "auth": {"force": True}}, "no such host"),
    ],
)
async def test_a_server_that_would_be_open_or_shut_to_all_does_not_start(start, http, words):
    with pytest.raises(ConfigError, match=words):
        await start(http=http)


async def test_with_force_it_listens_elsewhere(start):
    served = await start(http={"host": "0.0.0.0", "auth": {"force": True}})
    assert (await served.ask("GET", "/uws/sleep", headers={"Host": "192.0.2.7:8080"}))[0] == 200
    # A name that nobody configured is not repeated in addresses.
    assert (await served.ask("GET", "/uws/sleep", headers={"Host": "ocps.example.org"}))[0] == 403
    served = await start(
        work_dir=f"{served.manager.workspaces.work_dir}-2",
        http={"host": "0.0.0.0", "domain": "ocps.example.org", "auth": {"force": True}},
    )
    assert (await served.ask("GET", "/uws/sleep", headers={"Host": "ocps.example.org"}))[0] == 200


async def test_pages_of_other_sites_can_change_nothing(served):
    for origin in ("https://evil.example.org", "null", "http://localhost:1"):
        status, _, _ = await served.ask(
            "POST", "/uws/sleep", data={"PHASE": "RUN"}, headers={"Origin": origin}
        )
        assert status == 403
    assert (await served.ask("POST", "/uws/sleep", headers={"Origin": served.root}))[0] == 303
    # A name that somebody's DNS leads to this machine.
    assert (await served.ask("GET", "/uws/sleep", headers={"Host": "evil.example.org"}))[0] == 403


async def test_the_environment_overrides_the_configuration(start, monkeypatch):
    monkeypatch.setenv("API_BASEPATH", "/other/v2")
    monkeypatch.setenv("API_DOMAIN", "ocps.example.org:8443")
    monkeypatch.setenv("API_PROTOCOL", "https")
    served = await start()
    assert (await served.ask("GET", "/other/v2/job"))[0] == 200
    assert (await served.ask("GET", "/api/v1/job"))[0] == 404
    _, body, _ = await served.ask("GET", "/other/v2/openapi.json")
    assert '"https://ocps.example.org:8443/other/v2"' in body


@pytest.mark.parametrize(
    ("name", "value"), [("API_PORT", "many"), ("API_PROTOCOL", "ftp"), ("API_BASEPATH", "x/")]
)
async def test_what_the_environment_says_wrongly_is_named(start, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        await start()


async def test_only_its_own_handlers_are_open_to_all(start, auth):
    served = await start(http={"auth": auth})
    job = await create(served, ALICE)
    for path in ("/event", "/results/event", "/results/a/event", "/results/healthz"):
        assert (await served.ask("GET", job + path))[0] == 401, path
    assert (await served.ask("GET", f"{job}/results/a/event", headers=ALICE))[0] == 404
    assert (await served.ask("GET", "/uws/sleep/x/event"))[0] == 401
