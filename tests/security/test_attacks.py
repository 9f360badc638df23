# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks by class, as bytes on a socket. The counts are printed at the end of the run."""

# ruff: noqa: E501
from __future__ import annotations

import asyncio
import base64
import json
import secrets
from itertools import product

import pytest
from lsst.dm.OCPS.http.job_tokens import JobTokens
from lsst.dm.OCPS.jobs.store import JobQuery

from tests.security.conftest import TOKENS, attacker, bearer, put_job

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def ended_job(served, **headers: str) -> str:
    """Return the id of a job that has ended, of whoever sends ``headers``."""
    status, answer = await attacker(served).ask(
        "POST", "/uws/sleep", b"duration=0&text=secret-of-a-job&PHASE=RUN", FORM | headers
    )
    assert status == 303, answer
    job_id = answer.partition(b"Location: ")[2].partition(b"\r\n")[0].decode().rpartition("/")[2]
    await served.manager.wait(job_id, 60)
    return job_id


DOTS = [
    "..",
    "%2e%2e",
    ".%2e",
    "..%2f",
    "%2e%2e%2f",
    "..%5c",
    "..%252f",
    "%c0%ae%c0%ae",
    "....//",
    "..;",
    "..%00",
]
TARGETS = ["etc/passwd", "jobs.sqlite3", "event.key", "lock"]
PLACES = [
    "/{path}",
    "/uws/{path}",
    "/uws/sleep/{path}",
    "/uws/sleep/{job}/{path}",
    "/uws/sleep/{job}/results/{path}",
    "/uws/sleep/{job}/parameters/{path}",
    "/api/v1/job/{path}",
    "/api/v1/job/{job}/{path}",
    "/api/v1/job/result/{job}/{path}",
    "/api/v1/job/result/{path}/0",
    "/api/v1/job?id={path}",
]


async def test_no_path_leads_out(served, attacks):
    counter = attacks("path traversal")
    job = await ended_job(served)
    who = attacker(served)
    paths = [f"{'/'.join([dots] * depth)}/{target}" for dots, depth, target in product(DOTS, (1, 4), TARGETS)]
    paths += [f"{lead}{target}" for lead, target in product(("%2f", "/", "//", "file:///"), TARGETS)]

    async def attempt(place: str, path: str) -> None:
        url = place.format(path=path, job=job)
        status, answer = await who.ask("GET", url)
        kept = not any(sign in answer for sign in (b"root:", b"SQLite format", b"Traceback"))
        counter.count(status in (400, 403, 404, 405) and kept, (url, status))

    for place in PLACES:
        await asyncio.gather(*(attempt(place, path) for path in paths))


MEMBERS = (
    "",
    "/phase",
    "/parameters",
    "/parameters/text",
    "/results",
    "/results/result.txt",
    "/results/ocps.log",
)
MEMBERS += ("/error", "/quote", "/owner", "/executionduration", "/destruction")
CHANGES = (
    b"PHASE=RUN",
    b"PHASE=ABORT",
    b"PHASE=HOLD",
    b"ACTION=DELETE",
    b"text=x",
    b"DESTRUCTION=2030-01-01",
)


async def test_the_job_of_another_is_neither_seen_nor_touched(start, auth, attacks):
    counter = attacks("another's job")
    served = await start(http={"auth": auth | {"anonymous": True}})
    job = await ended_job(served, **bearer("alice"))
    before = await served.manager.get(job)
    who = attacker(served)
    requests = [("GET", f"/uws/sleep/{job}{member}", b"") for member in MEMBERS]
    requests += [("HEAD", f"/uws/sleep/{job}{member}", b"") for member in MEMBERS]
    requests += [("POST", f"/uws/sleep/{job}{member}", change) for member in MEMBERS for change in CHANGES]
    requests += [("PUT", f"/uws/sleep/{job}/parameters/text", b"x"), ("DELETE", f"/uws/sleep/{job}", b"")]
    for member in ("", "/phase", "/results", "/parameters"):
        requests.append(("GET", f"/api/v1/job/{job}{member}", b""))
    requests += [("GET", f"/api/v1/job?id={job}", b""), ("GET", f"/api/v1/job/result/{job}/0", b"")]
    requests += [("DELETE", f"/api/v1/job/{job}", b""), ("POST", f"/api/v1/job/{job}/event", b"{}")]
    requests += [
        ("GET", "/uws/sleep", b""),
        ("GET", "/api/v1/job", b""),
        ("GET", "/api/v1/job?phase=completed", b""),
    ]
    callers = [bearer("bob"), {}, {"X-Auth-Request-User": "alice"} | bearer("bob"), {"Cookie": "user=alice"}]
    callers += [{"Authorization": "Basic Og=="}]
    for headers in callers:
        for method, path, body in requests:
            status, answer = await who.ask(method, path, body, FORM | headers)
            listed = path in ("/uws/sleep", "/api/v1/job", "/api/v1/job?phase=completed")
            refused = status == 200 if listed else status in (401, 403, 404, 405)
            unseen = b"secret-of-a-job" not in answer and (not listed or job.encode() not in answer)
            counter.count(refused and unseen, (method, path, status))
    assert await served.manager.get(job) == before


