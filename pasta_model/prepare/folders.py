# SPDX-License-Identifier: Apache-2.0
"""A prepared session on disk: a folder that is whole or absent, and what it was made from."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pasta_model.checkpoint import file_digest
from pasta_model.data.grid import template
from pasta_model.data.metaroi import metaroi_map, reference_mask
from pasta_model.data.volume import write_volume
from pasta_model.errors import PastaError
from pasta_model.files import atomic_directory, write_json
from pasta_model.prepare.records import Pair, RawScan
from pasta_model.prepare.scans import read_mri, read_pet
from pasta_model.prepare.session import Prepared, prepare_scans, versions
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.template import template_brain
from pasta_model.report.preparation import preparation_panel

RECORD = "prepare.json"
DESCRIPTION = "prepared by PASTA; not a medical device"


def session_folder(output: Path, pair: Pair) -> Path:
    """Place of a prepared session."""
    return output / pair.visit.subject / pair.visit.session


def mri_name(name: str) -> str:
    """Place of the prepared MRI in its session's folder."""
    return f"anat/{name}_space-MNI152_desc-brain_T1w.nii.gz"


def pet_name(name: str) -> str:
    """Place of the prepared PET in its session's folder."""
    return f"pet/{name}_space-MNI152_trc-18FFDG_desc-suvr_pet.nii.gz"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what a prepared session says of itself; None where it is absent or not whole."""
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def prepare_one(pair: Pair, output: Path, settings: PrepareSettings) -> dict[str, Any]:
    """Prepare a session unless it is there, made from the same scans in the same way; return its record.

    Of a session that cannot be used, the record holds an "error" and nothing is on disk.
    """
    folder = session_folder(output, pair)
    try:
        return _prepared(pair, folder, settings)
    except PastaError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot be read or written ({error.strerror or error}); free the disk, then run again"
    with suppress(OSError):  # a subject without a session has no folder
        folder.parent.rmdir()
    return {"error": problem, "settings": settings.model_dump(), "versions": versions()}


def remove_partial(output: Path) -> None:
    """Remove what an earlier run, killed at work, has left behind."""
    for leftover in (
        *output.glob(".partial-*"),
        *output.glob("sub-*/.partial-*"),
        *output.glob("*/.partial-*"),
    ):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _prepared(pair: Pair, folder: Path, settings: PrepareSettings) -> dict[str, Any]:
    about = _about(pair, settings)
    there = read_record(folder)
    if there and all(there.get(key) == value for key, value in about.items()):
        return {**there, "kept": True}
    with atomic_directory(folder) as work:
        record = {**about, **_written(pair, work, settings)}
        write_json(work / RECORD, record)
    return record


def _about(pair: Pair, settings: PrepareSettings) -> dict[str, Any]:
    inputs = {}
    for kind, scan in (("mri", pair.mri), ("pet", pair.pet)):
        if not scan.path.is_file():
            return {"inputs": {kind: str(scan.path)}}  # reading it says what is wrong
        inputs[kind] = {"sha256": file_digest(scan.path), "inside": scan.inside, "units": scan.units,
                        "frame_seconds": list(scan.frame_seconds)}  # fmt: skip
    return {"session": pair.name, "inputs": inputs, "settings": settings.model_dump(), "versions": versions()}


def _written(pair: Pair, work: Path, settings: PrepareSettings) -> Mapping[str, Any]:
    """Prepare a pair and write its files into a folder."""
    transforms = work / "xfm"
    transforms.mkdir()
    made = prepare_scans(read_mri(pair.mri), read_pet(pair.pet), transforms, settings=settings)
    assert made.pet is not None
    write_volume(work / mri_name(pair.name), made.mri, description=f"T1 MRI, skull-stripped; {DESCRIPTION}")
    write_volume(work / pet_name(pair.name), made.pet, description=f"FDG-PET, SUVR; {DESCRIPTION}")
    mask = work / f"anat/{pair.name}_space-MNI152_desc-brain_mask.nii.gz"
    write_volume(mask, made.mask, description=f"brain mask; {DESCRIPTION}")
    write_json(work / mri_name(pair.name).replace(".nii.gz", ".json"), _mri_sidecar(pair))
    write_json(work / pet_name(pair.name).replace(".nii.gz", ".json"), _pet_sidecar(pair, made, settings))
    (work / "quality.png").write_bytes(_picture(pair.name, made, settings))
    return {
        "steps": made.steps,
        "figures": {name: round(value, 4) for name, value in made.figures.items()},
        "regions": {name: round(value, 4) for name, value in made.regions.items()},
        "uptake": made.uptake,
    }


def _mri_sidecar(pair: Pair) -> dict[str, Any]:
    return {
        "Description": "T1 MRI, skull-stripped, in MNI152 space",
        "Sources": [pair.mri.label],
        **_scanner(pair.mri),
    }


def _scanner(scan: RawScan) -> dict[str, str]:
    """Return whose scanner it was, where the source says so: what a study by vendor reads."""
    return {"Manufacturer": scan.manufacturer} if scan.manufacturer else {}


def _pet_sidecar(pair: Pair, made: Prepared, settings: PrepareSettings) -> dict[str, Any]:
    return {
        "Description": "FDG-PET in SUVR, in MNI152 space, inside the brain",
        "Units": "SUVR",
        "ReferenceRegion": settings.reference,
        "ReferenceUptake": made.uptake,
        "Sources": [pair.mri.label, pair.pet.label],
        "Settings": settings.model_dump(),
        **_scanner(pair.pet),
    }


def _picture(name: str, made: Prepared, settings: PrepareSettings) -> bytes:
    grid = template(settings.spacing).head
    return preparation_panel(
        made.head.data,
        made.mask.data,
        made.pet.data if made.pet else None,
        template=template_brain(grid).t1,
        reference=reference_mask(grid, settings.reference).astype("float32"),
        metaroi=metaroi_map(grid),
        grid=grid,
        title=name,
    )
