# SPDX-License-Identifier: GPL-3.0-or-later
"""A short soak, and that a soak finds what does not stay flat."""

from __future__ import annotations

from soak.__main__ import RESTART, Soak, Start
from soak.figures import FIGURES, Samples


async def test_a_short_soak_does_all_that_a_long_one_does(tmp_path, bus):
    soak = Soak(tmp_path)
    await soak.run(jobs=45, readers=10, records=300, starts=1)
    table, _ = soak.samples.judge()
    print("\n".join([table, *soak.lines]))
    # Whether the figures stay flat and starts are quick, a long one tells.
    assert not soak.faults
    assert soak.samples.values.keys() == {figure.name for figure in FIGURES}
    assert "(3 over SAL, 5 commands)" in soak.lines[0]
    picture = tmp_path / "soak.svg"
    soak.samples.plot(picture, soak.lines[0])
    assert picture.read_text().count("<svg") == 1


def samples(**changed: list[float]) -> Samples:
    found = Samples()
    for figure in FIGURES:
        for value in changed.get(figure.name, [100.0] * 8):
            found.add(figure.name, value)
    return found


def test_what_stays_flat_is_no_fault():
    # One that stands out is none, either: other programs use the machine, too.
    table, found = samples(memory=[100, 101, 100, 900, 100, 102, 101, 100]).judge()
    assert not found
    assert table.count("\n") == len(FIGURES) + 1


def test_what_grows_is_a_fault():
    for figure in FIGURES:
        _, (fault,) = samples(**{figure.name: [100.0] * 4 + [300.0] * 4}).judge()
        assert fault.startswith(f"{figure.name}: 300.0")


def test_what_was_not_measured_is_a_fault():
    _, (fault,) = samples(threads=[9.0]).judge()
    assert fault == "threads: fewer than 4 samples"


def test_a_start_that_takes_too_long_is_a_fault(tmp_path):
    quick, slow = Start(60.0, RESTART - 0.1), Start(60.0, RESTART + 0.1)
    late = Start(60.0, 2 * RESTART)
    for alone, full, words in (
        (slow, quick, "the server takes 2.10 s"),
        (quick, late, "takes 2.10 s longer"),
    ):
        soak = Soak(tmp_path)
        soak.judge_starts(quick, quick, quick, 5)
        assert not soak.late
        soak.judge_starts(alone, full, quick, 5)
        (fault,) = soak.late
        assert words in fault