async def test_false_credentials_open_nothing(start, auth, attacks):
    counter = attacks("false credentials")
    served = await start(http={"auth": auth})
    who = attacker(served)
    token = TOKENS["alice"]
    false = [
        token[:-1],
        token + "x",
        token.upper(),
        f"'{token}'",
        f'"{token}"',
        token[::-1],
        "",
        " ",
        "*",
        "null",
    ]
    false += [
        "undefined",
        "0",
        "alice",
        "admin",
        token + "\x7f",
        "é",
        "\udcff\udcfe",
        "x" * 8000,
        token.replace("-", "–"),
    ]
    false += [secrets.token_urlsafe(size) for size in (1, 16, 32, 64) for _ in range(20)]
    values = [f"Bearer {text}" for text in false]
    values += [f"{scheme} {token}" for scheme in ("Token", "Digest", "Negotiate", "Basic", "BearerX", "")]
    pairs = [
        "alice",
        "alice:",
        ":",
        ":wonder:land",
        "alice:wonder:lan",
        "ALICE:wonder:land",
        "alice\0:wonder:land",
    ]
    pairs += ["sal:x", "anonymous:x", "*:*", "alice:wonder:land\n", "' or 1=1 --:x"]
    for pair in pairs:
        values.append("Basic " + base64.b64encode(pair.encode()).decode())
    values += ["Basic !", "Basic ====", "Basic", "Bearer", "Basic \udcff", "Basic " + "A" * 7000]
    paths = ("/uws/sleep", "/api/v1/job", "/api/v1/definitions", "/api/v1/events", "/uws/sleep/" + "0" * 32)
    for path, value in product(paths, values):
        status, answer = await who.ask("GET", path, headers={"Authorization": value})
        counter.count(status in (400, 401, 403, 429) and b"sleep" not in answer, (path, value[:60], status))
    both = b"GET /uws/sleep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer x\r\n"
    answer = await who.send(both + f"Authorization: Bearer {token}\r\n\r\n".encode(), end=False)
    counter.count(b" 200 " not in answer[:20], "two Authorization headers")


ORIGINS = [
    "https://evil.example.org",
    "null",
    "http://localhost:1",
    "https://localhost:{port}",
    "http://127.0.0.1",
]
ORIGINS += [
    "http://localhost:{port}.evil.example.org",
    "http://evil@localhost",
    "http://[",
    "x",
    "http://",
    "//localhost",
]
ORIGINS += ["file://", "http://localhost:{port}@evil.example.org", "\udcff", "http://LOCALHOST.evil:{port}"]


async def test_pages_of_other_sites_change_nothing(served, attacks):
    counter = attacks("CSRF")
    who = attacker(served)
    job = await ended_job(served)
    changes = [("POST", "/uws/sleep", b"PHASE=RUN"), ("POST", f"/uws/sleep/{job}", b"ACTION=DELETE")]
    changes += [("POST", f"/uws/sleep/{job}/phase", b"PHASE=ABORT"), ("DELETE", f"/uws/sleep/{job}", b"")]
    changes += [("DELETE", f"/api/v1/job/{job}", b""), ("PUT", "/api/v1/job", put_job(command="true"))]
    changes += [
        ("POST", "/api/v1/job", b'{"type": "sleep"}'),
        ("PUT", f"/uws/sleep/{job}/parameters/text", b"x"),
    ]
    for origin, (method, path, body) in product(ORIGINS, changes):
        host = f"localhost:{served.server.port}"
        origin = origin.replace("{port}", str(served.server.port))
        status, _ = await who.ask(method, path, body, FORM | {"Host": host, "Origin": origin})
        counter.count(status == 403, (origin, method, path, status))
    own = FORM | {
        "Host": f"localhost:{served.server.port}",
        "Origin": f"http://localhost:{served.server.port}",
    }
    assert (await who.ask("POST", "/uws/sleep", b"", own))[0] == 303
    assert len(await served.manager.find(JobQuery())) == 2


HOSTS = [
    "evil.example.org",
    "evil.example.org:80",
    "localhost.evil.example.org",
    "127.0.0.1.nip.io",
    "a b",
    "[::1",
    "@",
]
HOSTS += [
    "localhost@evil",
    "localhost/evil",
    "localhost\\evil",
    "evil#localhost",
    "0.0.0.0",
    "192.0.2.1",
    "",
    "\udcff",
]


