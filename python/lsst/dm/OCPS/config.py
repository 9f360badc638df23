# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of one instance, frozen and typed.

Defaults are defined by the classes here, and those of the engine's limits by
`Limits`. ``schema/OCPS.yaml`` defines what a file may contain, and repeats the
defaults for configuration packages; a test fails where the two differ.
"""

from __future__ import annotations

__all__ = [
    "AuthConfig",
    "CommandConfig",
    "ConfigError",
    "HttpConfig",
    "InstanceConfig",
    "MailConfig",
    "NotificationRule",
    "NotificationsConfig",
    "JobLimits",
    "SalIndex",
    "UwsConfig",
    "WebhookConfig",
    "load_instance",
    "validate",
]

import enum
import glob
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jsonschema
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from .config_schema import CONFIG_SCHEMA
from .jobs.limits import Limits

Settings = TypeVar("Settings", bound=BaseModel)


class ConfigError(Exception):
    """The configuration is not valid; the text says where, and what was expected."""


class SalIndex(enum.IntEnum):
    """Indices of the SAL component OCPS.

    Kept here because older interface packages lack RA.
    """

    LATISS = 1
    LSSTComCam = 2
    LSSTCam = 3
    RA = 101

    @classmethod
    def in_words(cls) -> str:
        """Return all indices with their names."""
        return ", ".join(f"{index.value} {index.name}" for index in cls)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EnvironmentConfig(_Frozen):
    """One Science Pipelines environment; see the schema."""

    name: str = "default"
    python: str = ""
    setup: str = ""
    variables: Mapping[str, str] = {}
    preload: bool = True
    fast: bool = True


class JobLimits(_Frozen):
    """Limits of each local job; see the schema."""

    memory: int = 0
    open_files: int = 0
    core: int = 0
    nice: int = 0
    threads: int = 1
    processes: int = 0
    output_size: int = 0

    def of_process(self) -> dict[str, int]:
        """Return the limits to set in a process; see `step.set_limits`."""
        limits = {"core": self.core, "nice": self.nice}
        for name in ("memory", "open_files", "processes", "output_size"):
            if value := getattr(self, name):
                limits[name] = value
        return limits


class UwsConfig(_Frozen):
    """Further settings of the uws backend; see the schema."""

    command: str = "cd $JOB_SOURCE_DIR && bash bin/pipetask.sh"
    source_url: str = "https://github.com/lsst-dm/uws_scripts"
    commit_ref: str = "main"
    version_variables: tuple[str, ...] = ("UWS_JOB_IMAGE_TAG", "EUPS_TAG")
    timeout: float = 30.0
    token_file: str = ""
    ca_file: str = ""
    trusted: bool = False


class CommandConfig(_Frozen):
    """A command line that ``PUT /job`` may run; see the schema."""

    command: str
    url: str = ""
    commit_ref: str = ""
    variables: tuple[str, ...] = ()


class AuthConfig(_Frozen):
    """Authentication of the HTTP face; see the schema."""

    method: Literal["none", "secrets", "proxy"] = "none"
    file: str = ""
    header: str = "X-Auth-Request-User"
    proxies: tuple[str, ...] = ()
    proxy_accounts: tuple[str, ...] = ()
    secret_file: str = ""
    operators: tuple[str, ...] = ()
    anonymous: bool = False
    open: bool = False
    force: bool = False


class HttpConfig(_Frozen):
    """The HTTP face; see the schema."""

    host: str = "127.0.0.1"
    port: int = 8080
    socket: str = ""
    prefix: str = ""
    base_path: str = "/api/v1"
    uws_path: str = "/uws"
    domain: str = ""
    protocol: Literal["http", "https"] = "http"
    max_body: int = 1_048_576
    max_upload: int = 104_857_600
    max_owner_uploads: int = 10_737_418_240
    max_uploads: int = 107_374_182_400
    max_connections: int = 0
    max_connections_per_peer: int = 0
    auth: AuthConfig = AuthConfig()

    @property
    def api_root(self) -> str:
        """Path of the JSON dialect, with the prefix."""
        return self.prefix + self.base_path

    @property
    def uws_root(self) -> str:
        """Path of the UWS job lists, with the prefix."""
        return self.prefix + self.uws_path

    @property
    def authenticated(self) -> bool:
        """Whether all callers are authenticated: by ``auth``, or because only the Unix socket is served."""
        return self.auth.method != "none" or not self.host

    def overridden(self, environ: Mapping[str, str] = os.environ) -> HttpConfig:
        """Return this with the values of API_PORT, API_BASEPATH, API_DOMAIN and API_PROTOCOL, if set.

        Raises
        ------
        ConfigError
            If one of these variables is not valid.
        """
        names = {"port": "API_PORT", "base_path": "API_BASEPATH", "domain": "API_DOMAIN"}
        names["protocol"] = "API_PROTOCOL"
        found = {field: environ[name] for field, name in names.items() if environ.get(name)}
        document = {**self.model_dump(mode="json"), **found}
        if re.fullmatch("[0-9]{1,5}", found.get("port", "")):
            document["port"] = int(found["port"])
        errors = jsonschema.Draft7Validator(
            {**CONFIG_SCHEMA["definitions"]["http"], "definitions": CONFIG_SCHEMA["definitions"]}
        ).iter_errors(document)
        for error in errors:
            field = str(next(iter(error.absolute_path), ""))
            raise ConfigError(f"{names.get(field, field)}: {error.message[:300]}")
        return HttpConfig(**document)

    def public_url(self) -> str:
        """Return the configured URL of this server; empty if its host or port is not fixed."""
        if self.domain:
            return f"{self.protocol}://{self.domain}"
        return f"{self.protocol}://{self.host}:{self.port}" if self.port and self.host else ""


class NotificationRule(_Frozen):
    """Which ends of jobs are told to whom; see the schema."""

    phases: tuple[str, ...] = ("ERROR",)
    owner: str = "*"
    definition: str = "*"
    url: str = ""
    mail: tuple[str, ...] = ()


class WebhookConfig(_Frozen):
    """How webhooks are called; see the schema."""

    secret_file: str = ""
    hosts: tuple[str, ...] = ()


class MailConfig(_Frozen):
    """The mail server; see the schema."""

    host: str = "localhost"
    port: int = 25
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_file: str = ""
    sender: str = ""


class NotificationsConfig(_Frozen):
    """Notifications about ends of jobs; see the schema."""

    rules: tuple[NotificationRule, ...] = ()
    webhook: WebhookConfig = WebhookConfig()
    mail: MailConfig = MailConfig()


class InstanceConfig(Limits):
    """Configuration of one instance; see the schema for the meaning and units.

    ``max_workers`` is 0 where the backend's own default applies.
    """

    sal_index: int
    instance: str = ""
    backend: str = "local"
    backend_settings: Mapping[str, Any] = {}
    butler: str = ""
    input_collection: str = ""
    output_glob: str = "*"
    metrics_glob: str = "*Metrics"
    allowed_pipelines: tuple[str, ...] = ()
    work_dir: str = ""
    durable: bool = True
    min_free_space: int = 104857600
    min_free_files: int = 1000
    database: str = ""
    general_users: tuple[str, ...] | None = None
    config_directories: tuple[str, ...] = ()
    # The other limits of the engine are inherited with their defaults.
    max_workers: int = 0
    fault_after: float = 0.0
    on_exit: Literal["leave", "wait", "abort"] = "leave"
    environments: tuple[EnvironmentConfig, ...] = ()
    limits: JobLimits = JobLimits()
    url: str = ""
    poll_interval: float = 1.0
    uws: UwsConfig = UwsConfig()
    definitions: tuple[str, ...] = ()
    commands: tuple[CommandConfig, ...] = ()
    retries: Mapping[str, Any] = {}
    http: HttpConfig | None = None
    notifications: NotificationsConfig | None = None
    simulation_duration: float = 10.0

    @field_validator("definitions", "config_directories")
    @classmethod
    def _expand_each(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(os.path.expandvars(value) for value in values)

    @field_validator("butler", "work_dir", "url")
    @classmethod
    def _expand(cls, value: str) -> str:
        """Replace environment variables of OCPS itself."""
        return os.path.expandvars(value)

    def key(self) -> str:
        """Return a name for the backend with this configuration.

        It is the same in every process for the same configuration. Settings
        that do not concern the backend are not included.
        """
        other = {"work_dir", "durable", "min_free_space", "min_free_files", "database", "general_users"}
        text = self.model_dump_json(
            exclude={*other, "on_exit", "fault_after", "instance", "http", "notifications"}
        )
        return f"{self.backend}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def users_of_general(self) -> tuple[str, ...]:
        """Return globs of the owners who may use the general definitions.

        These owners can run any program as OCPS's account. By default they
        are the operators, if callers over HTTP are authenticated.
        """
        if self.general_users is not None:
            return ("sal", *self.general_users)
        if self.http is None or not self.http.authenticated:
            return ("*",)
        return ("sal", *(glob.escape(name) for name in self.http.auth.operators))

    def directory(self) -> Path:
        """Return the work directory, or the default one if none is configured."""
        if self.work_dir:
            return Path(self.work_dir).expanduser().absolute()
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "ocps" / str(self.sal_index)

    def settings(self, model: type[Settings]) -> Settings:
        """Return ``backend_settings`` as a model of the backend's own.

        Raises
        ------
        ConfigError
            If they do not fit; the text says where.
        """
        try:
            return model.model_validate(dict(self.backend_settings))
        except ValidationError as error:
            raise ConfigError(_first_fault(self.sal_index, error, "backend_settings")) from None


def validate(document: Any) -> None:
    """Check a configuration document against the schema.

    Parameters
    ----------
    document : `object`
        The content of the file.

    Raises
    ------
    ConfigError
        If it is not valid; the text says where, and what was expected.
    """
    if not isinstance(document, dict):
        raise ConfigError("at top level: expected a mapping with the key instances")
    _check_keys(document, "")
    error = jsonschema.exceptions.best_match(jsonschema.Draft7Validator(CONFIG_SCHEMA).iter_errors(document))
    if error:
        place = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise ConfigError(f"at {place}: {error.message[:1000]}")


def _check_keys(value: Any, place: str) -> None:
    """Refuse keys that are not text, which YAML allows and jsonschema cannot compare with others."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_keys(item, f"{place}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                where = place.lstrip("/") or "top level"
                raise ConfigError(f"at {where}: the key {str(key)[:100]} is not text: write it in quotes")
            _check_keys(item, f"{place}/{key}")


