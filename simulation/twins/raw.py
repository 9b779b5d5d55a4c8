# SPDX-License-Identifier: Apache-2.0
"""Digital twins as a hospital's raw data: heads in two scanners, and the truth beside them.

    from simulation.twins.raw import RawCohortSettings, write_raw_dataset

    root = write_raw_dataset(Path("raw"), RawCohortSettings(seed=7))   # BIDS; truth in raw/truth

The same settings give the same bytes. Spaces: the head is the twin in MNI mm; the MRI and the PET each
have the mm of their scanner. Shapes: (x, y, z), or (x, y, z, frame).
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume, write_volume
from pasta_model.errors import ConfigError
from pasta_model.files import atomic_directory, write_json, write_text
from simulation.twins.anatomy import check_anatomies, load_anatomy
from simulation.twins.clinic import Missingness, Person, sample_person
from simulation.twins.cohort import SiteSettings, diagnosis_of, site_scanner
from simulation.twins.fields import Floats, blur, smooth_noise, to_grid
from simulation.twins.head import Head, bare_head, build_head
from simulation.twins.layout import GENERATOR, STATEMENT
from simulation.twins.pose import Matrix, Triple, aim, apply, draw_pose, sample, save_scan
from simulation.twins.twin import Twin, make_twin

logger = logging.getLogger(__name__)

_MRI_BOX, _MRI_MIDDLE = (199.2, 256.0, 256.0), (0.0, -8.0, -20.0)  # mm; what lies in the middle, MNI mm
_PET_BOX, _PET_MIDDLE = (256.0, 256.0, 200.0), (0.0, -12.0, -2.0)
_NOTE = "synthetic digital twin, not a patient"
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


class RawSettings(BaseModel):
    """How a twin is scanned.

    Attributes
    ----------
    spacing
        mm of the twin's grid, 1.5 or 3.0.
    voxel, pet_voxel
        mm to the right, the front and the top of the scanner, whatever the orientation of the file.
    orientation, pet_orientation
        Axis codes of the files.
    oblique
        Whether the MRI's box is tilted in its scanner.
    max_rotation_deg, max_shift_mm, max_scale
        Largest deviation from MNI of the head in each scanner, about or along each axis; the size of the
        head is the same in both.
    head
        Whether skull, scalp, face and neck surround the brain.
    bias, noise
        Standard deviation of the log of the MRI's shading; of its noise, relative to white matter.
    frames, frame_seconds
        Of the PET; one frame makes a three-dimensional scan.
    pet_noise
        Of a frame, relative to the square root of the SUVR.
    motion_mm
        Largest shift of a frame along each axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing: float = 1.5
    voxel: Triple = (1.2, 1.0, 1.0)
    pet_voxel: Triple = (2.0, 2.0, 2.5)
    orientation: str = "LAS"
    pet_orientation: str = "LAS"
    oblique: bool = False
    extension: Literal[".nii.gz", ".nii"] = ".nii.gz"
    max_rotation_deg: float = Field(default=12.0, ge=0, le=30)
    max_shift_mm: float = Field(default=25.0, ge=0)
    max_scale: float = Field(default=0.0, ge=0, lt=0.2)
    head: bool = True
    bias: float = Field(default=0.10, ge=0)
    noise: float = Field(default=0.02, ge=0)
    frames: int = Field(default=6, ge=1)
    frame_seconds: float = Field(default=300.0, gt=0)
    pet_noise: float = Field(default=0.08, ge=0)
    motion_mm: float = Field(default=0.0, ge=0)

    @field_validator("orientation", "pet_orientation")
    @classmethod
    def _three_axes(cls, codes: str) -> str:
        if sorted(codes.translate(str.maketrans("LPI", "RAS"))) != sorted("RAS"):
            raise ValueError(f"found {codes!r}; wanted one of R L, of A P and of S I, such as 'LAS'")
        return codes


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


