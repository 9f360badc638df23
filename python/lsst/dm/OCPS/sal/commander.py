# SPDX-License-Identifier: GPL-3.0-or-later
"""Command an OCPS from a terminal over SAL, as other CSCs can be: ``command_ocps 1``."""

from __future__ import annotations

__all__ = ["OcpsCommander", "main"]

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import Any

from lsst.ts import salobj

from ..config import SalIndex
from .request import DRY_RUN_PREFIX

FIELDS = ("version", "config", "data_query", "prereq_jobs", "output_dataset_types")
"""Fields of ``execute`` beside ``pipeline``."""

RUN_TIMEOUT = 3600.0
"""How long (s) a job may take until its command is not waited for any more; the job goes on."""


class OcpsCommander(salobj.CscCommander):  # type: ignore[misc]
    """Commander of an OCPS: ``execute`` and ``check`` with named fields, results in one line.

    Parameters
    ----------
    index : `int`
        SAL index of the OCPS.
    **kwargs
        Others of `lsst.ts.salobj.CscCommander`.
    """

    def __init__(self, index: int, **kwargs: Any) -> None:
        super().__init__(name="OCPS", index=index, **kwargs)
        for name in ("abort", "enterControl", "setValue"):
            self.command_dict.pop(name, None)
        fields = " ".join(f"[{name}=…]" for name in FIELDS)
        self.help_dict["execute"] = f"PIPELINE {fields}  # run a pipeline, or job:DEFINITION"
        self.help_dict["check"] = f"PIPELINE {fields}  # say what execute would do, and run nothing"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the SAL index; salobj 6 itself would take any."""
        choices = [member.value for member in SalIndex]
        parser.add_argument("index", type=int, choices=choices, help=f"SAL index: {SalIndex.in_words()}")

    @classmethod
    def add_kwargs_from_args(cls, args: argparse.Namespace, kwargs: dict[str, Any]) -> None:
        """Pass the SAL index on to the constructor."""
        kwargs["index"] = args.index

    async def do_execute(self, args: Sequence[str]) -> None:
        """Run a pipeline or a job definition, and wait for its end."""
        await self._execute(args, "")

    async def do_check(self, args: Sequence[str]) -> None:
        """Say what ``execute`` would do; nothing is run."""
        self.output(await self._execute(args, DRY_RUN_PREFIX))

    async def _execute(self, args: Sequence[str], prefix: str) -> str:
        """Send ``execute``; return the text of its final acknowledgement."""
        if not args:
            raise ValueError("expected a pipeline, or job: and the name of a definition")
        # A remote keeps the fields of the command before.
        fields = dict.fromkeys(FIELDS, "")
        for word in args[1:]:
            name, equals, value = word.partition("=")
            if not equals or name not in fields:
                raise ValueError(f"{word!r}: expected FIELD=VALUE with one of {', '.join(FIELDS)}")
            fields[name] = value
        command = self.remote.cmd_execute
        known = {name: value for name, value in fields.items() if value or hasattr(command.data, name)}
        try:
            ack = await command.set_start(pipeline=f"{prefix}{args[0]}", **known, timeout=RUN_TIMEOUT)
        except salobj.AckError as error:
            raise RuntimeError(str(error.ackcmd.result)) from None
        return str(ack.result)

    async def evt_job_result_callback(self, data: Any) -> None:
        """Show a result in one line; the whole can be long."""
        self.output(summary(data.job_id, data.exit_code, data.result))


def summary(job_id: str, exit_code: int, text: str) -> str:
    """Return what an event ``job_result`` says in one line."""
    try:
        document = json.loads(text)
        phase, count = document["phase"], len(document.get("results") or ())
        reason = (document.get("errorSummary") or {}).get("message") or ""
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"job_result: job_id={job_id}, exit_code={exit_code}, result that cannot be read"
    words = f"job_result: job_id={job_id}, exit_code={exit_code}, {phase}, {count} results"
    return f"{words}: {' '.join(reason.split())}" if reason else words


def main() -> None:
    """Run the commander until ``exit`` or the end of what is typed."""
    asyncio.run(OcpsCommander.amain(index=None))
