# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of UWS: against the schema, and read by other people's models."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree
from pydantic_xml import BaseXmlModel, element
from vo_models.uws.models import NSMAP, Jobs, JobSummary, Parameter, Results
from vo_models.vosi.availability import Availability
from vo_models.vosi.capabilities import VOSICapabilities

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "data" / "uws.xsd"))
UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"


class AnyParameters(BaseXmlModel, tag="parameters", ns="uws", nsmap=NSMAP):
    """Parameters of any name: vo-models has them by name only."""

    parameter: list[Parameter] = element(tag="parameter", default=[])


async def document(served, url: str) -> etree._Element:
    """Return a document that is what the schema wants."""
    status, body, answer = await served.ask("GET", url)
    assert status == 200
    assert answer.content_type == "application/xml"
    root = etree.fromstring(body.encode())
    SCHEMA.assertValid(root)
    return root


async def test_documents_of_a_job_in_each_phase_are_valid(served):
    pending = await served.create(RUNID="r", text="x")
    held = await served.create("typed")
    running = await served.create(run=True, duration="3600")
    failed = await served.create(run=True, duration="0", fail="true")
    done = await served.create("write", run=True, text="x")
    aborted = await served.create()
    await served.ask("POST", aborted, data={"PHASE": "ABORT"})
    await served.executing(running)
    assert [await served.ended(failed), await served.ended(done)] == ["ERROR", "COMPLETED"]
    phases = []
    for job in (pending, held, running, failed, done, aborted):
        root = await document(served, job)
        phases.append(root.findtext(f"{UWS}phase"))
        for part in ("parameters", "results"):
            await document(served, f"{job}/{part}")
        body = etree.tostring(root)
        read = JobSummary[AnyParameters].from_xml(body)
        assert read.version.value == "1.1"
        assert (read.error_summary is not None) == (read.phase.value == "ERROR")
        assert {parameter.id for parameter in read.parameters.parameter} <= {"text", "duration", "fail"}
    assert phases == ["PENDING", "PENDING", "EXECUTING", "ERROR", "COMPLETED", "ABORTED"]
    jobs = await document(served, served.url())
    assert len(Jobs.from_xml(etree.tostring(jobs)).jobref) == 4


async def test_a_failed_job_says_why_in_its_document_and_more_at_error(served):
    job = await served.create(run=True, duration="0", fail="true")
    await served.ended(job)
    read = JobSummary[AnyParameters].from_xml((await served.ask("GET", job))[1].encode())
    assert "failing, as asked for" in read.error_summary.message
    assert (read.error_summary.type.value, read.error_summary.has_detail) == ("fatal", True)
    status, body, answer = await served.ask("GET", f"{job}/error")
    assert (status, answer.content_type) == (200, "text/plain")
    assert "sleeping for 0 s" in body
    fine = await served.create()
    assert (await served.ask("GET", f"{fine}/error"))[0] == 404


async def test_results_have_absolute_links_sizes_and_types_that_hold(served):
    job = await served.create("write", run=True, text="abc")
    await served.ended(job)
    read = Results.from_xml((await served.ask("GET", f"{job}/results"))[1].encode())
    found = {result.id: result for result in read.results}
    assert found.keys() == {"ocps.log", "page.html", "sub/a b.txt"}
    for result in read.results:
        status, body, answer = await served.ask("GET", result.href)
        assert (status, len(body.encode())) == (200, result.size)
        assert answer.content_type == result.mime_type


@pytest.mark.parametrize("text", ["<&>\"'", "a\x01\x0b\ufffe b", "é∀𝄞", "]]>", "\ta\r\nb\n"])
async def test_whatever_a_text_contains_the_document_holds_it(served, text):
    job = await served.create(text=text, RUNID="<&>\"'")
    root = await document(served, job)
    shown = "".join(c if c.isprintable() or c in "\t\r\n" else "\ufffd" for c in text)
    assert root.findtext(f"{UWS}parameters/{UWS}parameter[@id='text']") == shown
    assert root.findtext(f"{UWS}runId") == "<&>\"'"
    await document(served, served.url())


async def test_single_members_are_plain_text(served):
    job = await served.create()
    for member, expected in {"phase": "PENDING", "quote": "", "owner": "", "executionduration": "0"}.items():
        status, body, answer = await served.ask("GET", f"{job}/{member}")
        assert (status, body, answer.content_type) == (200, expected, "text/plain")


async def test_vosi_says_what_is_there(served):
    _, body, _ = await served.ask("GET", "/availability")
    assert Availability.from_xml(body.encode()).available
    _, body, _ = await served.ask("GET", "/capabilities")
    offered = VOSICapabilities.from_xml(body.encode()).capability
    standards = [str(capability.standard_id) for capability in offered]
    assert standards.count("ivo://ivoa.net/std/UWS#async-1.1") == len(served.manager.lane.definitions) - 1
    # That of one user is not told to strangers.
    assert "/uws/private" not in body
    assert "ivo://ivoa.net/std/VOSI#availability" in standards
    assert (await served.ask("GET", "/healthz"))[0] == 200


async def test_a_server_whose_store_fails_says_that_it_is_not_available(served, monkeypatch):
    from lsst.dm.OCPS.jobs.errors import StoreError

    async def fail():
        raise StoreError("the disk is full")

    monkeypatch.setattr(served.manager.store, "last_sequence", fail)
    assert (await served.ask("GET", "/readyz"))[0] == 503
    _, body, _ = await served.ask("GET", "/availability")
    read = Availability.from_xml(body.encode())
    assert (read.available, read.note) == (False, ["the disk is full"])
