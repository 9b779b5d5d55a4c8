# SPDX-License-Identifier: Apache-2.0
"""A trained model that turns the MRI of a subject into a synthetic PET in SUVR.

A stranger's script needs `Synthesiser(load_checkpoint(path))` and `.synthesise(mri, clinical)`; files,
provenance and resuming are `derivatives`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pasta_model.checkpoint import Checkpoint, new_translator
from pasta_model.config import Scalar, settings_from_flat
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.grid import Template, template_of
from pasta_model.data.planes import each_plane
from pasta_model.data.scaling import PET_SCALE, mri_scale
from pasta_model.data.volume import Volume
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.placement import cast_convolutions
from pasta_model.sections import SamplingSettings
from pasta_model.seeding import torch_generator


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
        own: dict[str, Scalar] = {}
        if device and device != checkpoint.settings.training.device:
            own = {"training.device": device, "training.compile": False}  # compiled for where it was trained
        self.settings = settings_from_flat({**checkpoint.settings.flat(), **own})
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
        return self._volumes.network_steps

    def synthesise(
        self, mri: Volume, clinical: Mapping[str, float | None], *, seed: int = 0, name: str = ""
    ) -> Volume:
        """Synthesise the PET of an MRI: one sample, an antithetic pair's mean, or that of several samples.

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
        # The first of several samples is the one that would be drawn alone.
        streams: list[tuple[str, ...]] = [(name,), *((name, str(i)) for i in range(1, self.sampling.samples))]
        generators = [torch_generator(seed, "synthesis", *words) for words in streams]
        drawn = [
            self._suvr(x0, grid)
            for x0 in self._volumes.samples(source, vector, generators=generators, on_step=on_step)
        ]
        stacked = np.stack(drawn)
        pet = replace(mri, data=stacked.mean(axis=0), unit="SUVR")
        spread = replace(pet, data=stacked.std(axis=0, ddof=1)) if len(drawn) > 1 else None
        return SyntheticPet(pet, spread)

    def preview(self, mri: Volume) -> Volume:
        """Return the conditioner's own PET of an MRI: one pass, no noise, no clinical values."""
        source, _, grid = self._read(mri, {})
        return replace(mri, data=self._suvr(self._volumes.preview(source), grid), unit="SUVR")

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
