# SPDX-License-Identifier: GPL-3.0-or-later
"""A job for trying clients: sleep, then write a text or fail.

python -I -S sleep.py --duration=SECONDS --text=TEXT --fail=true|false
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

RESULT = "result.txt"


def main() -> int:
    """Run in the job's output directory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--duration", type=float, required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--fail", choices=("true", "false"), required=True)
    arguments = parser.parse_args()
    print(f"sleeping for {arguments.duration:g} s", flush=True)
    time.sleep(arguments.duration)
    if arguments.fail == "true":
        print("failing, as asked for", file=sys.stderr)
        return 1
    Path(RESULT).write_text(arguments.text, encoding="utf-8", errors="surrogateescape")
    return 0


if __name__ == "__main__":
    sys.exit(main())
