# SPDX-License-Identifier: Apache-2.0
"""Rivals' PETs on disk, at the paths of PASTA's, so that one evaluation reads them all; resumable.

A PET is complete when its JSON sidecar is there, says what was asked for, and has the digest of the file.
The sidecar is removed first and written last. The preview of PASTA's conditioner is no rival:
`pasta_model.derivatives.SynthesisJob(preview=True)` writes it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pasta_model.checkpoint import PACKAGES, file_digest
from pasta_model.data.manifest import Session
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.derivatives import inputs_of, is_complete, sidecar_path, synthetic_path
from pasta_model.errors import Problems, StoreError, VolumeError
from pasta_model.files import refuse_unwritable, write_json
from pasta_model.sections import SamplingSettings
from simulation.baselines import mean_pet
from simulation.rivals.synthesis import RivalSynthesiser

Progress = Callable[[int, int], None]


def synthesise_rival(
    model: Path,
    sessions: Sequence[Session],
    folder: Path,
    *,
    seed: int = 0,
    sampling: SamplingSettings | None = None,
    device: str | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Synthesise every session with a rival; PETs of the same model, inputs, sampling and seed are kept.

    Returns
    -------
    list of Path
        `pasta_model.derivatives.synthetic_path` of every session.

    Raises
    ------
    CheckpointError
        When the model cannot be read.
    VolumeError
        At the end, with a line for every scan that could not be used; the others are done.
    """
    refuse_unwritable(folder)
    synthesiser = RivalSynthesiser(model, sampling=sampling, device=device)
    about = {
        **_about(f"by {synthesiser.rival.name}"),
        "Method": synthesiser.rival.name,
        "ModelSha256": file_digest(model),
        "Seed": seed if synthesiser.rival.denoises else None,
        "Sampling": synthesiser.sampling.model_dump(by_alias=True),
    }

    def make(session: Session) -> Volume:
        mri = read_volume(session.mri)
        return synthesiser.synthesise(mri, session.clinical, seed=seed, name=session.name)

    return _each(sessions, folder, about, make, progress)


def mean_pet_folder(
    stores: Sequence[Path],
    sessions: Sequence[Session],
    folder: Path,
    *,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Write the mean training PET of all stores for every session, as if it had been synthesised.

    Raises
    ------
    StoreError
        When no store has a training session, or they lie on different grids.
    VolumeError
        At the end, with a line for every session whose MRI is missing.
    """
    refuse_unwritable(folder)
    opened = sorted((SiteStore(path) for path in stores), key=lambda store: store.site)
    used = [store for store in opened if store.indices("train")]
    if not used:
        raise StoreError(f"no training session in {len(opened)} store(s); wanted at least one")
    if len({store.template.name for store in used}) > 1:
        names = ", ".join(f"{store.site} on {store.template.name}" for store in used)
        raise StoreError(f"found stores of different grids: {names}; wanted one; prepare them again")
    mean = mean_pet(used)
    about = {
        **_about("the mean training PET"),
        "Method": "mean PET",
        "TrainingSessions": sum(len(store.indices("train")) for store in used),
        "MeanSha256": hashlib.sha256(mean.data.tobytes()).hexdigest(),
    }
    return _each(sessions, folder, about, lambda session: mean, progress)


def _each(
    sessions: Sequence[Session],
    folder: Path,
    about: Mapping[str, object],
    make: Callable[[Session], Volume],
    progress: Progress,
) -> list[Path]:
    """Make the PET of every session that is not there already."""
    problems, paths = Problems("scans that could not be synthesised"), []
    for done, session in enumerate(sessions, start=1):
        path = synthetic_path(folder, session)
        try:
            told = {**about, **inputs_of(session)}
            if not is_complete(path, told):
                _write(path, make(session), told)
            paths.append(path)
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
        progress(done, len(sessions))
    problems.raise_if_any(VolumeError)
    return paths


def _write(path: Path, pet: Volume, about: Mapping[str, object]) -> None:
    sidecar = sidecar_path(path)
    sidecar.unlink(missing_ok=True)
    write_volume(path, pet, description=str(about["Description"]))
    write_json(sidecar, {**about, "Outputs": {path.name: file_digest(path)}})  # last: marks it complete


def _about(how: str) -> dict[str, object]:
    return {
        "Description": f"SYNTHETIC FDG-PET (SUVR) {how}; not a medical device",
        "Synthetic": True,
        "Units": "SUVR",
        "Versions": {name: version(name) for name in PACKAGES},
    }
