# SPDX-License-Identifier: Apache-2.0
"""Synthetic PETs on disk, as BIDS derivatives: NIfTI in, NIfTI and provenance out; resumable.

A subject's PET is complete when its JSON sidecar is there, says what was asked for, and names the
digests of the files beside it. The sidecar is removed first and written last.
"""

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pasta_model.checkpoint import PACKAGES, file_digest, load_checkpoint
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.errors import CheckpointError, Problems, VolumeError
from pasta_model.familiarity.model import Familiarity, load_familiarity
from pasta_model.files import refuse_unwritable, write_json
from pasta_model.native import native_name, prepared_mri, write_native
from pasta_model.prepare.session import Prepared, versions
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.sections import SamplingSettings
from pasta_model.synthesis import Synthesiser, SyntheticPet

DESCRIPTION = "SYNTHETIC FDG-PET (SUVR) made from MRI by PASTA; not a medical device"
SPREAD_DESCRIPTION = "SPREAD (SUVR) of SYNTHETIC FDG-PET samples by PASTA; not a medical device"


@dataclass(frozen=True)
class SynthesisJob:
    """What to synthesise with, and where to put it."""

    model: Path
    output: Path
    seed: int = 0
    sampling: SamplingSettings | None = None
    device: str | None = None
    preview: bool = False
    prepare: PrepareSettings | None = None  # of raw MRIs; None: they are prepared
    familiarity: Path | None = None  # a reference: the sidecar then tells of MRIs unlike those of training

    def pet_path(self, session: Session) -> Path:
        """Where a session's synthetic PET goes."""
        return synthetic_path(self.output, session)


def synthetic_path(folder: Path, session: Session) -> Path:
    """Place of a session's synthetic PET in a folder, as a BIDS derivative."""
    name = f"{session.name}_space-MNI152_trc-18FFDG_desc-synthetic_pet.nii.gz"
    if not session.session:  # one MRI outside any table
        return folder / name
    return folder / session.subject / session.session / "pet" / name


def spread_path(pet: Path) -> Path:
    """Place of the standard deviation map beside a synthetic PET."""
    return pet.with_name(pet.name.replace("desc-synthetic_pet", "desc-syntheticSpread_pet"))


