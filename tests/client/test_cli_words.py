# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``ocps`` shows: lines that fit, errors of one line, help, completion."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import click
import pytest
from lsst.dm.OCPS.cli.main import COMMANDS, main
from lsst.dm.OCPS.jobs.model import Progress

from tests.client.conftest import OCPS, User, environment, ocps
from tests.client.test_watch import Terminal
from tests.http.conftest import Served


@pytest.mark.parametrize("columns", [80, 140])
async def test_lines_of_a_terminal_stay_readable(served: Served, tmp_path: Path, columns: int) -> None:
    url = await served.create(run=True, duration="3600", RUNID="a-name-that-is-rather-long-for-a-name")
    await served.executing(url)
    job_id = url.rpartition("/")[2]
    await served.manager.record_progress(
        job_id, Progress(3, 0, 9), "third of nine, which takes " + "long " * 30
    )
    terminal = await Terminal().run(
        OCPS, "list", env=environment(tmp_path, OCPS_URL=served.root), columns=columns
    )
    assert await terminal.end() == 0
    head, line = terminal.text.splitlines()[:2]
    assert head.split()[-1] == "message"
    assert job_id[:12] in line
    assert "EXECUTING" in line
    assert "3/9" in line
    assert "third" in line
    assert len(line) <= columns
    assert "a-name" not in line
    terminal = await Terminal().run(
        OCPS, "list", "-l", env=environment(tmp_path, OCPS_URL=served.root), columns=columns
    )
    assert await terminal.end() == 0
    assert "a-name" in terminal.text
    assert "created" in terminal.text


async def test_errors_are_lines(user: User, served: Served) -> None:
    url = await served.create(run=True, duration="0")
    await served.ended(url)
    job_id = url.rpartition("/")[2]
    (user.home / "file").write_text("")
    outcomes = await asyncio.gather(
        user("results", job_id, "-o", "/proc/nope"),
        user("results", job_id, "-o", "/dev/null/x"),
        user("submit", "sleep", "-f", "text=/not/there"),
        user("list", "--url", "nonsense"),
        user("list", "--url", "http://[::1"),
        user("list", OCPS_TOKEN="bad\ntoken"),
    )
    for code, _, err in outcomes:
        assert code in (2, 3, 4), err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("level", ["chatty", "1" * 5000])
def test_a_log_level_that_is_not_one_is_refused_in_words(level: str) -> None:
    command = [str(Path(sys.executable).with_name("run_uws.py")), "--demo", "--loglevel", level]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert level[:20].upper() in found.stderr
    assert "Traceback" not in found.stderr


def test_help_of_commands_is_that_of_the_list() -> None:
    for name, (_, words) in COMMANDS.items():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert (command.help or "").startswith(words.removesuffix(".")), name


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from lsst.dm.OCPS.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(*{name.split('.')[0] for name in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"aiohttp", "rich", "tenacity", "asyncio"} & set(found.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ocps su", ["submit"]),
        ("ocps submit sl", ["sleep"]),
        ("ocps submit sleep d", ["duration="]),
        ("ocps submit sleep duration=1 ", ["text=", "fail="]),
        ("ocps submit sleep fail=", ["fail=true", "fail=false"]),
    ],
)
async def test_words_are_completed(user: User, words: str, expected: list[str]) -> None:
    given = words.split(" ")
    code, out, err = await ocps(
        user.home,
        OCPS_URL=user.url,
        _OCPS_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(given) - 1),
    )
    assert code == 0, err
    assert [line.partition(",")[2] for line in out.splitlines()] == expected
