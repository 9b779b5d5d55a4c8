# SPDX-License-Identifier: Apache-2.0
"""Slabs to a volume: where the slabs lie, how they are weighted, and one trajectory for the whole.

Shapes: D slices of H x W pixels; N slabs of S slices. One noise *volume* is shared by all slabs, and
their x_0 predictions are fused into one volume at every step, so a volume is one sample without seams.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pasta_model.config import SamplingSettings
from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.samplers import ddim
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.network.dual_arm import Conditioning, Direction


def slab_starts(slices: int, slab_slices: int, hop: int) -> list[int]:
    """First slice of each slab: every `hop` slices, and one that ends at the last slice.

    Raises
    ------
    VolumeError
        When the volume is thinner than a slab.
    ConfigError
        When slices would lie between the slabs.
    """
    if hop > slab_slices:
        raise ConfigError(f"sampling.hop {hop} is larger than a slab of {slab_slices}; choose a smaller one")
    if slices < slab_slices:
        raise VolumeError(f"a volume of {slices} slices is thinner than a slab of {slab_slices}")
    return sorted({*range(0, slices - slab_slices, hop), slices - slab_slices})


def fusion_weights(slices: int, slab_slices: int, starts: list[int]) -> NDArray[np.float32]:
    """Weight of each slab's slices in the volume, (N, S); over a slice they sum to 1.

    Triangular as published, but not zero at the rims, so that the first and last slices have a
    prediction; then normalised slice by slice.
    """
    offset = np.arange(slab_slices) - (slab_slices - 1) / 2
    triangle = 1 - np.abs(offset) / ((slab_slices + 1) / 2)
    total = np.zeros(slices)
    for start in starts:
        total[start : start + slab_slices] += triangle
    return np.stack([triangle / total[s : s + slab_slices] for s in starts]).astype(np.float32)


class VolumeTranslator:
    """Translates whole volumes with a trained network.

    Parameters
    ----------
    translator
        Network and schedule.
    settings
        Steps, hop, slabs a batch.
    """

    def __init__(self, translator: Translator, settings: SamplingSettings) -> None:
        self.translator = translator
        self.settings = settings

    @torch.inference_mode()
    def sample(
        self,
        source: Tensor,
        clinical: Tensor | None,
        *,
        direction: Direction = Direction.MRI_TO_PET,
        generator: torch.Generator,
    ) -> Tensor:
        """Sample the other modality of a volume.

        Parameters
        ----------
        source
            (D, H, W) in [-1, 1].
        clinical
            (K,) standardised clinical vector, or None.
        generator
            For the one noise volume.

        Returns
        -------
        Tensor
            (D, H, W) float32 in network units.
        """
        starts, weights, conditionings = self._prepare(source, direction)
        noise = torch.randn(source.shape, generator=generator, device=source.device)

        def predict(x: Tensor, timestep: int) -> Tensor:
            slabs = []
            for conditioning, batch in zip(conditionings, self._batches(x, starts), strict=True):
                t = torch.full((len(batch),), timestep, device=x.device)
                given = None if clinical is None else clinical.expand(len(batch), -1)
                with self.translator.autocast():
                    slabs.append(
                        self.translator.network.denoise(batch, t, conditioning, given, direction=direction)
                    )
            return fuse(torch.cat(slabs).float(), starts, weights)

        schedule = self.translator.schedule
        timesteps = schedule.sampling_timesteps(self.settings.steps).tolist()
        return ddim(predict, noise, timesteps, schedule=schedule)

    @torch.inference_mode()
    def preview(self, source: Tensor, *, direction: Direction = Direction.MRI_TO_PET) -> Tensor:
        """Return the conditioner's own prediction, one pass: (D, H, W) to (D, H, W)."""
        starts, weights, conditionings = self._prepare(source, direction)
        return fuse(torch.cat([c.preview for c in conditionings]).float(), starts, weights)

    def _prepare(self, source: Tensor, direction: Direction) -> tuple[list[int], Tensor, list[Conditioning]]:
        """Read the source once: its features serve every step."""
        network = self.translator.network
        slices, length = len(source), network.settings.slab_slices
        starts = slab_starts(slices, length, self.settings.hop)
        weights = torch.from_numpy(fusion_weights(slices, length, starts)).to(source.device)
        with self.translator.autocast():
            conditionings = [
                network.condition(batch, direction=direction) for batch in self._batches(source, starts)
            ]
        return starts, weights, conditionings

    def _batches(self, volume: Tensor, starts: list[int]) -> list[Tensor]:
        length, size = self.translator.network.settings.slab_slices, self.settings.batch_slabs
        slabs = torch.stack([volume[s : s + length] for s in starts])  # (N, S, H, W)
        slabs = slabs.contiguous(memory_format=torch.channels_last)
        return list(slabs.split(size))


def fuse(slabs: Tensor, starts: list[int], weights: Tensor) -> Tensor:
    """Weighted sum of slabs (N, S, H, W) into a volume (D, H, W)."""
    length = slabs.shape[1]
    volume = slabs.new_zeros(starts[-1] + length, *slabs.shape[2:])
    for slab, start, weight in zip(slabs, starts, weights, strict=True):
        volume[start : start + length] += weight[:, None, None] * slab
    return volume
