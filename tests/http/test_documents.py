# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents of jobs that are kept, and when they are made anew."""

from __future__ import annotations

import dataclasses

from lsst.dm.OCPS.http import documents
from lsst.dm.OCPS.http.documents import Documents
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, now
from lsst.dm.OCPS.jobs.parameters import Parameter

JOB = Job("a", "any", ExecutionPhase.PENDING, {}, None, "test", now(), now())


def test_a_kept_document_is_sent_only_for_the_record_host_and_definition_it_was_made_for(monkeypatch):
    monkeypatch.setattr(documents, "KEPT", 2)
    kept, job, parameters, made = Documents(), JOB, (Parameter("a"),), []

    def get(host: str, job: Job, parameters: tuple[Parameter, ...], text: str = "x") -> bytes:
        def compose() -> str:
            made.append(text)
            return f"{text}{len(made)}"

        return kept.get(host, job, parameters, compose)

    assert get("h", job, parameters) == get("h", job, parameters) == b"x1"
    assert get("g", job, parameters) == b"x2"
    changed = dataclasses.replace(job, phase=ExecutionPhase.ABORTED)
    assert get("h", changed, parameters) == b"x3"
    # The definition was read again from the configuration.
    assert get("h", changed, (Parameter("a", type="file"),)) == b"x4"
    # A long document is not kept, and neither is what it replaces.
    for number in (5, 6):
        assert get("h", job, parameters, "y" * documents.MAX_SIZE).endswith(b"y%d" % number)
    assert get("h", changed, parameters) == b"x7"
    # The oldest is given up for a new one.
    assert get("f", job, parameters) == b"x8"
    assert get("g", job, parameters) == b"x9"
    assert get("f", job, parameters) == b"x8"