async def test_a_name_that_leads_here_in_somebodys_dns_is_not_served(served, attacks):
    counter = attacks("rebinding, Host")
    who = attacker(served)
    for host, path in product(HOSTS, ("/uws/sleep", "/api/v1/job", "/capabilities", "/api/v1/openapi.json")):
        status, answer = await who.ask("GET", path, headers={"Host": host})
        evil = b"evil.example.org/" in answer or b"http://evil" in answer
        counter.count(status in (400, 403) and not evil, (host, path, status))


async def test_under_authentication_an_unknown_host_is_not_repeated(start, auth, attacks):
    counter = attacks("rebinding, Host")
    served = await start(http={"auth": auth})
    for host, path in product(HOSTS[:3], ("/uws/sleep", "/capabilities", "/api/v1/openapi.json")):
        status, answer = await attacker(served).ask("GET", path, headers={"Host": host} | bearer("alice"))
        counter.count(status == 403 and b"http://evil" not in answer, (host, path, status))


SMUGGLED = b"DELETE /uws/sleep/{job} HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEADS = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding\n: chunked\r\n",
    b"Content-Length: 0\r\nContent-Length: 60\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: -0\r\n",
    b" Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"X: y\nContent-Length: 5\r\n",
    b"X: y\rTransfer-Encoding: chunked\r\n",
    b"Content-Length: \r\n",
    b"X\0: y\r\nContent-Length: 5\r\n",
]


async def test_no_request_is_smuggled_in_the_body_of_another(start, auth, attacks):
    counter = attacks("smuggling")
    served = await start(http={"auth": auth})
    job = await ended_job(served, **bearer("alice"))
    # A body that a proxy would pass on as it is; it has no credentials of its own.
    body = b"0\r\n\r\n" + SMUGGLED.replace(b"{job}", job.encode())
    for head in HEADS:
        request = f"POST /uws/sleep HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKENS['alice']}\r\n".encode()
        answer = await attacker(served).send(request + head + b"\r\n" + body)
        there = not (await served.manager.get(job)).deleted
        counter.count(there and b"500 Internal" not in answer, head)


FORWARDED = [
    "X-Forwarded-For",
    "X-Real-IP",
    "Forwarded",
    "X-Forwarded-User",
    "X-Remote-User",
    "Remote-User",
    "REMOTE_USER",
]
FORWARDED += [
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Forwarded-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
]
FORWARDED += ["X-HTTP-Method-Override", "X-OCPS-Proxy-Secret", "X_Auth_Request_User", "X-Auth-Request-User "]


async def test_headers_of_proxies_count_for_nothing_from_others(start, auth, attacks):
    counter = attacks("forwarded and proxy headers")
    served = await start(http={"auth": auth})
    for name, value in product(FORWARDED, ("olga", "127.0.0.1", "for=127.0.0.1", "DELETE")):
        status, answer = await attacker(served).ask("GET", "/uws/sleep", headers={name: value})
        counter.count(status in (400, 401) and b"<uws:jobs" not in answer, (name, value, status))


JSON = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"x"',
    b"{}",
    b"\xff",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"NaN",
    b'{"type": null}',
]
JSON += [
    b'{"type": {"$gt": ""}}',
    b'{"type": "\\ud800"}',
    b'{"type": "no such"}',
    b'{"type": "sleep", "env": []}',
]
JSON += [b'{"type": "sleep", "env": {"duration": null}}', b'{"type": "sleep", "env": {"nosuch\\ud800": "x"}}']
JSON += [
    b'{"type": "sleep", "run_id": 3}',
    b'{"type": "sleep", "prereq_jobs": {"a": 1}}',
    b'{"type": "../sleep"}',
]
JSON += [b'{"type": "sleep", "env": {"duration": 1e400}}', b'{"type": "sleep", "priority": "9999999"}']
JSON += [
    b'{"command": "id"}',
    b'{"command": ["id"]}',
    b'{"command": "\\u0000"}',
    b'{"command": "x", "replicas": 2}',
]
JSON += [b'{"command": "x", "environment": [{"name": "\\ud800", "value": "x"}]}']


async def test_bodies_that_make_no_sense_are_refused(served, attacks):
    counter = attacks("JSON bodies")
    for method, body in product(("PUT", "POST"), JSON):
        status, answer = await attacker(served).ask(
            method, "/api/v1/job", body, {"Content-Type": "application/json"}
        )
        counter.count(400 <= status < 500 and b"Traceback" not in answer, (method, body[:60], status))
    assert not served.manager.live()


