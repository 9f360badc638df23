# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses that are compared with globs: pipelines, configuration files, URLs, command lines."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.dm.OCPS.config import CommandConfig
from lsst.dm.OCPS.definitions.environments import Environments
from lsst.dm.OCPS.definitions.pipeline_uri import check_allowed, check_config_file, check_outside
from lsst.dm.OCPS.definitions.pipetask import ButlerConfig, PipetaskDefinition
from lsst.dm.OCPS.definitions.shell import ShellDefinition
from lsst.dm.OCPS.definitions.specs import Source
from lsst.dm.OCPS.jobs.errors import JobError, NotAllowedError, RequestError
from lsst.dm.OCPS.jobs.model import JobRequest
from lsst.dm.OCPS.programs import fetch
from lsst.dm.OCPS.sal.request import execute_request

VARIABLES = {"X_DIR": "/stack/x", "HOME": "/home/ocps", "EVIL_DIR": "/tmp/evil"}
ALLOWED = ["$X_DIR/pipelines/*.yaml*", "resource://x.y/pipelines/*"]

GOOD_PIPELINES = [
    "$X_DIR/pipelines/bias.yaml",
    "${X_DIR}/pipelines/bias.yaml",
    "/stack/x/pipelines/bias.yaml",
    "/stack/x//pipelines/./bias.yaml",
    "file:///stack/x/pipelines/bias.yaml",
    "file://localhost/stack/x/pipelines/bias.yaml",
    "${X_DIR}/pipelines/bias.yaml#isr,cpBias",
    "resource://x.y/pipelines/a.yaml",
]
BAD_PIPELINES = [
    "$X_DIR/pipelines/bias.yaml#/../../evil.yaml",
    "$X_DIR/pipelines/bias.yaml#/evil.yaml",
    "$X_DIR/pipelines/../evil.yaml",
    "/stack/x/pipelines/sub/../../evil.yaml",
    "/stack/x/pipelines/%2e%2e/evil.yaml",
    "file:///stack/x/pipelines/%2e%2e/evil.yaml",
    "file:///stack/x/pipelines/%2E%2e%2Fevil.yaml",
    "file:///stack/x/pipelines/%252e%252e/evil.yaml",
    "file:///stack/x/pipelines/a.yaml?/../evil.yaml",
    "file:///stack/x/pipelines/a.yaml;x",
    "file://elsewhere/stack/x/pipelines/bias.yaml",
    "/stack/x/pipelines\\..\\evil.yaml",
    "$X_DIR/evil/pipelines/bias.yaml",
    "${EVIL_DIR}/pipelines/bias.yaml",
    "$X_DIR/pipelines/$UNKNOWN/bias.yaml",
    "pipelines/bias.yaml",
    "~/pipelines/bias.yaml",
    "http://x/stack/x/pipelines/bias.yaml",
    "eups://x/pipelines/bias.yaml",
    "resource://x.y/pipelines/../a.yaml",
    "resource://x.y.z/pipelines/a.yaml",
    "$X_DIR/pipelines/bias.yaml\n",
    "$X_DIR/pipelines/bias.yaml\x00",
    "-p",
    "",
]


@pytest.mark.parametrize("pipeline", GOOD_PIPELINES)
def test_all_ways_to_write_an_allowed_pipeline_are_allowed(pipeline):
    check_allowed(pipeline, ALLOWED, VARIABLES)


@pytest.mark.parametrize("glob", ["$X_DIR/pipelines/*", "${X_DIR}/pipelines/*", "/stack/x/pipelines/*"])
@pytest.mark.parametrize("pipeline", GOOD_PIPELINES[:-1])
def test_all_ways_to_write_a_glob_mean_the_same(glob, pipeline):
    check_allowed(pipeline, [glob], VARIABLES)


@pytest.mark.parametrize("pipeline", BAD_PIPELINES)
@pytest.mark.parametrize("variables", [VARIABLES, None])
def test_a_pipeline_that_leaves_the_allowed_folders_is_refused(pipeline, variables):
    with pytest.raises(RequestError):
        check_allowed(pipeline, ALLOWED, variables)


