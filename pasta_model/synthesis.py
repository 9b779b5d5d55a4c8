# SPDX-License-Identifier: Apache-2.0
"""Synthetic PETs for sessions of a manifest: NIfTI in, NIfTI and provenance out; resumable.

A stranger's script needs `Synthesiser(load_checkpoint(path))` and `.synthesise(mri, clinical)`.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from pasta_model.checkpoint import PACKAGES, Checkpoint, file_digest, load_checkpoint, new_translator
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.grid import template_of
from pasta_model.data.manifest import Session
from pasta_model.data.scaling import PET_SCALE, mri_scale
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.errors import Problems, VolumeError
from pasta_model.files import write_json
from pasta_model.sections import SamplingSettings
from pasta_model.seeding import torch_generator

DESCRIPTION = "SYNTHETIC FDG-PET (SUVR) made from MRI by PASTA; not a medical device"
logger = logging.getLogger(__name__)


class Synthesiser:
    """A trained model that turns an MRI into a synthetic PET.

    Parameters
    ----------
    checkpoint
        Weights, settings and clinical standardisation.
    sampling
        Steps, hop and batch; by default those of the checkpoint.
    device
        Where to compute, for example "cpu"; by default where the model was trained.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, sampling: SamplingSettings | None = None, device: str | None = None
    ) -> None:
        training = checkpoint.settings.training
        training = training.model_copy(update={"device": device or training.device})
        self.settings = checkpoint.settings.model_copy(update={"training": training})
        self.sampling = sampling or checkpoint.settings.sampling
        self.standardisation = checkpoint.standardisation
        self.scheme = SCHEMES[checkpoint.settings.data.clinical]
        translator = new_translator(self.settings, checkpoint.state)
        translator.network.eval()
        self._volumes = VolumeTranslator(translator, self.sampling)

    def synthesise(
        self, mri: Volume, clinical: Mapping[str, float | None], *, seed: int = 0, name: str = ""
    ) -> Volume:
        """Sample the PET of an MRI.

        Parameters
        ----------
        mri
            Skull-stripped, on the head grid of the model's template.
        clinical
            Raw values by column (see `data.clinical`); missing ones may be absent or None.
        seed, name
            Of the noise volume: the same seed and name give the same PET.

        Returns
        -------
        Volume
            SUVR, with the MRI's shape and affine; 0 outside the network's crop.

        Raises
        ------
        VolumeError
            When the MRI lies on another grid, or is empty.
        """
        grid = template_of(mri.data.shape, mri.affine)
        if grid.head.spacing != self.settings.data.spacing:
            raise VolumeError(f"found {grid.name}, the model was trained at {self.settings.data.spacing} mm")
        device = self.settings.training.device
        source = grid.to_network(mri_scale(mri.data).to_network(mri.data))
        vector = self.standardisation.vector(clinical, self.scheme)
        x0 = self._volumes.sample(
            torch.from_numpy(source).to(device),
            torch.from_numpy(vector).to(device) if self.scheme.length else None,
            generator=torch_generator(seed, "synthesis", name, device=device),
        )
        if not torch.isfinite(x0).all():
            raise VolumeError("the network returned NaN or infinity; its weights are damaged")
        suvr = PET_SCALE.to_file(x0.cpu().numpy()).clip(min=0)
        return Volume(grid.to_head(suvr).astype(np.float32), mri.affine, "SUVR")


@dataclass(frozen=True)
class SynthesisJob:
    """What to synthesise with, and where to put it."""

    model: Path
    output: Path
    seed: int = 0
    sampling: SamplingSettings | None = None
    device: str | None = None

    def pet_path(self, session: Session) -> Path:
        """Where a session's synthetic PET goes."""
        return synthetic_path(self.output, session)


def synthetic_path(folder: Path, session: Session) -> Path:
    """Place of a session's synthetic PET in a folder, as a BIDS derivative."""
    name = f"{session.name}_space-MNI152_trc-18FFDG_desc-synthetic_pet.nii.gz"
    return folder / session.subject / session.session / "pet" / name


def synthesise_sessions(
    job: SynthesisJob,
    sessions: Sequence[Session],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Synthesise every session; those already made with the same model and seed are kept.

    Raises
    ------
    CheckpointError
        When the model cannot be read.
    VolumeError
        At the end, with a line for every scan that could not be used; the others are done.
    """
    synthesiser = Synthesiser(load_checkpoint(job.model), sampling=job.sampling, device=job.device)
    provenance = _provenance(job, synthesiser)
    problems = Problems("scans that could not be synthesised")
    paths = []
    for done, session in enumerate(sessions, start=1):
        path = job.pet_path(session)
        try:
            about = {**provenance, **_inputs(session)}
            if not _is_done(path, about):
                _synthesise_one(synthesiser, session, path, about)
            paths.append(path)
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
        progress(done, len(sessions))
    problems.raise_if_any(VolumeError)
    return paths


def _synthesise_one(
    synthesiser: Synthesiser, session: Session, path: Path, provenance: Mapping[str, object]
) -> None:
    start = time.monotonic()
    seed = int(str(provenance["Seed"]))
    mri = read_volume(session.mri)
    pet = synthesiser.synthesise(mri, session.clinical, seed=seed, name=session.name)
    write_volume(path, pet, description=DESCRIPTION)
    seconds = round(time.monotonic() - start, 3)
    write_json(_sidecar(path), {**provenance, "DurationSeconds": seconds})  # last: marks it complete


def _provenance(job: SynthesisJob, synthesiser: Synthesiser) -> dict[str, object]:
    return {
        "Description": DESCRIPTION,
        "Synthetic": True,
        "Units": "SUVR",
        "ModelSha256": file_digest(job.model),
        "Seed": job.seed,
        "Sampling": synthesiser.sampling.model_dump(by_alias=True),
        "Settings": synthesiser.settings.flat(),
        "Versions": {name: version(name) for name in PACKAGES},
    }


def _inputs(session: Session) -> dict[str, object]:
    """Say what the PET is made from; a changed scan or value makes it stale."""
    if not session.mri.is_file():
        raise VolumeError(f"{session.mri}: no such file; check the path in the manifest")
    return {"MriSha256": file_digest(session.mri), "Clinical": dict(session.clinical)}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.replace(".nii.gz", ".json"))


def _is_done(path: Path, provenance: Mapping[str, object]) -> bool:
    sidecar = _sidecar(path)
    if not (path.is_file() and sidecar.is_file()):
        return False
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return all(found.get(key) == value for key, value in provenance.items())
