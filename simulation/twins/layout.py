# SPDX-License-Identifier: Apache-2.0
"""How a cohort lies on disk: folders after BIDS, tables of tab-separated values.

- dataset_description.json, README
- <site>/participants.tsv: what a hospital would have
- <site>/truth.tsv: what it would not have, how each twin was made
- <site>/sub-A0001/ses-M000/anat/..._T1w.nii.gz, pet/..._pet.nii.gz with .json
"""

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.volume import Volume, write_volume
from pasta_model.files import write_json, write_text
from simulation.twins.clinic import Person
from simulation.twins.scanner import Scanner
from simulation.twins.twin import Twin

PARTICIPANTS = "participants.tsv"
TRUTH = "truth.tsv"
SESSION = "ses-M000"
COLUMNS = (
    "participant_id",
    "session_id",
    "site",
    "diagnosis",
    "age",
    "sex",
    "education",
    "mmse",
    "adas13",
    "apoe4",
    "mri",
    "pet",
)
GENERATOR = "pasta-federated digital twins"
STATEMENT = (
    "Synthetic digital twins. These are not patients: no image and no number here was measured in a"
    " person. No metric computed on this cohort is clinical evidence."
)
_README = f"""{STATEMENT}

Each twin is a public template of the healthy brain, deformed, aged and given the pattern of Alzheimer's
disease, then scanned by the simulated MRI and PET of its site. The groups are calibrated to published
summary tables, so the twins are good for testing software, federations and privacy accounting, and for
nothing that concerns a person.

  <site>/participants.tsv   diagnosis, clinical variables (missing: n/a) and the paths of the scans
  <site>/truth.tsv          how each twin was made; a hospital would not have this table
  <site>/sub-*/ses-M000/    T1 MRI in scanner units and FDG-PET in SUVR (reference: pons and vermis)

dataset_description.json holds all settings; the same settings give the same files again.
"""


class Origin(NamedTuple):
    """Where a twin comes from: its hospital, base anatomy and scanners."""

    site: str
    base: str
    scanner: Scanner


class Row(NamedTuple):
    """A twin's line in the two tables, column to text."""

    participant: dict[str, str]
    truth: dict[str, str]


def write_twin(
    folder: Path, twin: Twin, *, person: Person, origin: Origin, affine: NDArray[np.float64]
) -> Row:
    """Write the scans of a twin and return its rows.

    Parameters
    ----------
    folder
        Of the person, named like the participant, in the site's folder.
    affine
        Of the head grid, (4, 4).
    """
    participant = folder.name
    session = Path(participant) / SESSION
    stem = f"{participant}_{SESSION}"
    mri = session / "anat" / f"{stem}_space-MNI152_T1w.nii.gz"
    pet = session / "pet" / f"{stem}_trc-18FFDG_space-MNI152_pet.nii.gz"
    note = "synthetic digital twin, not a patient"
    write_volume(folder.parent / mri, Volume(twin.mri, affine), description=note)
    write_volume(folder.parent / pet, Volume(twin.pet, affine, "SUVR"), description=note)
    sidecar = folder.parent / str(pet).replace(".nii.gz", ".json")
    write_json(sidecar, _sidecar(origin.scanner))
    return Row(
        participant=_participant_row(person, mri=mri, pet=pet, site=origin.site),
        truth=_truth_row(participant, twin, person=person, origin=origin),
    )


def _sidecar(scanner: Scanner) -> dict[str, Any]:
    """Metadata of a PET, in the words of BIDS."""
    return {
        "Synthetic": True,
        "Description": STATEMENT,
        "Manufacturer": f"simulated {scanner.vendor}",
        "Units": "SUVR",
        "ReferenceRegion": "plain mean of pons and cerebellar vermis",
        "TracerName": "FDG",
        "TracerRadionuclide": "F18",
        "EffectiveResolution": list(scanner.resolution),
        "EffectiveResolutionUnits": "mm FWHM",
    }


def _participant_row(person: Person, *, mri: Path, pet: Path, site: str) -> dict[str, str]:
    values = (
        mri.parts[0],
        SESSION,
        site,
        person.diagnosis,
        f"{person.age:.1f}",
        person.sex,
        str(person.education),
        *(_number(value) for value in (person.mmse, person.adas13, person.apoe4)),
        mri.as_posix(),
        pet.as_posix(),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:g}"


def _truth_row(participant: str, twin: Twin, *, person: Person, origin: Origin) -> dict[str, str]:
    return {
        "participant_id": participant,
        "base": origin.base,
        "target_suvr": f"{person.suvr:.4f}",
        "measured_suvr": f"{twin.suvr:.4f}",
        "hippocampus_ml": f"{twin.hippocampus_ml:.3f}",
        "ventricles_ml": f"{twin.ventricles_ml:.3f}",
        "amplitude": f"{twin.amplitude:.4f}",
        "jac_min": f"{twin.lowest_jacobian:.4f}",
        "scanner": origin.scanner.label,
    }


def write_tables(folder: Path, rows: list[Row]) -> None:
    """Write participants.tsv and truth.tsv of a site."""
    write_text(folder / PARTICIPANTS, _table([row.participant for row in rows]))
    write_text(folder / TRUTH, _table([row.truth for row in rows]))


def _table(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_description(folder: Path, settings: dict[str, Any]) -> None:
    """Write dataset_description.json and README."""
    description = {
        "Name": "Cohort of digital twins: paired T1 MRI and FDG-PET",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "Synthetic": True,
        "Statement": STATEMENT,
        "GeneratedBy": [{"Name": GENERATOR, "Settings": settings}],
    }
    write_json(folder / "dataset_description.json", description)
    write_text(folder / "README", _README)


def is_cohort(folder: Path) -> bool:
    """Tell whether a directory holds a cohort that we made."""
    try:
        found = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))
        return bool(found["GeneratedBy"][0]["Name"] == GENERATOR)
    except (OSError, ValueError, LookupError, TypeError):
        return False
