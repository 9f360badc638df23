# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demos need: a SAL bus of their own, a Butler with DemoCam data, and a configuration."""

from __future__ import annotations

__all__ = ["FOLDER", "ROOT", "observations", "prepare"]

import os
import shlex
import shutil
import socket
from pathlib import Path

import yaml
from democam.make_repo import make_repo
from lsst.dm.OCPS.testing import private_bus

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".demo"


def observations(kind: str) -> str:
    """Return the data query for one kind of exposure."""
    return f"instrument='DemoCam' AND exposure.observation_type='{kind}'"


def prepare(folder: Path = FOLDER) -> None:
    """Make everything in a folder, and set this process's environment.

    Parameters
    ----------
    folder : `pathlib.Path`
        The folder; what is in it is removed. A file ``env.sh`` in it sets the
        environment of other programs.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variables: dict[str, str] = {}
    private_bus(variables)
    variables["DEMOCAM_DIR"] = str(ROOT / "demo")
    variables["DEMOCAM_REPO"] = str(folder / "repo")
    variables["OCPS_WORK_DIR"] = str(folder / "work")
    variables["DM_CONFIG_OCPS_DIR"] = str(folder / "config")
    variables["OCPS_URL"] = serve_http(folder / "config")
    os.environ.update(variables)
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    (folder / "env.sh").write_text("".join(lines))
    make_repo(folder / "repo")


def serve_http(config: Path) -> str:
    """Copy the configuration, with HTTP at a free port beside SAL; return its URL."""
    shutil.copytree(ROOT / "config", config)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = config / "OCPS" / "v4" / "demo.yaml"
    document = yaml.safe_load(path.read_text())
    document["instances"][0]["http"] = {"port": port, "auth": {"open": True}}
    path.write_text(yaml.safe_dump(document))
    return f"http://127.0.0.1:{port}"
