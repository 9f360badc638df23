# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dry run found fits into an acknowledgement, however much it is."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from lsst.dm.OCPS.jobs.dry_run import DryRun
from lsst.dm.OCPS.sal.dry_run import MAX_LENGTH, dry_run_text
from lsst.dm.OCPS.script import DryRun as Read


@given(st.dictionaries(st.text(max_size=60), st.integers(0, 10**9), max_size=30))
def test_tasks_are_left_out_until_the_rest_fits(tasks: dict[str, int]) -> None:
    text = dry_run_text(DryRun("all", tasks))
    found = Read.from_ack(text)
    assert len(text) <= MAX_LENGTH
    assert found.quanta == sum(tasks.values())
    assert found.tasks.items() <= tasks.items()
    assert len(found.tasks) + found.more == len(tasks)


@given(st.lists(st.text(max_size=400), min_size=1, max_size=30), st.text(max_size=600))
def test_words_too(words: list[str], checked: str) -> None:
    text = dry_run_text(DryRun(checked, argv=tuple(words)))
    found = Read.from_ack(text)
    assert len(text) <= MAX_LENGTH
    assert list(found.argv) == words[: len(found.argv)]
    assert len(found.argv) + found.more == len(words)
    text = dry_run_text(DryRun(checked))
    assert len(text) <= MAX_LENGTH
    assert checked.startswith(json.loads(text)["checked"])


def test_words_of_another_server_fit_whatever_they_are_written_in() -> None:
    text = dry_run_text(DryRun("проверено: " + "配" * 200))
    assert len(text) <= MAX_LENGTH
    assert json.loads(text)["checked"].startswith("проверено: 配")
