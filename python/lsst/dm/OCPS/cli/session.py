# SPDX-License-Identifier: GPL-3.0-or-later
"""Common parts of all commands: the server, output as words or JSON, errors, exit codes."""

from __future__ import annotations

__all__ = [
    "ABORTED",
    "FAILED",
    "REFUSED",
    "UNREACHABLE",
    "Session",
    "as_json",
    "command_options",
    "exit_code",
    "find_job",
    "show_outcome",
]

import asyncio
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import click
from rich.console import Console

from ..client import Client, ClientError, RemoteJob, UnknownError, UnreachableError
from ..client.profiles import Profile, ProfileError, find_profile
from ..client.text import printable

FAILED = 1
"""Exit code: the job ended as ERROR, or a check failed. 2 is click's, for a wrong command line."""

UNREACHABLE = 3
"""Exit code: the server cannot be reached, or a time ran out."""

REFUSED = 4
"""Exit code: the server refused or does not know the job, or a file exists already."""

ABORTED = 5
"""Exit code: the job ended as ABORTED."""

INTERRUPTED = 130
"""Exit code: Ctrl-C."""

UNEXPECTED = 70
"""Exit code: an error in ocps itself; with OCPS_DEBUG=1 it is shown where."""

SHORTEST_PREFIX = 4


def exit_code(job: RemoteJob) -> int:
    """Return the exit code for a job that has ended."""
    return {"ERROR": FAILED, "ABORTED": ABORTED}.get(job.phase, 0)


@dataclasses.dataclass
class Session:
    """One run of the command.

    Parameters
    ----------
    profile : `Profile`
        The server.
    json : `bool`
        Whether to write JSON, for programs.
    """

    profile: Profile
    json: bool = False

    def __post_init__(self) -> None:
        # A file or a pipe has no width.
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)

    def client(self, **options: Any) -> Client:
        """Return a client of the server."""
        options.setdefault("away", self.tell_away)
        return Client(self.profile.url, token=self.profile.token, ca_file=self.profile.ca_file, **options)

    def tell_away(self, reason: str) -> None:
        """Write that the server is unreachable during a wait, or that it answers again."""
        self.tell(f"{reason}; waiting for it" if reason else "the server answers again")

    def tell(self, text: str) -> None:
        """Write a line to standard error."""
        print(f"ocps: {printable(text)}", file=sys.stderr, flush=True)

    def show_json(self, value: Any) -> None:
        """Write a value as one line of JSON."""
        print(json.dumps(value), flush=True)

    def say(self, text: str) -> None:
        """Write a text, without control characters that a server may have sent."""
        self.console.print(printable(text), markup=False, soft_wrap=True)


def as_json(job: RemoteJob) -> dict[str, Any]:
    """Return a job as JSON types; times in ISO 8601, UTC."""
    document = dataclasses.asdict(job)
    del document["ours"], document["whole"]
    for name, value in document.items():
        if isinstance(value, datetime):
            document[name] = value.isoformat().replace("+00:00", "Z")
    return document


def show_outcome(session: Session, job: RemoteJob) -> None:
    """Write how a job ended, in one line."""
    if session.json:
        session.show_json(as_json(job))
    else:
        session.say(f"{job.id} {job.phase}{': ' if job.error else ''}{job.error}")


async def find_job(client: Client, name: str) -> RemoteJob:
    """Return the job with an address, an id, or the beginning of one.

    Raises
    ------
    UnknownError
        If there is no such job, or more than one.
    """
    try:
        return await client.get(name)
    except UnknownError:
        if len(name) < SHORTEST_PREFIX or "/" in name:
            raise
        found = [job for job in await client.jobs(last=1000) if job.id.startswith(name)]
        if len(found) > 1:
            raise UnknownError(f"{len(found)} jobs begin with {name!r}; give more of the id") from None
        if not found:
            raise
        return await client.get(found[0])


def command_options(function: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
    """Turn a coroutine function into the function of a click command.

    It gets a `Session` first and returns its exit code, `None` for 0. This
    adds ``--json``, ``--url`` and ``--profile``, and puts errors into words.
    """

    @click.option("--url", help="Address of the server (OCPS_URL).")
    @click.option("--profile", help="Which server of the profiles (OCPS_PROFILE).")
    @click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
    @functools.wraps(function)
    def command(*arguments: Any, url: str, profile: str, as_json: bool, **options: Any) -> None:
        try:
            session = Session(find_profile(url or "", profile or ""), as_json)
            sys.exit(asyncio.run(_awaited(function(session, *arguments, **options))) or 0)
        except ProfileError as error:
            _fail(str(error), 2)
        except UnreachableError as error:
            _fail(str(error), UNREACHABLE)
        except TimeoutError:
            _fail("the time has run out", UNREACHABLE)
        except ClientError as error:
            _fail(str(error), REFUSED)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader has closed the pipe.
            sys.stderr.close()
            sys.exit(0)
        except OSError as error:
            _fail(f"{error.filename or 'a file'}: {error.strerror or error}", REFUSED)
        except click.ClickException:
            raise
        except Exception as error:
            if os.environ.get("OCPS_DEBUG"):
                raise
            _fail(f"an error in ocps itself: {type(error).__name__}: {error}", UNEXPECTED)

    return command


async def _awaited(coroutine: Awaitable[int | None]) -> int | None:
    return await coroutine


def _fail(reason: str, code: int) -> None:
    print(f"ocps: {printable(reason)}", file=sys.stderr)
    sys.exit(code)