def load_instance(document: Mapping[str, Any], sal_index: int) -> InstanceConfig:
    """Return the configuration of one instance.

    Parameters
    ----------
    document : `~collections.abc.Mapping`
        The whole configuration; its form may be that of a former version.
    sal_index : `int`
        SAL index of the instance.

    Raises
    ------
    ConfigError
        If it is not valid, or has no entry for the index.
    """
    validate(dict(document) if isinstance(document, Mapping) else document)
    instances = document.get("instances")
    if instances is None:
        if "url" not in document:
            raise ConfigError(
                "at top level: expected instances, or url; was a configuration chosen in start?"
            )
        # One file for each instance, or for all of them.
        instances = [{"sal_index": sal_index, **document}]
    found = [entry for entry in instances if entry["sal_index"] == sal_index]
    if not found:
        known = ", ".join(str(entry["sal_index"]) for entry in instances)
        raise ConfigError(f"instances: no entry with sal_index {sal_index}; there are: {known}")
    if len(found) > 1:
        raise ConfigError(f"instances: {len(found)} entries with sal_index {sal_index}; expected one")
    entry = dict(found[0])
    entry.setdefault("backend", "uws" if entry.get("url") else "local")
    if entry["backend"] == "uws" and not entry.get("url"):
        raise ConfigError(f"instance {sal_index}: backend uws needs a url")
    _check_name(sal_index, entry.get("instance"))
    try:
        return InstanceConfig(**entry)
    except ValidationError as error:
        raise ConfigError(_first_fault(sal_index, error)) from None


def _check_name(sal_index: int, name: str | None) -> None:
    """Refuse a name that is not that of the SAL index: the file may be meant for another instrument.

    An index that SAL does not know, as a server without SAL may have, takes
    any name.
    """
    names = {index.value: index.name for index in SalIndex}
    right = names.get(sal_index)
    if name is None or right is None or name == right:
        return
    words = f"{name[:100]!r} is not SAL index {sal_index}: write {right}, or leave it out"
    if other := SalIndex.__members__.get(name):
        words += f" ({name} is {other.value})"
    raise ConfigError(f"instance {sal_index}: at instance: {words}")


def _first_fault(sal_index: int, error: ValidationError, *above: str) -> str:
    """Return the first fault in an instance's entry in words; ``above`` is the place of what was checked."""
    wrong = error.errors()[0]
    place = "/".join(str(part) for part in (*above, *wrong["loc"]))
    return f"instance {sal_index}: at {place}: {wrong['msg']}"
