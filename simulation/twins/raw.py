# SPDX-License-Identifier: Apache-2.0
"""Digital twins as a hospital's raw data: heads in two scanners, and the truth beside them.

    from simulation.twins.raw import RawCohortSettings, write_raw_dataset

    root = write_raw_dataset(Path("raw"), RawCohortSettings(seed=7))   # BIDS; truth in raw/truth

The same settings give the same bytes.
"""

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pasta_model.errors import ConfigError
from pasta_model.files import atomic_directory, write_json, write_text
from simulation.twins.anatomy import check_anatomies, load_anatomy
from simulation.twins.clinic import Missingness, Person, sample_person
from simulation.twins.cohort import SiteSettings, diagnosis_of, site_scanner
from simulation.twins.layout import GENERATOR, STATEMENT
from simulation.twins.raw_scan import RawSettings, write_raw_twin
from simulation.twins.raw_truth import RawTruth, landmark_error, read_truth
from simulation.twins.twin import make_twin

__all__ = [
    "RawCohortSettings",
    "RawSettings",
    "RawTruth",
    "landmark_error",
    "read_truth",
    "write_raw_dataset",
    "write_raw_twin",
]

logger = logging.getLogger(__name__)

COLUMNS = (
    "participant_id",
    "site",
    "sex",
    "age",
    "diagnosis",
    "education",
    "mmse",
    "adas13",
    "apoe4",
)
_SCANS = (
    RawSettings(),
    RawSettings(orientation="RAS", voxel=(1.0, 1.0, 1.2), oblique=True, max_scale=0.04),
    RawSettings(orientation="PIR", voxel=(1.2, 0.94, 0.94), pet_orientation="RAS", max_scale=0.04),
)


class RawCohortSettings(BaseModel):
    """A dataset of raw twins; the person of a seed, site and number is the one of `CohortSettings`.

    Attributes
    ----------
    scans
        Taken in turn, subject by subject.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=7, ge=0)
    anatomies: tuple[str, ...] = Field(default=("icbm152",), min_length=1)
    sites: tuple[SiteSettings, ...] = Field(
        default=(SiteSettings(name="alder", subjects=2), SiteSettings(name="birch", subjects=1)),
        min_length=1,
        max_length=26,
    )
    scans: tuple[RawSettings, ...] = Field(default=_SCANS, min_length=1)


class _Member(NamedTuple):
    """One person of a dataset."""

    site: SiteSettings
    number: int
    subject: str
    settings: RawSettings


def write_raw_dataset(out: Path, settings: RawCohortSettings) -> Path:
    """Write a BIDS dataset of raw twins, and what is true of them in `out`/truth; whole or not at all.

    Raises
    ------
    ConfigError
        When an anatomy cannot be had, or `out` holds something.
    """
    check_anatomies(settings.anatomies)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty; choose another folder")
    with atomic_directory(out) as folder:
        rows = [_write_member(folder, member, settings) for member in _members(settings)]
        lines = ["\t".join(row) for row in (COLUMNS, *rows)]
        write_text(folder / "participants.tsv", "\n".join(lines) + "\n")
        write_text(folder / "README", STATEMENT + "\n")
        write_text(folder / ".bidsignore", "truth/\n")
        write_json(folder / "dataset_description.json", _description(settings))
    logger.info("made %d raw twins", len(rows))
    return out


def _description(settings: RawCohortSettings) -> dict[str, Any]:
    return {
        "Name": "Digital twins as raw data: T1 MRI and dynamic FDG-PET",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "Synthetic": True,
        "Statement": STATEMENT,
        "GeneratedBy": [{"Name": f"{GENERATOR}, raw", "Settings": settings.model_dump(mode="json")}],
    }


def _members(settings: RawCohortSettings) -> Iterator[_Member]:
    count = 0
    for letter, site in zip(ascii_uppercase, settings.sites, strict=False):
        for number in range(site.subjects):
            scan = settings.scans[count % len(settings.scans)]
            yield _Member(site, number, f"sub-{letter}{number + 1:04d}", scan)
            count += 1


def _write_member(folder: Path, member: _Member, settings: RawCohortSettings) -> tuple[str, ...]:
    """Make one twin, write it and return its row."""
    site = member.site
    seed = np.random.SeedSequence([settings.seed, zlib.crc32(site.name.encode()), 3, member.number])
    clinic, body, raw = seed.spawn(3)  # the first two as in the cohort: the same people
    rng = np.random.default_rng(clinic)
    base = settings.anatomies[int(rng.integers(len(settings.anatomies)))]
    missing = Missingness(site.missing_mmse, site.missing_adas13, site.missing_apoe4)
    diagnosis = diagnosis_of(site, member.number, seed=settings.seed)
    person = sample_person(rng, diagnosis=diagnosis, missing=missing)
    anatomy = load_anatomy(base, spacing=member.settings.spacing)
    twin = make_twin(person, anatomy=anatomy, scanner=site_scanner(site, seed=settings.seed), seed=body)
    write_raw_twin(folder, twin, seed=raw, subject=member.subject, settings=member.settings)
    return _row(member.subject, site.name, person)


def _row(subject: str, site: str, person: Person) -> tuple[str, ...]:
    scores = ("n/a" if v is None else f"{v:g}" for v in (person.mmse, person.adas13, person.apoe4))
    who = (subject, site, person.sex, f"{person.age:.1f}", person.diagnosis, str(person.education))
    return (*who, *scores)