async def test_only_the_job_itself_reports_its_progress(served, attacks):
    counter = attacks("job_event tokens")
    job = await served.create(run=True, duration="3600")
    await served.executing(job)
    job_id = job.rpartition("/")[2]
    key = JobTokens.of(served.manager.workspaces.work_dir)
    token = key.token(job_id)
    false = [
        "",
        "x",
        key.token("0" * 32),
        token[:-1],
        token + "0",
        token.upper(),
        token[::-1],
        "é",
        "\udcff",
        job_id,
    ]
    values = [f"Bearer {text}" for text in false] + [token, f"Basic {token}", f"Token {token}", ""]
    for value in values:
        status, _ = await attacker(served).ask(
            "POST", f"/api/v1/job/{job_id}/event", b'{"message": "forged"}', {"Authorization": value}
        )
        counter.count(status == 401, (value, status))
    other = "f" * 32
    status, _ = await attacker(served).ask(
        "POST", f"/api/v1/job/{other}/event", b'{"message": "forged"}', {"Authorization": f"Bearer {token}"}
    )
    counter.count(status == 401, "another's id")
    assert (await served.manager.get(job_id)).message != "forged"


async def test_no_other_site_may_read_answers(served, attacks):
    counter = attacks("CORS")
    for origin, method in product(
        ("https://evil.example.org", "null", "http://localhost"), ("GET", "OPTIONS", "HEAD")
    ):
        for path in ("/uws/sleep", "/api/v1/job", "/healthz"):
            headers = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
            _, answer = await attacker(served).ask(method, path, headers=headers)
            counter.count(b"access-control-" not in answer.lower(), (origin, method, path))


def part(disposition: bytes, body: bytes = b"x", more: bytes = b"") -> bytes:
    return (
        b"--b\r\nContent-Disposition: form-data; " + disposition + b"\r\n" + more + b"\r\n" + body + b"\r\n"
    )


NAMES = [
    b"../../evil",
    b"/etc/passwd",
    b"..%2f..%2fevil",
    b"a\0b",
    b"a\nb",
    b"\xff\xfe",
    b"x" * 300,
    b"con",
    b"a/b",
    b"",
]
HUGE = b"X-Y: " + b"y" * 100_000 + b"\r\n"


async def test_names_of_uploads_become_no_paths(served, attacks):
    counter = attacks("upload names")
    jobs = served.manager.workspaces.work_dir / "jobs"
    bodies = [part(b'name="' + name + b'"; filename="f"') for name in NAMES]
    bodies += [part(b'name="table"; filename="' + name + b'"', b"kept") for name in NAMES]
    bodies += [part(b'name="table"; filename="f"', more=HUGE), part(b"name=" + b"n" * 100_000)]
    bodies += [part(b'name="table"; filename="f"', more=b"Content-Transfer-Encoding: nosuch\r\n")]
    bodies += [part(b'name="text"', more=b"Content-Type: text/plain; charset=nosuch\r\n")]
    bodies += [b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n"]
    for body in bodies:
        status, answer = await attacker(served).ask(
            "POST",
            "/uws/copy",
            body + b"--b--\r\n",
            {"Content-Type": "multipart/form-data; boundary=b"},
        )
        held = status in (303, 400, 413) and b"Traceback" not in answer
        counter.count(held, (body[:100], status))
    kept = {path.name for path in jobs.rglob("*") if path.is_file()}
    counter.count(kept <= {"table"}, kept)
    counter.count(not list(served.manager.workspaces.work_dir.glob("upload-*")), "left behind")


async def test_of_several_at_once_one_wins(served, attacks):
    counter = attacks("races")
    who = attacker(served)
    for first, second in product((b"PHASE=RUN", b"PHASE=ABORT", b"ACTION=DELETE", b"PHASE=HOLD"), repeat=2):
        job = (await served.create(duration="0")).rpartition("/")[2]
        asked = (who.ask("POST", f"/uws/sleep/{job}", change, FORM) for change in (first, second) * 3)
        statuses = [status for status, _ in await asyncio.gather(*asked)]
        counter.count(set(statuses) <= {303, 403, 404, 409} and 303 in statuses, (first, second, statuses))


@pytest.mark.parametrize(
    "options", ["-b x", "-o x", "--output-run=x", "-p x", "--debug", "--pdb", "-bx", "--butler-config x"]
)
async def test_options_that_ocps_owns_are_refused(start, repo, attacks, options):
    counter = attacks("pipetask options")
    served = await start(butler=str(repo))
    environment = [{"name": "PIPELINE_URL", "value": "$DEMOCAM_DIR/pipelines/bias.yaml"}]
    for form in (options, f"-j 1 {options}", options.replace(" ", "="), f"'{options}'", f"x=1 {options} y=2"):
        body = json.dumps(
            {
                "command": "bin/pipetask.sh",
                "environment": [*environment, {"name": "RUN_OPTIONS", "value": form}],
            }
        )
        status, _ = await attacker(served).ask("PUT", "/api/v1/job", body.encode())
        counter.count(status == 400, (form, status))
