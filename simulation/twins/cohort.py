# SPDX-License-Identifier: Apache-2.0
"""A cohort of digital twins on disk: several hospitals that differ in size, scanner and case mix.

    from simulation.twins.cohort import CohortSettings, build_cohort

    tables = build_cohort(CohortSettings(seed=7), Path("cohort"))   # under a minute on two cores

The same settings give the same bytes, whatever the number of processes.
"""

import logging
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pasta_model.data.grid import template
from pasta_model.errors import ConfigError
from pasta_model.files import atomic_directory
from pasta_model.workers import process_pool
from simulation.twins import layout
from simulation.twins.anatomy import check_anatomies, load_anatomy
from simulation.twins.clinic import DIAGNOSES, Diagnosis, Missingness, sample_person
from simulation.twins.scanner import FieldStrength, Scanner, Vendor, sample_scanner
from simulation.twins.twin import make_twin

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_GOLDEN = 0.6180339887498949  # fractional part of the golden ratio


class SiteSettings(BaseModel):
    """One hospital.

    Attributes
    ----------
    name
        Directory of the site: small letters, digits and hyphens.
    subjects
        Number of people, each with one MRI and one PET.
    mix
        Shares of CN, MCI and Dementia; they sum to 1.
    vendor, field
        Of the scanners; drawn from the cohort's seed when `None`.
    contrast, pet_resolution
        Of the scanners: exponent of the T1 intensities, FWHM of the PET in mm; drawn when `None`. For
        studies of hospitals that differ more than most.
    missing_mmse, missing_adas13, missing_apoe4
        Shares of people without the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    subjects: int = Field(ge=1, le=9999)
    mix: tuple[float, float, float] = (0.34, 0.41, 0.25)
    vendor: Vendor | None = None
    field: FieldStrength | None = None
    contrast: float | None = Field(default=None, gt=0.2, lt=5)
    pet_resolution: float | None = Field(default=None, ge=2, le=15)
    missing_mmse: float = Field(default=0.01, ge=0, le=1)
    missing_adas13: float = Field(default=0.04, ge=0, le=1)
    missing_apoe4: float = Field(default=0.06, ge=0, le=1)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"found {name!r}; wanted small letters, digits and hyphens, at most 32")
        return name

    @field_validator("mix")
    @classmethod
    def _shares(cls, mix: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(mix) < 0 or abs(sum(mix) - 1.0) > 1e-6:
            raise ValueError(f"found {mix}; wanted three shares of at least 0 that sum to 1")
        return mix


DEFAULT_SITES = (
    SiteSettings(name="alder", subjects=72, mix=(0.36, 0.40, 0.24), vendor="Siemens", field="3 T"),
    SiteSettings(name="birch", subjects=48, mix=(0.25, 0.35, 0.40), vendor="GE", field="1.5 T"),
    SiteSettings(name="cedar", subjects=36, mix=(0.50, 0.30, 0.20), vendor="Philips", field="3 T"),
    SiteSettings(
        name="dogwood",
        subjects=24,
        mix=(0.30, 0.30, 0.40),
        vendor="Siemens",
        field="1.5 T",
        missing_adas13=0.5,
    ),
)


class CohortSettings(BaseModel):
    """A cohort.

    Attributes
    ----------
    seed
        Of everything that is drawn.
    spacing
        mm: 3.0 (tests and demo) or 1.5 (published grid).
    anatomies
        Base anatomies, drawn evenly and independently of site and diagnosis. Never chosen by what
        is installed: "icbm152" is always there, "ixi" needs the package deepmriprep.
    sites
        The hospitals, at most 26, each with a name of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(ge=0)
    spacing: float = 3.0
    anatomies: tuple[str, ...] = Field(default=("icbm152",), min_length=1)
    sites: tuple[SiteSettings, ...] = Field(default=DEFAULT_SITES, min_length=1, max_length=26)

    @model_validator(mode="after")
    def _distinct_sites(self) -> Self:
        names = [site.name for site in self.sites]
        if len(set(names)) < len(names):
            raise ValueError(f"every site needs a name of its own; found {names}")
        return self


class _Task(NamedTuple):
    """All that a process needs to make one twin."""

    settings: CohortSettings
    site: SiteSettings
    letter: str
    number: int
    scanner: Scanner
    folder: Path


