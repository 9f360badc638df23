# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCPS that stays up, and README's script run against it as a file."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.waiting import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]


def test_readmes_script_runs_against_it(tmp_path):
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
            (tmp_path / "script.py").write_text(script)
            shell = f". {folder}/env.sh && {sys.executable} {tmp_path}/script.py"
            answer = subprocess.run(
                ["sh", "-c", shell], capture_output=True, text=True, timeout=2 * TIMEOUT, check=False
            )
            assert answer.returncode == 0, answer.stderr
            assert "biasMetrics" in answer.stdout
            assert "ocps.log" in answer.stdout
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=TIMEOUT)
