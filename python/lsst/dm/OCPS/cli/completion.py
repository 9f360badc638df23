# SPDX-License-Identifier: GPL-3.0-or-later
"""Completion of words in a shell, with names from the server."""

from __future__ import annotations

__all__ = ["complete_definition", "complete_job", "complete_parameter"]

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..client import Client, ClientError
from ..client.profiles import ProfileError, find_profile
from .session import Session

PATIENCE = 2.0
"""How long the server may take (s)."""


def _ask(
    context: click.Context, words: Callable[[Client], Awaitable[list[CompletionItem]]]
) -> list[CompletionItem]:
    async def ask(session: Session) -> list[CompletionItem]:
        async with asyncio.timeout(PATIENCE), session.client(timeout=PATIENCE) as client:
            return await words(client)

    try:
        profile = find_profile(context.params.get("url") or "", context.params.get("profile") or "")
        return asyncio.run(ask(Session(profile)))
    except (ClientError, ProfileError, TimeoutError, OSError):
        # No message: it would appear within the command line that is being typed.
        return []


def _beginning(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    return [item for item in items if item.value.startswith(incomplete)]


def complete_definition(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the job definitions that begin with what has been typed."""

    async def names(client: Client) -> list[CompletionItem]:
        found = await client.definitions()
        return [CompletionItem(entry["name"], help=entry.get("description")) for entry in found]

    return _beginning(_ask(context, names), incomplete)


def complete_job(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of recent jobs that begin with what has been typed."""

    async def ids(client: Client) -> list[CompletionItem]:
        jobs = await client.jobs(last=100)
        return [CompletionItem(job.id, help=f"{job.definition} {job.phase}") for job in jobs]

    return _beginning(_ask(context, ids), incomplete)


def complete_parameter(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return ``name=`` of parameters that are not given yet, or ``name=value`` where the values are few."""
    definition = context.params.get("definition") or ""
    given = {word.partition("=")[0] for word in context.params.get("parameters") or ()}

    async def words(client: Client) -> list[CompletionItem]:
        entries = [entry for entry in await client.definitions() if entry["name"] == definition]
        parameters = entries[0]["parameters"] if entries else []
        name, equals, _ = incomplete.partition("=")
        if not equals:
            return [
                CompletionItem(f"{one['name']}=", help=one.get("description"))
                for one in parameters
                if one["name"] not in given
            ]
        values = [value for one in parameters if one["name"] == name for value in _values(one)]
        return [CompletionItem(f"{name}={value}") for value in values]

    return _beginning(_ask(context, words), incomplete)


def _values(parameter: dict[str, Any]) -> list[str]:
    if parameter.get("type") == "bool":
        return ["true", "false"]
    return [str(value) for value in parameter.get("options") or ()]