def build_cohort(
    settings: CohortSettings,
    out: Path,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Make a cohort of twins as NIfTI files and tables.

    The directory is made whole or not at all; an older cohort in its place is replaced.

    Parameters
    ----------
    workers
        Number of processes, each of one thread.
    progress
        Called with (twins made, twins in all) after each one.

    Returns
    -------
    tuple of Path
        participants.tsv of every site, in the order of the settings.

    Raises
    ------
    ConfigError
        When an anatomy cannot be had, the spacing has no grid, or `out` holds something else.
    """
    template(settings.spacing)
    check_anatomies(settings.anatomies)
    _check_target(out)
    with atomic_directory(out) as folder, process_pool(workers) as pool:
        tasks = list(_tasks(settings, folder))
        rows: dict[str, list[layout.Row]] = {site.name: [] for site in settings.sites}
        for done, (task, row) in enumerate(zip(tasks, pool.map(_make_one, tasks), strict=True), start=1):
            rows[task.site.name].append(row)
            if progress is not None:
                progress(done, len(tasks))
        for name, found in rows.items():
            layout.write_tables(folder / name, found)
        layout.write_description(folder, settings.model_dump(mode="json"))
    logger.info("made %d twins at %d sites", len(tasks), len(settings.sites))
    return tuple(out / site.name / layout.PARTICIPANTS for site in settings.sites)


def _check_target(out: Path) -> None:
    """Refuse to replace anything but an older cohort."""
    if not out.exists() or layout.is_cohort(out):
        return
    if not out.is_dir() or any(out.iterdir()):
        raise ConfigError(f"{out} exists and is not a cohort of twins: choose another directory")


def _tasks(settings: CohortSettings, folder: Path) -> Iterator[_Task]:
    """Every twin of the cohort, site by site."""
    for letter, site in zip(ascii_uppercase, settings.sites, strict=False):
        scanner = site_scanner(site, seed=settings.seed)
        for index in range(site.subjects):
            yield _Task(settings, site, letter, index, scanner, folder / site.name)


def site_scanner(site: SiteSettings, *, seed: int) -> Scanner:
    """Scanners of a site, from the cohort's seed and the site's name."""
    rng = np.random.default_rng([seed, zlib.crc32(site.name.encode()), 1])
    drawn = sample_scanner(rng, vendor=site.vendor, field=site.field)
    width = site.pet_resolution
    return replace(
        drawn,
        contrast=drawn.contrast if site.contrast is None else site.contrast,
        resolution=drawn.resolution if width is None else (width, width, width),
    )


def diagnosis_of(site: SiteSettings, index: int, *, seed: int) -> Diagnosis:
    """Diagnosis of a site's person number `index`.

    A golden-ratio sequence with a random start: its shares follow the mix closely even in a small site.
    """
    start = np.random.default_rng([seed, zlib.crc32(site.name.encode()), 2]).random()
    position = (start + index * _GOLDEN) % 1.0
    return DIAGNOSES[int(np.searchsorted(np.cumsum(site.mix)[:2], position, side="right"))]


def _make_one(task: _Task) -> layout.Row:
    """Draw one person, make the twin, write its files and return its rows."""
    settings, site = task.settings, task.site
    seed = np.random.SeedSequence([settings.seed, zlib.crc32(site.name.encode()), 3, task.number])
    clinic, body = seed.spawn(2)
    rng = np.random.default_rng(clinic)
    base = settings.anatomies[int(rng.integers(len(settings.anatomies)))]
    missing = Missingness(site.missing_mmse, site.missing_adas13, site.missing_apoe4)
    diagnosis = diagnosis_of(site, task.number, seed=settings.seed)
    person = sample_person(rng, diagnosis=diagnosis, missing=missing)
    anatomy = load_anatomy(base, spacing=settings.spacing)
    twin = make_twin(person, anatomy=anatomy, scanner=task.scanner, seed=body)
    participant = f"sub-{task.letter}{task.number + 1:04d}"
    origin = layout.Origin(site.name, base, task.scanner)
    return layout.write_twin(
        task.folder / participant, twin, person=person, origin=origin, affine=anatomy.grid.affine
    )