def synthesise_sessions(
    job: SynthesisJob,
    sessions: Sequence[Session],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    step_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Synthesise every session; those made with the same model, inputs, sampling and seed are kept.

    `progress` counts sessions, `step_progress` the denoising steps of the session at hand.

    Raises
    ------
    CheckpointError
        When the model cannot be read.
    VolumeError
        At the end, with a line for every scan that could not be used; the others are done.
    """
    refuse_unwritable(job.output)
    synthesiser = _loaded(job)
    known = load_familiarity(job.familiarity) if job.familiarity else None
    provenance = _provenance(job, synthesiser)
    problems = Problems("scans that could not be synthesised")
    paths = []
    for done, session in enumerate(sessions, start=1):
        path = job.pet_path(session)
        try:
            about = {**provenance, **inputs_of(session)}
            if not is_complete(path, about):
                _synthesise_one(synthesiser, session, job, about, step_progress, known=known)
            paths.append(path)
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
        progress(done, len(sessions))
    problems.raise_if_any(VolumeError)
    return paths


def _loaded(job: SynthesisJob) -> Synthesiser:
    checkpoint = load_checkpoint(job.model)
    try:
        return Synthesiser(checkpoint, sampling=job.sampling, device=job.device)
    except CheckpointError as error:  # which file?
        raise CheckpointError(f"{job.model}: {error}") from error


def _synthesise_one(
    synthesiser: Synthesiser,
    session: Session,
    job: SynthesisJob,
    provenance: Mapping[str, object],
    step_progress: Callable[[int, int], None],
    *,
    known: Familiarity | None,
) -> None:
    start = time.monotonic()
    path = job.pet_path(session)
    with ExitStack() as stack:
        prepared = None
        if job.prepare:
            prepared = stack.enter_context(prepared_mri(session.mri, job.prepare))
        mri = prepared.mri if prepared else read_volume(session.mri)
        verdict = _verdict(known, mri)
        made = _made(synthesiser, mri, session, job, step_progress)
        written = _write(path, made, prepared)
    about = {
        **provenance,
        **verdict,
        "Outputs": written,
        "DurationSeconds": round(time.monotonic() - start, 3),
    }
    if prepared:
        about |= {"PreparationSteps": prepared.steps, "PreparationFigures": prepared.figures}
    write_json(sidecar_path(path), about)  # last: marks it complete


def flagged(pets: Sequence[Path]) -> list[Path]:
    """Return those of synthetic PETs whose sidecar says that the MRI is unlike the training federation's."""
    abouts = ((pet, json.loads(sidecar_path(pet).read_text(encoding="utf-8"))) for pet in pets)
    return [pet for pet, about in abouts if about.get("Familiarity", {}).get("unlike")]


def _verdict(known: Familiarity | None, mri: Volume) -> dict[str, object]:
    if known is None:
        return {}
    found = known.judge(mri)
    return {
        "Familiarity": {
            "distance": round(found.distance, 4),
            "percentile": round(found.percentile, 4),
            "unlike": found.unlike,
            "reasons": list(found.reasons),
        }
    }


def _made(
    synthesiser: Synthesiser,
    mri: Volume,
    session: Session,
    job: SynthesisJob,
    step_progress: Callable[[int, int], None],
) -> SyntheticPet:
    if job.preview:
        return SyntheticPet(synthesiser.preview(mri), None)
    steps = itertools.count(1)
    return synthesiser.synthesise_samples(
        mri,
        session.clinical,
        seed=job.seed,
        name=session.name,
        on_step=lambda: step_progress(next(steps), synthesiser.network_steps),
    )


def _write(path: Path, made: SyntheticPet, prepared: Prepared | None) -> dict[str, str]:
    """Write the volumes of a session; return their digests by file name."""
    pets = (path, path.with_name(native_name(path.name)))
    for stale in (
        sidecar_path(path),
        sidecar_path(pets[1]),
        *(spread_path(pet) for pet in pets),
    ):  # of an earlier run
        stale.unlink(missing_ok=True)
    write_volume(path, made.mean, description=DESCRIPTION)
    files = [path]
    if made.spread:
        write_volume(spread_path(path), made.spread, description=SPREAD_DESCRIPTION)
        files.append(spread_path(path))
    if prepared:
        files += write_native(path, made, prepared, words=(DESCRIPTION, SPREAD_DESCRIPTION))
        about = {
            "Description": DESCRIPTION,
            "Synthetic": True,
            "Units": "SUVR",
            "Provenance": sidecar_path(path).name,
        }
        write_json(sidecar_path(pets[1]), about)
        files.append(sidecar_path(pets[1]))
    return {file.name: file_digest(file) for file in files}


def _provenance(job: SynthesisJob, synthesiser: Synthesiser) -> dict[str, object]:
    sampling = synthesiser.sampling
    return {
        "Description": DESCRIPTION,
        "Synthetic": True,
        "Units": "SUVR",
        "Model": synthesiser.settings.title,
        "ModelSha256": file_digest(job.model),
        "Seed": job.seed,
        "Method": "preview" if job.preview else "diffusion",
        "Sampling": sampling.model_dump(by_alias=True),
        "Uncertainty": None
        if job.preview or sampling.samples == 1
        else f"standard deviation of {sampling.samples} samples, in SUVR, in the file desc-syntheticSpread",
        "Settings": {k: v for k, v in synthesiser.settings.flat().items() if not k.startswith("sampling.")},
        "Versions": {name: version(name) for name in PACKAGES},
        "Preparation": {**job.prepare.model_dump(), "versions": versions()} if job.prepare else None,
        **({"FamiliarityReferenceSha256": file_digest(job.familiarity)} if job.familiarity else {}),
    }


def inputs_of(session: Session) -> dict[str, object]:
    """Say what the PET is made from; a changed scan or value makes it stale."""
    if not session.mri.is_file():
        raise VolumeError(f"{session.mri}: no such file; check the path in the manifest")
    return {"MriSha256": file_digest(session.mri), "Clinical": dict(session.clinical)}


def sidecar_path(path: Path) -> Path:
    """Place of the JSON beside a synthetic PET."""
    return path.with_name(path.name.replace(".nii.gz", ".json"))


def is_complete(path: Path, provenance: Mapping[str, object]) -> bool:
    """Whether a PET's sidecar says what was asked for and has the digests of the files beside it."""
    try:
        found = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
        whole = all(file_digest(path.with_name(name)) == sha for name, sha in found["Outputs"].items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return whole and all(found.get(key) == value for key, value in provenance.items())
