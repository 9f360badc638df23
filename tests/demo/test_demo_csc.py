# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCPS that stays up, and the scripts of README and documentation run against it as files."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.waiting import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, script: str, name: str) -> str:
    """Run a script as a file in the environment that the demo says; return what it wrote."""
    path = folder.parent / name
    path.write_text(script)
    shell = f". {folder}/env.sh && {sys.executable} {path}"
    answer = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, timeout=2 * TIMEOUT, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_scripts_of_the_documentation_run_against_it(tmp_path):
    folder = tmp_path / "demo"
    command = [sys.executable, ROOT / "demo" / "stay.py", "--folder", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout:
                if "Ctrl-C ends it" in line:
                    break
            else:
                raise AssertionError((folder / "csc.log").read_text())
            (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
            shown = run(folder, script, "readme.py")
            assert "biasMetrics" in shown
            assert "ocps.log" in shown
            page = (ROOT / "doc" / "scripts.rst").read_text()
            blocks = re.findall(r"code-block:: python\n\n((?: {4}.*\n|\n)+)", page)
            scripts = [textwrap.dedent(block) for block in blocks]
            names = [f"block{number}.py" for number in range(len(scripts))]
            with ThreadPoolExecutor() as pool:
                one, check, several = pool.map(partial(run, folder), scripts, names)
            assert "biasMetrics" in one
            assert "ocps.log" in one
            assert re.search(r"^\d+ quanta: \{'", check)
            assert "The job would fail: no data matched: exposure=999" in check
            assert several == "['completed', 'completed', 'completed']\ncompleted\n"
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=TIMEOUT)