@pytest.mark.parametrize("pipeline", ["$X_DIR/pipelines/bias.yaml", "${X_DIR}/pipelines/bias.yaml#a"])
def test_where_variables_are_not_known_they_stand_for_themselves(pipeline):
    check_allowed(pipeline, ALLOWED, None)
    with pytest.raises(RequestError):
        check_allowed(pipeline.replace("X_DIR", "Y_DIR"), ALLOWED, None)


def test_characters_of_globs_in_a_variable_mean_themselves():
    with pytest.raises(RequestError):
        check_allowed("/a/evil.yaml", ["$X_DIR/*"], {"X_DIR": "/*"})
    check_allowed("$X_DIR/a.yaml", ["$X_DIR/*"], {"X_DIR": "/[x]"})


PIECES = [
    "..",
    ".",
    "/",
    "//",
    "%2e",
    "%2f",
    "#",
    "$X_DIR",
    "${EVIL_DIR}",
    "a",
    "file://",
    "~",
    "\\",
    ":",
    "?",
    "%",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_whatever_is_allowed_is_in_the_folder_when_it_is_read_as_a_path(tail):
    pipeline = f"$X_DIR/pipelines/{tail}"
    try:
        check_allowed(pipeline, ["$X_DIR/pipelines/*"], VARIABLES)
    except RequestError:
        return
    for text in (pipeline, pipeline.partition("#")[0]):
        for decode in (str, unquote):
            path = decode(
                os.path.expandvars(text.replace("$X_DIR", "/stack/x").replace("${EVIL_DIR}", "/tmp/evil"))
            )
            assert posixpath.normpath(path).startswith("/stack/x/pipelines")


# Configuration files

DIRECTORIES = ["$X_DIR/config"]


@pytest.mark.parametrize(
    "value", ["isr:/stack/x/config/a.py", "isr:$X_DIR/config/a.py", "a.b:${X_DIR}/config/s/a.py"]
)
def test_a_configuration_file_of_a_listed_directory_is_taken(value):
    check_config_file(value, DIRECTORIES, VARIABLES)


@pytest.mark.parametrize(
    "value",
    [
        "isr:/work/jobs/0/output/result.txt",
        # pipetask splits at commas, and takes the last colon for the end of the label.
        "isr:/stack/x/config/a.py,isr:/tmp/evil.py",
        "isr:/stack/x/config/a:/tmp/evil.py",
        "isr:[/stack/x/config/a.py,/tmp/evil.py]",
        "/stack/x/config/a:/tmp/evil.py",
        "isr:/stack/x/config/../evil.py",
        "isr:/stack/x/configs/evil.py",
        "isr:/stack/x/config/%2e%2e/evil.py",
        "isr:file:///stack/x/config/a.py",
        "isr:http://evil/a.py",
        "isr:resource://evil/a.py",
        "isr:$EVIL_DIR/a.py",
        "isr:a.py",
        "/stack/x/config/a.py",
        "isr:",
    ],
)
def test_a_configuration_file_from_elsewhere_is_refused(value):
    with pytest.raises(RequestError):
        check_config_file(value, DIRECTORIES, VARIABLES)


def test_no_directory_listed_means_no_configuration_file():
    with pytest.raises(RequestError, match="config_directories: none is listed"):
        check_config_file("isr:/stack/x/config/a.py", [], VARIABLES)


def test_a_link_does_not_lead_out_of_a_listed_directory(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "evil.py").touch()
    (tmp_path / "config" / "link.py").symlink_to(tmp_path / "evil.py")
    with pytest.raises(RequestError):
        check_config_file(f"isr:{tmp_path}/config/link.py", [str(tmp_path / "config")], {})


def test_what_jobs_write_is_no_pipeline_and_no_configuration(tmp_path):
    work = tmp_path / "work"
    (work / "jobs").mkdir(parents=True)
    (work / "jobs" / "x.yaml").touch()
    (tmp_path / "link.yaml").symlink_to(work / "jobs" / "x.yaml")
    for address in (
        f"{work}/jobs/x.yaml",
        f"file://{work}/jobs/x.yaml",
        "$W/jobs/x.yaml",
        f"{tmp_path}/link.yaml",
    ):
        with pytest.raises(RequestError, match="work_dir"):
            check_outside("pipeline", address, work, {"W": str(work)})
    check_outside("pipeline", f"{tmp_path}/workshop/x.yaml", work, {})


@pytest.mark.parametrize(("origin", "allowed"), [("sal", True), ("http", False), ("", False)])
async def test_over_sal_any_configuration_file_may_be_named_and_over_http_only_listed_ones(
    tmp_path, origin, allowed
):
    (tmp_path / "p.yaml").touch()
    (tmp_path / "c.py").touch()
    definition = PipetaskDefinition(
        "pipetask", ButlerConfig("repo"), Environments(()), work_dir=tmp_path / "work"
    )
    fields = {"pipeline": f"{tmp_path}/p.yaml", "config": f"-C isr:{tmp_path}/c.py"}
    if origin == "sal":
        request = execute_request(SimpleNamespace(**fields, data_query=""))
    else:
        request = JobRequest("pipetask", fields, origin=origin)
    if allowed:
        assert list((await definition.resolve(request, "id")).options) == [
            "--config-file",
            f"isr:{tmp_path}/c.py",
        ]
    else:
        with pytest.raises(RequestError, match="config_directories"):
            await definition.resolve(request, "id")


# URLs


@pytest.mark.parametrize(
    ("url", "glob"),
    [
        ("http://data.example.org/a/b", "http://data.example.org/*"),
        ("https://DATA.example.org:443/a", "https://data.example.org/*"),
        ("http://a.example.org/x", "http://*.example.org/*"),
        ("http://data.example.org/a?x=1", "http://data.example.org/*"),
        ("http://data.example.org//a", "http://data.example.org/a"),
        ("http://127.0.0.1:1234/table", "http://127.0.0.1:*"),
        ("https://github.com/lsst-dm/uws_scripts", "https://github.com/lsst-dm/*"),
        ("file:///srv/git/a", "file:///srv/git/*"),
    ],
)
def test_a_url_that_a_glob_means_is_allowed(url, glob):
    fetch.check(url, [glob])


@pytest.mark.parametrize(
    ("url", "glob"),
    [
        ("http://evil/x.example.org/", "http://*.example.org/*"),
        ("http://evil?x.example.org/", "http://*.example.org/*"),
        ("http://evil#x.example.org/", "http://*.example.org/*"),
        ("http://x.example.org@evil/", "http://*.example.org/*"),
        ("http://evil\\x.example.org/", "http://*.example.org/*"),
        ("http://data.example.org/data/../x", "http://data.example.org/data/*"),
        ("http://data.example.org/data/%2e%2e/x", "http://data.example.org/data/*"),
        ("http://data.example.org/data%2fx", "http://data.example.org/data*"),
        ("http://data.example.org/data/%252e%252e/x", "http://data.example.org/data/*"),
        ("http://data.example.org.evil/a", "http://data.example.org/*"),
        ("http://data.example.org:81/a", "http://data.example.org/*"),
        ("https://data.example.org/a", "http://data.example.org/*"),
        ("http://user:x@data.example.org/a", "http://data.example.org/*"),
        ("http://data.example.org/a b", "http://data.example.org/*"),
        ("http://data.example.org/a\n", "http://data.example.org/*"),
        ("http://data.example.org/x?y", "http://data.example.org/x"),
        ("ext::sh -c id", "*"),
        ("--upload-pack=id", "https://*/*"),
        ("file:///etc/passwd", "http://*/*"),
    ],
)
def test_a_url_that_no_glob_means_is_refused(url, glob):
    with pytest.raises(ValueError):
        fetch.check(url, [glob])


@given(st.text(st.sampled_from(list("abe.:/@?#%2\\[]*")), max_size=20))
def test_no_text_is_taken_for_a_url_of_another_host(text):
    url = f"http://{text}"
    try:
        fetch.check(url, ["http://a.b/*"])
    except ValueError:
        return
    from urllib.parse import urlsplit

    assert (urlsplit(url).hostname or "").rstrip(".") == "a.b"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_a_private_address_is_connected_to_only_where_its_host_is_named(host, tmp_path):
    with pytest.raises(OSError, match=r"private address|not supported|no address|[Nn]ame or service"):
        fetch.fetch(f"http://{host}:9/x", str(tmp_path / "x"), 10, ["http://*:*/*"])


# Command lines


async def resolve(allowed: CommandConfig, **given: str):
    return await ShellDefinition([allowed]).resolve(JobRequest("command", given), "id")


@pytest.mark.parametrize(
    "command",
    [
        "echo x; id",
        "echo x && id",
        "echo 'x",
        "echo -n",
        "echo x y",
        "ech? x",
        "/tmp/echo x",
        "echo a/../b",
        "echo 'a\nb'",
        "",
    ],
)
async def test_a_glob_allows_words_and_no_other_command(command):
    with pytest.raises(JobError):
        await resolve(CommandConfig(command="echo *"), command=command)


@pytest.mark.parametrize("command", ["echo $(id)", "echo 'a;id'", "echo '{x}'", "echo `id`"])
async def test_words_that_a_glob_allows_are_run_without_a_shell(command):
    spec = await resolve(CommandConfig(command="echo *"), command=command)
    assert spec.argv[0] == "echo"
    assert len(spec.argv) == 2


async def test_a_program_of_a_folder_is_not_one_of_another():
    allowed = CommandConfig(command="/opt/scripts/*")
    await resolve(allowed, command="/opt/scripts/a.sh")
    for command in ("/opt/scripts/x/a.sh", "/opt/scripts/../evil", "/opt/scripts/./x"):
        with pytest.raises(NotAllowedError):
            await resolve(allowed, command=command)


SITE = CommandConfig(
    command="cd $JOB_SOURCE_DIR && bash bin/pipetask.sh",
    url="https://github.com/lsst-dm/*",
    commit_ref="*",
    variables=("AP_*", "MINE"),
)


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ({}, False),
        ({"command": f"{SITE.command}; id"}, True),
        ({"command": f"{SITE.command} "}, True),
        ({"url": "https://github.com/lsst-dm/../evil/x"}, True),
        ({"url": "https://github.com/evil/lsst-dm/x"}, True),
        ({"url": "https://evil/github.com/lsst-dm/x"}, True),
        ({"url": "https://github.com@evil/lsst-dm/x"}, True),
        ({"url": "ext::sh -c id"}, True),
        ({"url": "--upload-pack=id"}, True),
        ({"url": ""}, True),
        ({"commit_ref": "--upload-pack=id"}, True),
        ({"commit_ref": "main:evil"}, True),
        ({"commit_ref": "a..b"}, True),
        ({"commit_ref": "+refs/heads/*:x"}, True),
    ],
)
async def test_git_addresses_are_the_configured_ones(change, held):
    given = {"command": SITE.command, "url": "https://github.com/lsst-dm/x", "commit_ref": "main"} | change
    if held:
        with pytest.raises(JobError):
            await resolve(SITE, **given)
    else:
        assert (await resolve(SITE, **given)).source == Source(url=given["url"], commit="main")


