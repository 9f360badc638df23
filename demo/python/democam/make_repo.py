# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a Butler repository full of DemoCam raws.

python -m democam.make_repo REPO [--days 20261120 ...] [--seed N] [--registry-db URL] [--exist-ok]
"""

from __future__ import annotations

__all__ = ["DEFAULT_DAY", "RAW_COLLECTION", "make_repo"]

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from astropy.time import Time
from lsst.daf.butler import (
    Butler,
    Config,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
    Timespan,
)

from . import simulate
from .camera import AMPLIFIERS, DETECTORS, NAME, Detector
from .formatters import to_fits
from .image import DemoImage, HeaderValue
from .instrument import DemoCam
from .observations import Exposure, Plan, noon, plan_night

RAW_COLLECTION = f"{NAME}/raw/all"
"""Where raws are, as for a real instrument."""

DEFAULT_DAY = 20261120
"""The night a repository has when no other is asked for."""

# Written last: a repository with this file is whole, and the file says what it was made from.
_MANIFEST = "democam.json"


def make_repo(
    path: Path | str,
    *,
    days: Sequence[int] = (DEFAULT_DAY,),
    seed: int = 1,
    plan: Plan | None = None,
    registry_db: str | None = None,
    exist_ok: bool = False,
) -> Path:
    """Make a Butler repository with DemoCam registered and a plan's raws ingested.

    The repository is built beside its destination and moved there when it is whole, so that nobody ever sees
    half of one.

    Parameters
    ----------
    path : `pathlib.Path` or `str`
        Where the repository shall be.
    days : `~collections.abc.Sequence` [ `int` ], optional
        Nights as YYYYMMDD, each with the whole plan.
    seed : `int`, optional
        Seed of the simulation; the same seed makes the same raws.
    plan : `Plan`, optional
        How many exposures of each kind a night has.
    registry_db : `str`, optional
        SQLAlchemy URL of an empty PostgreSQL database (with the extension ``btree_gist``) for the registry.
        The default is an SQLite file within the repository.
    exist_ok : `bool`, optional
        Leave a whole repository that was made with the same arguments as it is.

    Returns
    -------
    path : `pathlib.Path`
        The repository.

    Raises
    ------
    FileExistsError
        If something else exists there.
    RuntimeError
        If the registry database cannot be reached, is not empty or lacks the extension.
    ValueError
        If a day is not a day or there is none.
    """
    path = Path(path).absolute()
    plan = Plan() if plan is None else plan
    if not days:
        raise ValueError("A repository needs at least one day.")
    exposures = [exposure for day in sorted(set(days)) for exposure in plan_night(day, plan)]
    manifest = json.loads(json.dumps({"days": sorted(set(days)), "seed": seed, "plan": asdict(plan)}))
    if path.exists() and not _is_empty_directory(path):
        if exist_ok and _read_manifest(path) == manifest:
            return path
        raise FileExistsError(_why_in_the_way(path, exist_ok))

    path.parent.mkdir(parents=True, exist_ok=True)
    # No dot in this name: makeRepo would take what follows it for the type of a configuration file.
    building = Path(tempfile.mkdtemp(prefix="making-democam-", dir=path.parent))
    try:
        _fill(building, exposures, seed, registry_db)
        (building / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        building.chmod(0o755)  # mkdtemp's 0700 would keep other users out
        building.rename(path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return path


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _read_manifest(path: Path) -> object:
    """Return what a repository was made from, or `None` if it does not say so."""
    try:
        return json.loads((path / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def _why_in_the_way(path: Path, exist_ok: bool) -> str:
    if _read_manifest(path) is None:
        return f"{path} exists and is not a DemoCam repository; remove it or choose another place."
    if exist_ok:
        return f"{path} is a DemoCam repository made with another seed, plan or days; choose another place."
    return f"{path} is a DemoCam repository already; use it as it is (--exist-ok) or choose another place."


def _fill(root: Path, exposures: Iterable[Exposure], seed: int, registry_db: str | None) -> None:
    """Create the repository in an empty directory and ingest the exposures' raws."""
    config = Config(str(Path(__file__).with_name("repo.yaml")))
    if registry_db is not None:
        config["registry", "db"] = registry_db
    try:
        Butler.makeRepo(str(root), config=config, forceConfigRoot=registry_db is None)
    except Exception as error:
        if registry_db is None:
            raise
        # Anything may come from a database and its driver; its first line says what matters.
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"The registry database cannot be used: {reason}") from error
    with Butler.from_config(str(root), writeable=True) as butler, tempfile.TemporaryDirectory() as staging:
        instrument = DemoCam()
        instrument.register(butler.registry)
        name, dimensions, storage_class = DemoCam.raw_definition
        raw_type = DatasetType(name, dimensions, storage_class, universe=butler.dimensions)
        butler.registry.registerDatasetType(raw_type)
        butler.collections.register(RAW_COLLECTION)

        datasets = []
        # One transaction: hundreds of small ones would take most of the time.
        with butler.transaction():
            for exposure in exposures:
                _register_exposure(butler, exposure)
                for detector in DETECTORS:
                    data_id = butler.registry.expandDataId(
                        instrument=NAME, exposure=exposure.id, detector=detector.id
                    )
                    file = Path(staging) / f"{exposure.obs_id}_{detector.name}.fits"
                    formatter = instrument.getRawFormatter(data_id)
                    # Ids made from the data id, as for any raw: repositories agree on them.
                    ref = DatasetRef(
                        raw_type,
                        data_id,
                        run=RAW_COLLECTION,
                        id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN,
                    )
                    file.write_bytes(to_fits(simulate_raw(exposure, detector, seed)))
                    datasets.append(FileDataset(str(file), ref, formatter=formatter))
            butler.ingest(*datasets, transfer="copy")