@dataclass(frozen=True)
class RawTruth:
    """What is true of a raw twin and what a hospital would not know.

    Attributes
    ----------
    head_to_mri, head_to_pet
        MNI mm of the twin to mm (RAS+) of the scan's own space, (4, 4).
    bq_per_suvr
        Mean over the frames of the PET, Bq/mL, for an SUVR of 1.
    frame_starts, frame_seconds, frame_levels
        One value a frame; levels are relative to the mean frame.
    mri_white
        Scanner units of white matter before shading.
    suvr
        MetaROI SUVR of the true PET.
    """

    subject: str
    session: str
    head_to_mri: list[list[float]]
    head_to_pet: list[list[float]]
    bq_per_suvr: float
    frame_starts: list[float]
    frame_seconds: list[float]
    frame_levels: list[float]
    mri_white: float
    suvr: float
    spacing: float

    @property
    def pet_to_mri(self) -> Matrix:
        """mm of the PET to mm of the MRI, (4, 4), rigid."""
        moved: Matrix = np.asarray(self.head_to_mri) @ np.linalg.inv(self.head_to_pet)
        return moved


def read_truth(path: Path) -> RawTruth:
    """Read the JSON of a truth."""
    return RawTruth(**json.loads(path.read_text(encoding="utf-8")))


def landmark_error(
    estimated_raw_to_mni: ArrayLike | Callable[[Matrix], Matrix], truth: RawTruth, points_mni: ArrayLike
) -> Matrix:
    """Return how far an estimated registration of the MRI puts landmarks from where they are.

    Parameters
    ----------
    estimated_raw_to_mni
        From mm of the raw MRI to MNI mm: a matrix (4, 4), or a function of points (N, 3).
    points_mni
        Landmarks, MNI mm, (N, 3).

    Returns
    -------
    ndarray
        mm in MNI space, (N,).
    """
    raw = apply(truth.head_to_mri, points_mni)
    if callable(estimated_raw_to_mni):
        found = estimated_raw_to_mni(raw)
    else:
        found = apply(np.asarray(estimated_raw_to_mni), raw)
    error: Matrix = np.linalg.norm(found - np.asarray(points_mni), axis=-1)
    return error


def write_raw_twin(
    folder: Path,
    twin: Twin,
    *,
    seed: int | np.random.SeedSequence,
    subject: str = "sub-A0001",
    session: str = "ses-M000",
    settings: RawSettings | None = None,
) -> RawTruth:
    """Scan a twin and write MRI, PET and truth.

    Writes `folder`/subject/session/anat and pet after BIDS, and `folder`/truth/subject_session with the
    endings .json, _mri.nii.gz and _pet.nii.gz: the truth, and the twin in MNI space.
    """
    settings = settings or RawSettings()
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    body, poses, mri, pet = (np.random.default_rng(child) for child in sequence.spawn(4))
    around = build_head(body, twin.mri, twin.pet, spacing=settings.spacing)
    head = around if settings.head else bare_head(twin.mri, twin.pet, spacing=settings.spacing)
    truth = _draw_truth(poses, twin, settings, names=(subject, session))
    place, stem = folder / subject / session, f"{subject}_{session}"
    _write_mri(mri, place / "anat" / f"{stem}_T1w", head, truth=truth, settings=settings)
    _write_pet(pet, place / "pet" / f"{stem}_trc-18FFDG_pet", head, truth=truth, settings=settings)
    affine = template(settings.spacing).head.affine
    write_volume(folder / "truth" / f"{stem}_mri.nii.gz", Volume(twin.mri, affine), description=_NOTE)
    write_volume(folder / "truth" / f"{stem}_pet.nii.gz", Volume(twin.pet, affine, "SUVR"), description=_NOTE)
    write_json(folder / "truth" / f"{stem}.json", asdict(truth))
    return truth


def _draw_truth(
    rng: np.random.Generator, twin: Twin, settings: RawSettings, *, names: tuple[str, str]
) -> RawTruth:
    """Draw poses and scales."""
    scale = 1 + rng.uniform(-settings.max_scale, settings.max_scale)
    mri, pet = (
        draw_pose(rng, rotation=settings.max_rotation_deg, shift=settings.max_shift_mm, scale=scale)
        for _ in range(2)
    )
    count, seconds = settings.frames, settings.frame_seconds
    rise = np.linspace(-1, 1, count) * rng.uniform(0.02, 0.08) if count > 1 else np.zeros(1)
    return RawTruth(
        subject=names[0],
        session=names[1],
        head_to_mri=mri.tolist(),
        head_to_pet=pet.tolist(),
        bq_per_suvr=float(rng.uniform(5000, 15000)),
        frame_starts=[seconds * k for k in range(count)],
        frame_seconds=[seconds] * count,
        frame_levels=(1 + rise).tolist(),
        mri_white=float(rng.uniform(500, 850)),
        suvr=twin.suvr,
        spacing=settings.spacing,
    )