DANGEROUS = [
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "PATH",
    "BASH_ENV",
    "ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "IFS",
    "PS4",
    "PROMPT_COMMAND",
    "HOME",
    "XDG_CONFIG_HOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONHOME",
    "PERL5OPT",
    "RUBYOPT",
    "NODE_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "GIT_SSH_COMMAND",
    "GIT_EXTERNAL_DIFF",
    "GIT_CONFIG_COUNT",
    "GCONV_PATH",
    "TMPDIR",
    "EDITOR",
    "PAGER",
    "http_proxy",
    "HTTPS_PROXY",
    "SSL_CERT_FILE",
    "JOB_ID",
]


@pytest.mark.parametrize("variables", [(), ("*",)])
@pytest.mark.parametrize("name", DANGEROUS)
async def test_a_variable_that_changes_what_is_run_must_be_listed_by_its_name(name, variables):
    with pytest.raises(RequestError, match=name):
        await resolve(
            CommandConfig(command="true", variables=variables),
            command="true",
            environment=f'{{"{name}": "x"}}',
        )


async def test_variables_of_the_script_and_listed_ones_are_passed_on():
    given = '{"PIPELINE_URL": "x", "AP_VISIT": "1", "MINE": "y"}'
    spec = await resolve(
        SITE, command=SITE.command, url="https://github.com/lsst-dm/x", commit_ref="main", environment=given
    )
    assert spec.environment == {"PIPELINE_URL": "x", "AP_VISIT": "1", "MINE": "y"}


def test_the_programs_that_fetch_need_the_standard_library_alone():
    source = Path(fetch.__file__).read_text()
    assert "from ." not in source
