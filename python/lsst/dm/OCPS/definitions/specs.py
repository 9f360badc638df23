# SPDX-License-Identifier: GPL-3.0-or-later
"""Specs of OCPS's own kinds of jobs: one frozen model each."""

from __future__ import annotations

__all__ = ["CommandSpec", "FileValue", "ForwardedSpec", "PipetaskSpec", "SimulationSpec", "Source"]

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..jobs.spec import Spec


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Source(_Part):
    """A git repository at a commit.

    Parameters
    ----------
    url : `str`
        URL of the repository.
    commit : `str`
        The commit, branch or tag.
    """

    url: str
    commit: str


class FileValue(_Part):
    """The value of a file parameter.

    Parameters
    ----------
    value : `str`
        URL of the file, or a text with the prefix ``param:`` if the file was
        sent with the request.
    references : `tuple` [`str`, ...]
        Globs of the URLs from which the file may be fetched.
    """

    value: str
    references: tuple[str, ...] = ()


class _PipetaskFields(Spec):
    """The fields of a run of ``pipetask``.

    Parameters
    ----------
    pipeline : `str`
        URI of the pipeline.
    version : `str`
        Science Pipelines environment; empty for the default.
    data_query : `str`
        Butler expression.
    run_options : `str`
        Further words of the command line, as in the request.
    options : `tuple` [`str`, ...]
        The same words after parsing, without input collections.
    inputs : `tuple` [`str`, ...]
        Input collections.
    output_glob, metrics_glob : `tuple` [`str`, ...]
        Globs of the dataset types that are captured, and of those that hold
        small metrics.
    butler : `str`
        The Butler repository.
    output, run : `str`
        Output collection and output run.
    """

    pipeline: str
    version: str = ""
    data_query: str = ""
    run_options: str = ""
    options: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    output_glob: tuple[str, ...] = ()
    metrics_glob: tuple[str, ...] = ()
    butler: str
    output: str
    run: str


class PipetaskSpec(_PipetaskFields):
    """A pipeline, run by ``pipetask``."""

    kind: Literal["pipetask"] = "pipetask"

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Spec:
        """Return the spec that was stored as ``document``."""
        if "command" in document:
            # Stored by a version in which forwarded pipelines were of this kind.
            return ForwardedSpec.read({**document, "kind": "forwarded"})
        return super().read(document)


class ForwardedSpec(_PipetaskFields):
    """A pipeline, run by a UWS server.

    Parameters
    ----------
    command : `str`
        The command line that the server runs.
    url, commit_ref : `str`
        The git repository that the server checks out for it, and the commit.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Environment variables of the command.
    """

    kind: Literal["forwarded"] = "forwarded"
    command: str
    url: str
    commit_ref: str
    environment: Mapping[str, str]


class CommandSpec(Spec):
    """A command or script.

    Parameters
    ----------
    argv : `tuple` [`str`, ...]
        Words of the command line, with places.
    variables : `~collections.abc.Mapping` [`str`, `str`]
        Environment variables, with places.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Environment variables that are used as they are.
    values : `~collections.abc.Mapping` [`str`, `str`]
        Values for the places.
    files : `~collections.abc.Mapping` [`str`, `FileValue`]
        Files by parameter.
    source : `Source` or `None`
        The git repository that is checked out for it.
    outputs : `tuple` [`str`, ...]
        Globs of the files in the output directory that are results.
    version : `str`
        Science Pipelines environment; empty for the default.
    command : `str`
        The command line that a configuration allows, if the job is one.
    """

    kind: Literal["command"] = "command"
    argv: tuple[str, ...]
    variables: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    values: Mapping[str, str] = {}
    files: Mapping[str, FileValue] = {}
    source: Source | None = None
    outputs: tuple[str, ...] = ("*",)
    version: str = ""
    command: str = ""


class SimulationSpec(Spec):
    """A simulated pipeline.

    Parameters
    ----------
    pipeline : `str`
        Its name, which determines how it ends.
    """

    kind: Literal["simulation"] = "simulation"
    pipeline: str