def _register_exposure(butler: Butler, exposure: Exposure) -> None:
    """Insert an exposure and the night and group it belongs to."""
    registry = butler.registry
    start = noon(exposure.day_obs)
    registry.syncDimensionData(
        "day_obs",
        {
            "instrument": NAME,
            "id": exposure.day_obs,
            "timespan": Timespan(Time(start, scale="tai"), Time(start + timedelta(days=1), scale="tai")),
        },
    )
    registry.syncDimensionData("group", {"instrument": NAME, "name": exposure.group})
    registry.insertDimensionData(
        "exposure",
        {
            "instrument": NAME,
            "id": exposure.id,
            "obs_id": exposure.obs_id,
            "physical_filter": exposure.physical_filter,
            "group": exposure.group,
            "day_obs": exposure.day_obs,
            "exposure_time": exposure.exposure_time,
            "dark_time": exposure.exposure_time,
            "observation_type": exposure.observation_type,
            "observation_reason": exposure.observation_reason,
            "seq_num": exposure.seq_num,
            "seq_start": exposure.seq_num,
            "seq_end": exposure.seq_num,
            "target_name": exposure.target_name,
            "science_program": "demo",
            "has_simulated": True,
            "can_see_sky": exposure.observation_type == "focus",
            "timespan": Timespan(
                Time(exposure.begin, scale="utc").tai,
                Time(exposure.end, scale="utc").tai,
            ),
        },
    )


def simulate_raw(exposure: Exposure, detector: Detector, seed: int) -> DemoImage:
    """Simulate what the camera writes for a detector of an exposure.

    Parameters
    ----------
    exposure : `Exposure`
        Which exposure.
    detector : `Detector`
        Which detector.
    seed : `int`
        Seed of the simulation.

    Returns
    -------
    raw : `DemoImage`
        Raw frame in ADU with its header.
    """
    match exposure.observation_type:
        case "bias":
            array = simulate.bias_frame(seed, exposure.id, detector.id)
        case "flat":
            array = simulate.flat_frame(seed, exposure.id, detector.id)
        case _:
            array = simulate.focus_frame(
                seed, exposure.id, detector.id, exposure.day_obs, position=exposure.focus
            )
    header: dict[str, HeaderValue] = {
        "INSTRUME": NAME,
        "OBSID": exposure.obs_id,
        "DAYOBS": exposure.day_obs,
        "SEQNUM": exposure.seq_num,
        "DATE-BEG": exposure.begin.strftime("%Y-%m-%dT%H:%M:%S"),
        "TIMESYS": "UTC",
        "IMGTYPE": exposure.observation_type,
        "REASON": exposure.observation_reason,
        "OBJECT": exposure.target_name,
        "FILTER": exposure.physical_filter,
        "EXPTIME": exposure.exposure_time,
        "FOCUSZ": exposure.focus,  # camera position along the axis, mm
        "DETECTOR": detector.id,
        "DETNAME": detector.name,
        "BUNIT": "adu",
    }
    for amp in AMPLIFIERS:
        header[f"GAIN{amp.name}"] = amp.gain  # electron/ADU
    return DemoImage(array=array, header=header)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line.

    Parameters
    ----------
    argv : `~collections.abc.Sequence` [ `str` ], optional
        Arguments; the default is those of the process.

    Returns
    -------
    status : `int`
        0 if the repository is there, 1 if not.
    """
    parser = argparse.ArgumentParser(
        prog="python -m democam.make_repo", description="Make a Butler repository full of DemoCam raws."
    )
    parser.add_argument("repo", type=Path, metavar="REPO", help="where the repository shall be")
    parser.add_argument(
        "--days",
        type=int,
        nargs="+",
        default=[DEFAULT_DAY],
        metavar="YYYYMMDD",
        help="nights; each has biases, flats and a focus sweep (default: %(default)s)",
    )
    parser.add_argument(
        "--biases", type=int, default=Plan.biases, help="biases per night (default: %(default)s)"
    )
    parser.add_argument(
        "--flats", type=int, default=Plan.flats, help="flats per night (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default: %(default)s)")
    parser.add_argument(
        "--registry-db", metavar="URL", help="empty PostgreSQL database for the registry (default: SQLite)"
    )
    parser.add_argument(
        "--exist-ok", action="store_true", help="leave a repository made with the same arguments as it is"
    )
    args = parser.parse_args(argv)
    try:
        path = make_repo(
            args.repo,
            days=args.days,
            seed=args.seed,
            plan=Plan(biases=args.biases, flats=args.flats),
            registry_db=args.registry_db,
            exist_ok=args.exist_ok,
        )
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
