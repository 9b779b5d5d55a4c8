# SPDX-License-Identifier: Apache-2.0
"""One twin in two scanners: a T1 in scanner units and a dynamic FDG-PET in Bq/mL, each in its own space.

Shapes: (x, y, z), or (x, y, z, frame).
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume, write_volume
from pasta_model.errors import ConfigError
from pasta_model.files import write_json
from simulation.twins.fields import Floats, blur, smooth_noise, to_grid
from simulation.twins.head import Head, bare_head, build_head, on_template
from simulation.twins.landmarks import anatomical_suvr, landmarks
from simulation.twins.layout import STATEMENT
from simulation.twins.metabolism import metaroi_suvr
from simulation.twins.pose import Matrix, Triple, View, aim, draw_pose, sample, save_scan, shift
from simulation.twins.raw_truth import RawTruth
from simulation.twins.twin import Twin

_MRI_BOX, _MRI_MIDDLE = (199.2, 256.0, 256.0), (0.0, -8.0, -20.0)  # mm; what lies in the middle, MNI mm
_PET_BOX, _PET_MIDDLE = (256.0, 256.0, 200.0), (0.0, -12.0, -2.0)
_GRAIN = 5.0  # FWHM of the noise of the PET, mm
_NOTE = "synthetic digital twin, not a patient"


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


def write_raw_twin(
    folder: Path,
    twin: Twin,
    *,
    seed: int | np.random.SeedSequence,
    subject: str = "sub-A0001",
    session: str = "ses-M000",
    settings: RawSettings | None = None,
) -> RawTruth:
    """Scan a twin and write its scans, its truth and the twin itself.

    The scans lie after BIDS in `folder`/subject/session/anat and pet. In `folder`/truth lie
    subject_session.json, what is returned, and subject_session_mri.nii.gz and _pet.nii.gz, the twin in
    MNI space. Poses do not depend on the spacing, nor on what else the settings say.

    Raises
    ------
    ConfigError
        When the twin does not lie on the grid of the settings' spacing.
    """
    settings = settings or RawSettings()
    grid = template(settings.spacing).head
    if twin.mri.shape != grid.shape:
        raise ConfigError(f"found a twin of {twin.mri.shape} voxels, wanted {grid.shape}: set its spacing")
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    body, poses, *rest = (np.random.default_rng(child) for child in sequence.spawn(4))
    head = bare_head(twin.mri, twin.pet, spacing=settings.spacing)
    if settings.head:
        head = build_head(body, twin.mri, twin.pet, spacing=settings.spacing)
    truth = _draw_truth(poses, twin, head, settings=settings, names=(subject, session))
    for rng, scan in zip(rest, (_write_mri, _write_pet), strict=True):
        scan(rng, folder / subject / session, head, truth=truth, settings=settings)
    stem = folder / "truth" / f"{subject}_{session}"
    for kind, volume in (
        ("mri", Volume(twin.mri, grid.affine)),
        ("pet", Volume(twin.pet, grid.affine, "SUVR")),
    ):
        write_volume(stem.with_name(f"{stem.name}_{kind}.nii.gz"), volume, description=_NOTE)
    write_json(stem.with_name(f"{stem.name}.json"), asdict(truth))
    return truth


def _draw_truth(
    rng: np.random.Generator, twin: Twin, head: Head, *, settings: RawSettings, names: tuple[str, str]
) -> RawTruth:
    """Draw poses and scales."""
    grid = template(settings.spacing).head
    scale = 1 + rng.uniform(-settings.max_scale, settings.max_scale)
    mri, pet = (
        draw_pose(rng, rotation=settings.max_rotation_deg, reach=settings.max_shift_mm, scale=scale)
        for _ in range(2)
    )
    count, seconds = settings.frames, settings.frame_seconds
    slope = rng.uniform(0.02, 0.08)
    rise = slope * (np.linspace(-1, 1, count) if count > 1 else np.zeros(1))
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
        suvr_scanned=metaroi_suvr(on_template(head.suvr, spacing=settings.spacing), spacing=settings.spacing),
        landmarks=landmarks(twin.positions, grid),
        regions=anatomical_suvr(twin.pet, twin.positions, grid),
        spacing=settings.spacing,
    )


def _write_mri(
    rng: np.random.Generator, folder: Path, head: Head, *, truth: RawTruth, settings: RawSettings
) -> None:
    """Shade, scan, add Rician noise and write a T1 in scanner units."""
    pose = np.asarray(truth.head_to_mri)
    tilt = rng.uniform(-10, 10, 3) * settings.oblique
    view = aim(rng, pose, size=_MRI_BOX, voxel=settings.voxel, at=_MRI_MIDDLE, tilt=tilt)
    shading = np.exp(settings.bias * to_grid(smooth_noise(rng, fwhm=90.0), head.grid))
    signal = sample(head.t1 * shading.astype(np.float32), head.grid, pose=pose, view=view).clip(0)
    real, imaginary = (
        np.float32(settings.noise) * rng.standard_normal(view.shape, dtype=np.float32) for _ in range(2)
    )
    magnitude = np.hypot(signal + real, imaginary) * np.float32(truth.mri_white)
    stem = folder / "anat" / f"{truth.subject}_{truth.session}_T1w"
    save_scan(
        stem.with_name(stem.name + settings.extension),
        np.rint(magnitude).astype(np.int16),
        view.affine,
        orientation=settings.orientation,
        description=_NOTE,
    )
    write_json(stem.with_name(f"{stem.name}.json"), _MRI_SIDECAR)


def _write_pet(
    rng: np.random.Generator, folder: Path, head: Head, *, truth: RawTruth, settings: RawSettings
) -> None:
    """Scan frame by frame and write Bq/mL."""
    pose = np.asarray(truth.head_to_pet)
    view = aim(rng, pose, size=_PET_BOX, voxel=settings.pet_voxel, at=_PET_MIDDLE)
    moves = rng.uniform(-1, 1, (settings.frames, 3)) * settings.motion_mm
    frames = _frames(rng, head, pose, view, moves - moves.mean(axis=0), noise=settings.pet_noise)
    levels = np.float32(truth.bq_per_suvr) * np.asarray(truth.frame_levels, np.float32)
    data = np.stack([level * frame for level, frame in zip(levels, frames, strict=True)], axis=-1)
    stem = folder / "pet" / f"{truth.subject}_{truth.session}_trc-18FFDG_pet"
    save_scan(
        stem.with_name(stem.name + settings.extension),
        data if settings.frames > 1 else data[..., 0],
        view.affine,
        orientation=settings.pet_orientation,
        description=_NOTE,
        step=settings.frame_seconds,
    )
    write_json(stem.with_name(f"{stem.name}.json"), _pet_sidecar(truth))


def _frames(
    rng: np.random.Generator, head: Head, pose: Matrix, view: View, moves: Matrix, *, noise: float
) -> Iterator[Floats]:
    """Scan SUVR frame by frame with the noise of counting; a head that lies still is sampled once."""
    held: Floats | None = None
    for move in moves:
        if held is None or np.any(moves):
            shifted = shift(move) @ pose
            held = sample(head.suvr, head.grid, pose=shifted, view=view).clip(0)
        grain = rng.standard_normal(view.shape, dtype=np.float32)
        grain = blur(grain, fwhm=_GRAIN, spacing=float(np.cbrt(abs(np.linalg.det(view.affine)))))
        yield (held + np.float32(noise) * np.sqrt(held + np.float32(0.02)) * grain / grain.std()).clip(0)


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
