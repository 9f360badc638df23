# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations that cannot work are refused at ``start`` and ``enable``, and the state stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from lsst.dm.OCPS.sal import compat as salobj_compat
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.generations import ON_KAFKA, write_common_files
from tests.waiting import TIMEOUT

pytestmark = pytest.mark.asyncio(loop_scope="module")


def instance(**fields: object) -> dict[str, object]:
    return {"instances": [{"sal_index": 1, **fields}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unconfigured(pristine_repo: Path, tmp_path_factory):
    """A script connected to an OCPS in STANDBY, with configurations good and bad."""
    private_bus()
    folder = tmp_path_factory.mktemp("states")
    good = {
        "butler": str(pristine_repo),
        "input_collection": "DemoCam/raw/all",
        "work_dir": str(folder / "work"),
        # No job runs here.
        "environments": [{"name": "default", "preload": False}],
    }
    vanishing = folder / "vanishing"
    shutil.copytree(pristine_repo, vanishing)
    documents = {
        "good": instance(**good),
        "vanishing": instance(**(good | {"butler": str(vanishing)})),
        "no_butler": instance(**(good | {"butler": "/no/such/repo"})),
        "no_collection": instance(**(good | {"input_collection": "no/such/collection"})),
        "no_python": instance(**(good | {"environments": [{"name": "w", "python": "/no/bin/python"}]})),
        "no_index": {"instances": [{"sal_index": 2, **good}]},
        "wrong_type": instance(**(good | {"max_workers": "many"})),
        "unknown_key": instance(**good, workers=3),
        "both_missing": {},
        "wrong_name": instance(**good, instance="FooBar"),
        "uws_without_url": instance(backend="uws", butler="x"),
    }
    config = folder / "config"
    config.mkdir()
    for name, document in documents.items():
        (config / f"{name}.yaml").write_text(yaml.safe_dump(document))
    (config / "not_yaml.yaml").write_text("instances: [")
    (config / "a_list.yaml").write_text("- 1\n- 2\n")
    write_common_files(config, label="good.yaml")
    async with CscProcess("--configdir", str(config), log=folder / "csc.log"), Script.connect() as script:
        script.folder = folder
        yield script


async def start_refusal(script: Script, settings: str) -> str:
    with pytest.raises(salobj.AckError) as caught:
        await script.remote.cmd_start.set_start(**{salobj_compat.settings_field(): settings}, timeout=TIMEOUT)
    text = caught.value.ackcmd.result
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "was a configuration chosen in start?"),
        ("no_such_label", "no_such_label"),
        ("no_butler.yaml", "butler /no/such/repo: there is no such directory"),
        ("no_collection.yaml", "no input collection 'no/such/collection'"),
        ("no_python.yaml", "environment 'w': there is no program /no/bin/python"),
        ("no_index.yaml", "no entry with sal_index 1; there are: 2"),
        ("wrong_type.yaml", "at instances/0/max_workers: 'many' is not of type 'integer'"),
        ("unknown_key.yaml", "'workers' was unexpected"),
        ("wrong_name.yaml", "at instance: 'FooBar' is not SAL index 1: write LATISS, or leave it out"),
        ("both_missing.yaml", "expected instances"),
        ("uws_without_url.yaml", "backend uws needs a url"),
        ("not_yaml.yaml", "not YAML"),
        ("a_list.yaml", "a_list.yaml"),
    ],
)
async def test_start_is_refused_with_the_reason(unconfigured, settings, words):
    text = await start_refusal(unconfigured, settings)
    assert words in text
    assert await unconfigured.wait_for_csc() == salobj.State.STANDBY
    assert not (unconfigured.folder / "work").exists()


async def test_a_butler_that_has_gone_is_noticed_at_enable(unconfigured):
    await unconfigured.set_state(salobj.State.DISABLED, "vanishing.yaml")
    shutil.rmtree(unconfigured.folder / "vanishing")
    with pytest.raises(salobj.AckError) as caught:
        await unconfigured.remote.cmd_enable.start(timeout=TIMEOUT)
    assert "vanishing" in caught.value.ackcmd.result
    assert await unconfigured.wait_for_csc() == salobj.State.DISABLED
    await unconfigured.set_state(salobj.State.STANDBY)


async def test_a_label_works_after_all_these_refusals(unconfigured):
    # salobj 8 has no labels.
    label = "good.yaml" if ON_KAFKA else "label"
    await unconfigured.set_state(salobj.State.ENABLED, label)
    await unconfigured.set_state(salobj.State.STANDBY)
