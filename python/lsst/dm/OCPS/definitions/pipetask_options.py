# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of ``pipetask run`` that are allowed in the parameter ``config``.

``config`` is split into words by the rules of a shell, but no shell is run.
Options that are not in the allow-list are refused; for those that OCPS sets
itself, the error says so.
"""

from __future__ import annotations

__all__ = ["PipetaskOptions", "graph_options", "parse_options", "split_list"]

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..jobs.errors import RequestError

# Options that take a value; the first name is the one that is passed on.
_WITH_VALUE = (
    ("--config", "-c"),
    ("--config-file", "-C"),
    ("--processes", "-j"),
    ("--timeout",),
    ("--instrument",),
    ("--select-tasks",),
    ("--delete",),
    ("--skip-existing-in",),
    ("--dataset-query-constraint",),
    ("--data-id-table",),
    ("--cores-per-quantum", "-n"),
    ("--memory-per-quantum",),
    ("--start-method",),
)
_FLAGS = (
    "--register-dataset-types",
    "--fail-fast",
    "--no-versions",
    "--skip-init-writes",
    "--skip-existing",
    "--enable-implicit-threading",
    "--raise-on-partial-outputs",
    "--no-raise-on-partial-outputs",
)
_GRAPH = frozenset(
    {
        "--config",
        "--config-file",
        "--instrument",
        "--select-tasks",
        "--delete",
        "--skip-existing",
        "--skip-existing-in",
        "--dataset-query-constraint",
        "--data-id-table",
    }
)
"""Options on which the quantum graph depends; the others are for its execution."""

_INPUT = ("--input", "-i")
_OWNED = {
    ("-b", "--butler-config"): "the Butler is set in the configuration",
    ("-o", "--output"): "outputs go to u/ocps/{job_id}",
    ("--output-run",): "outputs go to u/ocps/{job_id}/run",
    ("-p", "--pipeline"): "it is the field pipeline",
    ("-d", "--data-query"): "it is the field data_query",
    ("--summary",): "OCPS reads it for the result",
    ("--extend-run", "--replace-run", "--prune-replaced", "--clobber-outputs", "--rebase"): (
        "every job has a run of its own"
    ),
    ("--debug", "--pdb", "--profile", "--coverage"): "it is for a terminal",
}
_VALUE_NAMES = {name: names[0] for names in _WITH_VALUE for name in names} | dict.fromkeys(_INPUT, "--input")
_OWNED_NAMES = {name: reason for names, reason in _OWNED.items() for name in names}
_WHOLE_NUMBERS = ("-j", "--processes", "-n", "--cores-per-quantum", "--timeout")
_KEY_VALUE = re.compile(r"[A-Za-z_][\w:.\[\]'\"]*=.*", re.DOTALL)


@dataclass(frozen=True)
class PipetaskOptions:
    """Options that have been checked.

    Parameters
    ----------
    arguments : `tuple` [`str`, ...]
        Words for the command line of ``pipetask run``.
    inputs : `tuple` [`str`, ...]
        Input collections in addition to the configured ones.
    config_files : `tuple` [`str`, ...]
        Values of ``--config-file`` among the arguments, with their labels.
    """

    arguments: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    config_files: tuple[str, ...] = ()


def graph_options(arguments: Iterable[str]) -> list[str]:
    """Return those of the allowed options that ``pipetask qgraph`` takes too."""
    chosen: list[str] = []
    words = iter(arguments)
    for name in words:
        option = [name] if name in _FLAGS else [name, next(words)]
        chosen += option if name in _GRAPH else []
    return chosen


def split_list(text: str) -> tuple[str, ...]:
    """Return the items of a comma-separated list, without spaces around them."""
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def parse_options(config: str) -> PipetaskOptions:
    """Parse and check the parameter ``config``.

    Parameters
    ----------
    config : `str`
        Further words of the command line: options, ``label:field=value``
        (which stands for ``-c label:field=value``) and ``label:file`` (for
        ``-C label:file``).

    Returns
    -------
    options : `PipetaskOptions`
        The options to pass on.

    Raises
    ------
    RequestError
        If an option is not allowed or lacks its value.
    """
    try:
        words = shlex.split(config)
    except ValueError as error:
        raise RequestError(f"config: {error} in {config!r}") from None
    arguments: list[str] = []
    inputs: list[str] = []
    iterator = iter(words)
    for word in iterator:
        if not word.startswith("-"):
            arguments += ["--config", word] if _KEY_VALUE.fullmatch(word) else ["--config-file", word]
            continue
        name, value = _split_option(word)
        if name in _OWNED_NAMES:
            raise RequestError(f"config: option {name} is not for a job: {_OWNED_NAMES[name]}")
        if name in _FLAGS:
            if value is not None:
                raise RequestError(f"config: option {name} takes no value")
            arguments.append(name)
        elif name in _VALUE_NAMES:
            value = _value(name, value, iterator)
            if _VALUE_NAMES[name] == "--input":
                inputs += split_list(value)
            else:
                arguments += [_VALUE_NAMES[name], value]
        else:
            allowed = ", ".join(sorted({*_FLAGS, *_VALUE_NAMES}))
            raise RequestError(f"config: option {name} is not allowed; allowed are {allowed}")
    files = [value for name, value in itertools.pairwise(arguments) if name == "--config-file"]
    return PipetaskOptions(tuple(arguments), tuple(inputs), tuple(files))


def _split_option(word: str) -> tuple[str, str | None]:
    """Split ``--name=value`` or ``-nvalue``; value is `None` if there is none."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return word[:2], word[2:] or None


def _value(name: str, value: str | None, words: Iterator[str]) -> str:
    if value is None:
        value = next(words, None)
    if not value:
        raise RequestError(f"config: option {name} needs a value")
    if name in _WHOLE_NUMBERS and not re.fullmatch("[0-9]{1,9}", value):
        raise RequestError(f"config: option {name} needs a whole number, not {value!r}")
    if name in ("-c", "--config") and not _KEY_VALUE.fullmatch(value):
        raise RequestError(f"config: option {name} needs label:field=value, not {value!r}")
    return value
