# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs over UWS: made, changed, run, stopped, removed."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.waiting import until_job


async def test_a_new_job_is_pending_and_its_absolute_address_is_answered(served):
    status, _, answer = await served.ask("POST", served.url(), data={"duration": "0"})
    assert status == 303
    location = answer.headers["Location"]
    assert re.fullmatch(re.escape(served.url()) + r"/[0-9a-f]{32}", location)
    assert (await served.ask("GET", f"{location}/phase"))[1] == "PENDING"


async def test_the_address_is_the_one_that_the_client_used(served):
    port = served.server.port
    _, _, answer = await served.ask("POST", f"http://localhost:{port}/uws/sleep", data={})
    assert answer.headers["Location"].startswith(f"http://localhost:{port}/uws/sleep/")


async def test_a_configured_domain_is_used_for_addresses(start):
    served = await start(http={"domain": "ocps.example.org", "protocol": "https"})
    _, _, answer = await served.ask("POST", "/uws/sleep", data={})
    assert answer.headers["Location"].startswith("https://ocps.example.org/uws/sleep/")


async def test_ids_begin_with_nothing_that_clients_strip(served):
    locations = [await served.create() for _ in range(20)]
    assert not any(location.rpartition("/")[2][0] in "htps" for location in locations)


async def test_phase_run_at_creation_runs_the_job(served):
    job = await served.create(run=True, duration="0", text="hello")
    assert await served.ended(job) == "COMPLETED"
    assert (await served.ask("GET", f"{job}/results/result.txt"))[1] == "hello"


@pytest.mark.parametrize("where", ["body", "query", "job"])
async def test_a_pending_job_is_run_by_phase_in_body_or_query_or_at_the_job_itself(served, where):
    job = await served.create(duration="0")
    url = {"body": f"{job}/phase", "query": f"{job}/phase?PHASE=RUN", "job": job}[where]
    status, _, answer = await served.ask("POST", url, data={} if where == "query" else {"PHASE": "RUN"})
    assert (status, answer.headers["Location"]) == (303, job)
    assert await served.ended(job) == "COMPLETED"


async def test_of_several_runs_at_once_one_wins(served):
    job = await served.create(duration="0")
    asked = (served.ask("POST", f"{job}/phase", data={"PHASE": "RUN"}) for _ in range(10))
    statuses = [status for status, _, _ in await asyncio.gather(*asked)]
    assert sorted(statuses) == [303] + [403] * 9


async def test_what_the_phase_does_not_allow_is_forbidden(served):
    job = await served.create(run=True, duration="0")
    await served.ended(job)
    for phase in ("RUN", "ABORT", "HOLD"):
        status, body, _ = await served.ask("POST", f"{job}/phase", data={"PHASE": phase})
        assert status == 403, body
        assert job.rpartition("/")[2] in body
    assert (await served.ask("POST", f"{job}/phase", data={"PHASE": "DANCE"}))[0] == 400
    assert (await served.ask("POST", f"{job}/phase", data={}))[0] == 400


async def test_abort_stops_what_runs(served):
    job = await served.create(run=True, duration="3600")
    await served.executing(job)
    assert (await served.ask("POST", f"{job}/phase", data={"PHASE": "ABORT"}))[0] == 303
    assert (await served.ask("GET", f"{job}/phase"))[1] == "ABORTED"


async def test_a_held_job_waits_for_an_explicit_run(start):
    served = await start(max_workers=1)
    first = await served.create(run=True, duration="3600")
    job = await served.create(run=True, duration="0")
    assert (await served.ask("POST", f"{job}/phase", data={"PHASE": "HOLD"}))[0] == 303
    assert (await served.ask("GET", f"{job}/phase"))[1] == "HELD"
    await served.ask("POST", f"{first}/phase", data={"PHASE": "ABORT"})
    assert (await served.ask("GET", f"{job}/phase"))[1] == "HELD"
    await served.ask("POST", f"{job}/phase", data={"PHASE": "RUN"})
    assert await served.ended(job) == "COMPLETED"


async def test_parameters_change_by_post_and_put_while_pending_only(served):
    job = await served.create(duration="5", text="a")
    assert (await served.ask("POST", job, data={"TEXT": "b"}))[0] == 303
    assert (await served.ask("GET", f"{job}/parameters/text"))[1] == "b"
    assert (await served.ask("POST", f"{job}/parameters", data={"text": "c"}))[0] == 303
    assert (await served.ask("PUT", f"{job}/parameters/text", data=b"d & <e>"))[0] == 303
    assert (await served.ask("GET", f"{job}/parameters/text"))[1] == "d & <e>"
    assert (await served.ask("PUT", f"{job}/parameters", data={"duration": "0"}))[0] == 303
    await served.ask("POST", f"{job}/phase", data={"PHASE": "RUN"})
    await served.ended(job)
    assert (await served.ask("POST", f"{job}/parameters", data={"text": "f"}))[0] == 403
    assert (await served.ask("PUT", f"{job}/parameters/text", data=b"f"))[0] == 403
    assert (await served.ask("GET", f"{job}/results/result.txt"))[1] == "d & <e>"


async def test_all_mistakes_are_named_at_once_and_no_job_is_made(served):
    form = {"number": "12", "flag": "perhaps", "colour": "blue", "text": "no!", "speed": "1"}
    status, body, _ = await served.ask("POST", served.url("typed"), data=form)
    assert status == 400
    for name in form:
        assert f"{name}: " in body
    assert "between 1 and 10 s" in body
    assert "jobref" not in (await served.ask("GET", served.url("typed")))[1]