def _write_mri(
    rng: np.random.Generator, stem: Path, head: Head, *, truth: RawTruth, settings: RawSettings
) -> None:
    """Shade, scan, add Rician noise and write a T1 in scanner units."""
    pose = np.asarray(truth.head_to_mri)
    tilt = rng.uniform(-10, 10, 3) * settings.oblique
    view = aim(rng, pose, size=_MRI_BOX, voxel=settings.voxel, at=_MRI_MIDDLE, tilt=tilt)
    shading = np.exp(settings.bias * to_grid(smooth_noise(rng, fwhm=90.0), head.grid)).astype(np.float32)
    signal = sample(head.t1 * shading, head.grid, pose=pose, view=view).clip(0)
    real, imaginary = (
        np.float32(settings.noise) * rng.standard_normal(view.shape, dtype=np.float32) for _ in range(2)
    )
    magnitude = np.hypot(signal + real, imaginary) * np.float32(truth.mri_white)
    save_scan(
        stem.with_name(stem.name + settings.extension),
        magnitude,
        view.affine,
        orientation=settings.orientation,
        step=None,
        description=_NOTE,
    )
    write_json(stem.with_name(stem.name + ".json"), _MRI_SIDECAR)


def _write_pet(
    rng: np.random.Generator, stem: Path, head: Head, *, truth: RawTruth, settings: RawSettings
) -> None:
    """Scan frame by frame, add noise of counting and write Bq/mL."""
    pose = np.asarray(truth.head_to_pet)
    view = aim(rng, pose, size=_PET_BOX, voxel=settings.pet_voxel, at=_PET_MIDDLE, tilt=(0, 0, 0))
    moves = rng.uniform(-1, 1, (settings.frames, 3)) * settings.motion_mm
    frames: list[Floats] = []
    still = None if settings.motion_mm else sample(head.suvr, head.grid, pose=pose, view=view).clip(0)
    for level, move in zip(truth.frame_levels, moves, strict=True):
        moved = pose.copy()
        moved[:3, 3] += move
        mean = sample(head.suvr, head.grid, pose=moved, view=view).clip(0) if still is None else still
        white = rng.standard_normal(view.shape, dtype=np.float32)
        grain = blur(white, fwhm=5.0, spacing=float(np.mean(settings.pet_voxel)))
        noise = np.float32(settings.pet_noise) * np.sqrt(mean + np.float32(0.02)) * grain / grain.std()
        frames.append((mean + noise).clip(0) * np.float32(level * truth.bq_per_suvr))
    data = np.stack(frames, axis=-1) if settings.frames > 1 else frames[0]
    save_scan(
        stem.with_name(stem.name + settings.extension),
        data,
        view.affine,
        orientation=settings.pet_orientation,
        step=settings.frame_seconds,
        description=_NOTE,
    )
    write_json(stem.with_name(stem.name + ".json"), _pet_sidecar(truth))


_MRI_SIDECAR: dict[str, Any] = {"Synthetic": True, "Description": STATEMENT, "Modality": "MR"}


def _pet_sidecar(truth: RawTruth) -> dict[str, Any]:
    """Metadata of a PET, all that BIDS requires."""
    return {
        "Synthetic": True,
        "Description": STATEMENT,
        "Manufacturer": "simulated",
        "ManufacturersModelName": "simulated",
        "Units": "Bq/mL",
        "TracerName": "FDG",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": 185.0,
        "InjectedRadioactivityUnits": "MBq",
        "InjectedMass": "n/a",
        "InjectedMassUnits": "n/a",
        "SpecificRadioactivity": "n/a",
        "SpecificRadioactivityUnits": "n/a",
        "ModeOfAdministration": "bolus",
        "TimeZero": "10:30:00",
        "InjectionStart": -1800,
        "ScanStart": 0,
        "FrameTimesStart": truth.frame_starts,
        "FrameDuration": truth.frame_seconds,
        "AcquisitionMode": "list mode",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
        "ReconMethodName": "simulated",
        "ReconMethodParameterLabels": ["none"],
        "ReconFilterType": "none",
        "AttenuationCorrection": "simulated",
    }


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
