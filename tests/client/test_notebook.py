# SPDX-License-Identifier: GPL-3.0-or-later
"""The client in a notebook: signatures, what is shown, results in each form, where the server is."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path

import lsst.dm.OCPS
import pytest
from lsst.dm.OCPS.client import BlockingClient, Client, ClientError, Content, Progress, RemoteJob

from tests.http.conftest import Served
from tests.waiting import TIMEOUT

NASTY = '<script>alert("x")</script>'


async def test_a_session(served: Served, tmp_path: Path) -> None:
    def use() -> None:
        with BlockingClient(served.root) as client:
            job = client.wait(client.submit("sleep", {"duration": 0, "text": "grüß"}))
            assert client.read_log(job).startswith("sleeping")
            assert client.read_log(job.id, 9) == client.read_log(job)[9:]
            (result,) = [result for result in client.results(job) if result.id == "result.txt"]
            content = client.read(result)
            assert (content.text(), content.data) == ("grüß", "grüß".encode())
            assert content.mime_type == "text/plain"
            paths = client.download_all(job, str(tmp_path / "there"))
            assert sorted(path.name for path in paths) == ["ocps.log", "result.txt"]
            with pytest.raises(ClientError, match="exists already"):
                client.download_all(job, tmp_path / "there")
            client.download_all(job, tmp_path / "there", overwrite=True)
            assert repr(client) == f"BlockingClient({served.root!r})"
        with pytest.raises(ClientError, match="was closed"):
            client.jobs()

    await asyncio.to_thread(use)


async def test_a_client_that_is_never_closed_ends_without_complaints(served: Served) -> None:
    code = f"from lsst.dm.OCPS.client import BlockingClient; c = BlockingClient({served.root!r}); c.jobs()"
    ended = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, words = await asyncio.wait_for(ended.communicate(), TIMEOUT)
    assert (ended.returncode, words.decode()) == (0, "")


def test_the_blocking_client_has_the_signatures_of_the_other() -> None:
    for name in ("submit", "jobs", "wait", "wait_all", "get", "run", "hold", "abort", "delete", "results"):
        blocking = inspect.signature(getattr(BlockingClient, name)).parameters
        assert [*blocking] == [*inspect.signature(getattr(Client, name)).parameters], name
        assert all(one.annotation is not inspect.Parameter.empty for one in list(blocking.values())[1:])
    assert (Path(lsst.dm.OCPS.__file__).parent / "py.typed").is_file()


def test_a_job_shows_itself_with_its_progress() -> None:
    job = RemoteJob(
        "a" * 32, "http://h/uws/x/a", "EXECUTING", run_id=NASTY, message=NASTY, progress=Progress(3, 1, 9)
    )
    shown = job._repr_html_()
    assert '<progress value="4" max="9"></progress> 4/9, 1 failed' in shown
    assert "EXECUTING" in shown
    assert "<script" not in shown


def test_content_as_picture_json_and_table() -> None:
    png = Content("a.png", b"\x89PNG")
    assert png.picture()._repr_mimebundle_()["image/png"] == "iVBORw=="
    assert "<script" not in Content("a.svg", NASTY.encode()).picture()._repr_mimebundle_()["text/html"]
    assert Content("a.json", b'{"a": 1}').json() == {"a": 1}
    for bad in (png.text, png.json, Content("a.txt", b"x").picture):
        with pytest.raises(ClientError, match="is not"):
            bad()
    table = Content("a.csv", b"x,y\n1,2\n3,4\n").table()
    assert list(table["y"]) == [2, 4]
    with pytest.raises(ClientError, match="cannot be read as a table"):
        Content("a.fits", b"nonsense").table()


async def test_the_server_is_that_of_the_environment_or_a_profile(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OCPS_URL", "OCPS_PROFILE", "OCPS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("OCPS_URL", served.root)
    async with Client() as client:
        assert client.url == served.root
        assert await client.jobs() == []
    monkeypatch.delenv("OCPS_URL")
    (tmp_path / "ocps").mkdir()
    (tmp_path / "ocps" / "profiles.toml").write_text(f'[profiles.here]\nurl = "{served.root}"\n')
    async with Client(profile="here") as client:
        assert client.url == served.root
    with pytest.raises(ClientError, match="no profile 'there'; there are: here"):
        Client(profile="there")


def test_an_error_is_one_line_in_a_notebook() -> None:
    with BlockingClient("http://127.0.0.1:1") as client, pytest.raises(ClientError) as caught:
        client.jobs()
    # What IPython calls instead of showing a traceback.
    (line,) = caught.value._render_traceback_()
    assert line.startswith("UnreachableError: http://127.0.0.1:1 cannot be reached")
    assert "\n" not in line