async def test_what_must_be_given_is_asked_for_when_the_job_is_run(served):
    job = await served.create("typed", text="x")
    status, body, _ = await served.ask("POST", f"{job}/phase", data={"PHASE": "RUN"})
    assert (status, "number: must be given" in body) == (400, True)
    await served.ask("POST", job, data={"number": "3"})
    assert (await served.ask("POST", f"{job}/phase", data={"PHASE": "RUN"}))[0] == 303


async def test_values_reach_the_program_as_they_are(served):
    text = "$(touch x) `id` ; rm -rf / \" ' \\ {number} {{}} \n %s é"
    job = await served.create("typed", run=True, number="3", real="1e-3", flag="yes", text=text)
    assert await served.ended(job) == "COMPLETED"
    _, log, _ = await served.ask("GET", f"{job}/results/ocps.log")
    assert log == f"3\n--real=0.001\ntrue\nred\n{text}\n"


async def test_a_text_is_not_taken_for_an_option(served):
    status, body, _ = await served.ask(
        "POST", served.url("typed"), data={"number": "3", "text": "--help", "PHASE": "RUN"}
    )
    assert (status, "hyphen" in body) == (400, True)


async def test_execution_duration_and_destruction_can_be_read_and_set(served):
    job = await served.create(duration="0")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0, tzinfo=None).isoformat()
    assert (await served.ask("POST", f"{job}/executionduration", data={"EXECUTIONDURATION": "77"}))[0] == 303
    assert (await served.ask("GET", f"{job}/executionduration"))[1] == "77"
    assert (await served.ask("POST", f"{job}/destruction", data={"DESTRUCTION": tomorrow}))[0] == 303
    assert (await served.ask("GET", f"{job}/destruction"))[1] == f"{tomorrow}.000Z"
    assert (await served.ask("POST", job, data={"executionDuration": "78", "destruction": tomorrow}))[
        0
    ] == 303
    assert (await served.ask("GET", f"{job}/executionDuration"))[1] == "78"
    for wrong in ("-1", "1.5", "soon", "9" * 30):
        assert (await served.ask("POST", job, data={"EXECUTIONDURATION": wrong}))[0] == 400
    for wrong in ("2020-01-01T00:00:00Z", "yesterday", "99999-01-01"):
        assert (await served.ask("POST", job, data={"DESTRUCTION": wrong}))[0] == 400


async def test_a_job_that_runs_too_long_is_stopped_and_the_definition_sets_the_limit(served):
    job = await served.create("short", run=True)
    assert (await served.ask("GET", f"{job}/executionduration"))[1] == "1"
    longer = await served.create("short", EXECUTIONDURATION="3600")
    assert (await served.ask("GET", f"{longer}/executionduration"))[1] == "2"
    assert await served.ended(job) == "ERROR"
    assert "ran longer than" in (await served.ask("GET", f"{job}/error"))[1]


async def test_at_its_destruction_time_a_job_is_archived_and_listed_no_more(served):
    job = await served.create(run=True, duration="0")
    await served.ended(job)
    for seconds in (0.3, 3, 30):
        # A time that is over when it arrives is refused.
        soon = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
        status, _, _ = await served.ask("POST", f"{job}/destruction", data={"DESTRUCTION": soon})
        if status == 303:
            break
    assert status == 303
    await until_job(served.manager, job.rpartition("/")[2], lambda job: job.phase == "ARCHIVED")
    assert (await served.ask("GET", served.url()))[1].count("jobref") == 0
    assert (await served.ask("GET", served.url() + "?PHASE=ARCHIVED"))[1].count("<uws:jobref") == 1
    assert (await served.ask("GET", f"{job}/results/result.txt"))[0] == 404


@pytest.mark.parametrize("how", ["delete", "post"])
async def test_a_deleted_job_is_gone_and_the_list_is_named(served, how):
    job = await served.create(run=True, duration="0")
    await served.ended(job)
    method, data = ("DELETE", None) if how == "delete" else ("POST", {"ACTION": "DELETE"})
    status, _, answer = await served.ask(method, job, data=data)
    assert status == 303
    assert answer.headers["Location"].startswith(f"{served.url()}?LAST=")
    assert (await served.ask("GET", answer.headers["Location"]))[0] == 200
    assert (await served.ask("GET", job))[0] == 404
    assert (await served.ask(method, job, data=data))[0] == 404
    assert not served.manager.workspaces.of(job.rpartition("/")[2]).root.exists()


async def test_delete_of_a_running_job_stops_it(served):
    job = await served.create(run=True, duration="3600")
    await served.executing(job)
    async with served.manager.subscribe(lambda job: job.phase == "ABORTED") as changes:
        assert (await served.ask("DELETE", job))[0] == 303
        assert (await anext(aiter(changes))).message == "deleted"
    assert (await served.ask("GET", job))[0] == 404


async def test_unknown_jobs_and_lists_are_not_found(served):
    job = await served.create()
    job_id = job.rpartition("/")[2]
    for path in ("/uws/nolist", "/uws/sleep/" + "0" * 32, f"/uws/typed/{job_id}", f"{job}/nothing"):
        assert (await served.ask("GET", path))[0] == 404, path


async def test_run_id_is_kept_and_shown(served):
    job = await served.create(RUNID="my run")
    assert "<uws:runId>my run</uws:runId>" in (await served.ask("GET", job))[1]
    assert "<uws:runId>my run</uws:runId>" in (await served.ask("GET", served.url()))[1]
    await served.ask("POST", job, data={"runid": "other"})
    assert "<uws:runId>other</uws:runId>" in (await served.ask("GET", job))[1]


async def test_a_full_queue_is_said_so(start):
    served = await start(max_workers=1, max_queued=0)
    await served.create(run=True, duration="3600")
    status, body, answer = await served.ask("POST", served.url(), data={"PHASE": "RUN"})
    assert (status, "full" in body, "Retry-After" in answer.headers) == (503, True, True)
