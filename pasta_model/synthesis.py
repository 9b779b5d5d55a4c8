# SPDX-License-Identifier: Apache-2.0
"""Synthetic PETs for sessions of a manifest: NIfTI in, NIfTI and provenance out; resumable.

A stranger's script needs `Synthesiser(load_checkpoint(path))` and `.synthesise(mri, clinical)`.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pasta_model.checkpoint import PACKAGES, Checkpoint, file_digest, load_checkpoint, new_translator
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.grid import Template, template_of
from pasta_model.data.manifest import Session
from pasta_model.data.scaling import PET_SCALE, mri_scale
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.diffusion.fusion import each_plane
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.errors import ConfigError, Problems, VolumeError
from pasta_model.files import write_json
from pasta_model.placement import cast_convolutions
from pasta_model.sections import SamplingSettings
from pasta_model.seeding import torch_generator

DESCRIPTION = "SYNTHETIC FDG-PET (SUVR) made from MRI by PASTA; not a medical device"
SPREAD_DESCRIPTION = "SPREAD (SUVR) of SYNTHETIC FDG-PET samples by PASTA; not a medical device"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyntheticPet:
    """A synthetic PET in SUVR; `spread` is the standard deviation of its samples, None of one sample."""

    mean: Volume
    spread: Volume | None


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
        self._refuse_other_planes()
        translator = new_translator(self.settings, checkpoint.state)
        translator.network.eval()
        cast_convolutions(translator.network, translator.dtype)
        self._volumes = VolumeTranslator(translator, self.sampling)

    def _refuse_other_planes(self) -> None:
        trained, wanted = self.settings.data.planes, self.sampling.planes
        if not set(each_plane(wanted)) <= set(each_plane(trained)):
            raise ConfigError(
                f"sampling.planes {wanted!r}, but the model was trained on data.planes {trained!r}; use those"
            )

    @property
    def network_steps(self) -> int:
        """How often `on_step` is called for a session."""
        return self._volumes.network_steps * self.sampling.samples

    def synthesise(
        self, mri: Volume, clinical: Mapping[str, float | None], *, seed: int = 0, name: str = ""
    ) -> Volume:
        """Synthesise the PET of an MRI: one sample, or the mean of `sampling.samples`.

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
        return self.synthesise_samples(mri, clinical, seed=seed, name=name).mean

    def synthesise_samples(
        self,
        mri: Volume,
        clinical: Mapping[str, float | None],
        *,
        seed: int = 0,
        name: str = "",
        on_step: Callable[[], None] = lambda: None,
    ) -> SyntheticPet:
        """Do as `synthesise`, and say how far the samples spread."""
        source, vector, grid = self._read(mri, clinical)
        device = self.settings.training.device
        # The first of several samples is the one that would be drawn alone.
        streams: list[tuple[str, ...]] = [(name,), *((name, str(i)) for i in range(1, self.sampling.samples))]
        generators = [torch_generator(seed, "synthesis", *words, device=device) for words in streams]
        drawn = [
            self._suvr(x0, grid)
            for x0 in self._volumes.samples(source, vector, generators=generators, on_step=on_step)
        ]
        stacked = np.stack(drawn)
        spread = Volume(stacked.std(axis=0, ddof=1), mri.affine, "SUVR") if len(drawn) > 1 else None
        return SyntheticPet(Volume(stacked.mean(axis=0), mri.affine, "SUVR"), spread)

    def preview(self, mri: Volume) -> Volume:
        """Return the conditioner's own PET of an MRI: one pass, no noise, no clinical values."""
        source, _, grid = self._read(mri, {})
        return Volume(self._suvr(self._volumes.preview(source), grid), mri.affine, "SUVR")

    def _read(
        self, mri: Volume, clinical: Mapping[str, float | None]
    ) -> tuple[torch.Tensor, torch.Tensor | None, Template]:
        grid = template_of(mri.data.shape, mri.affine)
        if grid.head.spacing != self.settings.data.spacing:
            raise VolumeError(f"found {grid.name}, the model was trained at {self.settings.data.spacing} mm")
        device = self.settings.training.device
        source = torch.from_numpy(grid.to_network(mri_scale(mri.data).to_network(mri.data))).to(device)
        vector = torch.from_numpy(self.standardisation.vector(clinical, self.scheme)).to(device)
        return source, vector if self.scheme.length else None, grid

    def _suvr(self, x0: torch.Tensor, grid: Template) -> NDArray[np.float32]:
        if not torch.isfinite(x0).all():
            raise VolumeError("the network returned NaN or infinity; its weights are damaged")
        suvr = PET_SCALE.to_file(x0.cpu().numpy()).clip(min=0)
        return np.asarray(grid.to_head(suvr), dtype=np.float32)


@dataclass(frozen=True)
class SynthesisJob:
    """What to synthesise with, and where to put it."""

    model: Path
    output: Path
    seed: int = 0
    sampling: SamplingSettings | None = None
    device: str | None = None
    preview: bool = False

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
    """Synthesise every session; those already made with the same model and seed are kept.

    `progress` counts sessions, `step_progress` the denoising steps of the session at hand.

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
                _synthesise_one(synthesiser, session, job, about, step_progress)
            paths.append(path)
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
        progress(done, len(sessions))
    problems.raise_if_any(VolumeError)
    return paths


def _synthesise_one(
    synthesiser: Synthesiser,
    session: Session,
    job: SynthesisJob,
    provenance: Mapping[str, object],
    step_progress: Callable[[int, int], None],
) -> None:
    start = time.monotonic()
    mri = read_volume(session.mri)
    if job.preview:
        made = SyntheticPet(synthesiser.preview(mri), None)
    else:
        steps = itertools.count(1)
        made = synthesiser.synthesise_samples(
            mri,
            session.clinical,
            seed=job.seed,
            name=session.name,
            on_step=lambda: step_progress(next(steps), synthesiser.network_steps),
        )
    path = job.pet_path(session)
    if made.spread:
        write_volume(spread_path(path), made.spread, description=SPREAD_DESCRIPTION)
    else:
        spread_path(path).unlink(missing_ok=True)  # of an earlier run with several samples
    write_volume(path, made.mean, description=DESCRIPTION)
    seconds = round(time.monotonic() - start, 3)
    write_json(_sidecar(path), {**provenance, "DurationSeconds": seconds})  # last: marks it complete


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
    wanted = [path, sidecar, *([spread_path(path)] if provenance["Uncertainty"] else [])]
    if not all(file.is_file() for file in wanted):
        return False
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return all(found.get(key) == value for key, value in provenance.items())
