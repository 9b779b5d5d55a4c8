# SPDX-License-Identifier: Apache-2.0
"""A source volume as the conditioner reads it: slab by slab, once where memory allows.

Shapes: a volume (D, H, W), axial slices first; N slabs of S slices, (N, S, H', W') in their plane.
"""

import torch
from torch import Tensor

from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.fusion import cut, from_plane, fuse, fusion_weights, slab_starts, to_plane
from pasta_model.errors import VolumeError
from pasta_model.network.dual_arm import Conditioning, Direction
from pasta_model.sections import SamplingSettings


class SourceSlabs:
    """A source volume in slabs of one plane, read by the conditioner once where memory allows.

    Parameters
    ----------
    source
        (D, H, W) in [-1, 1].
    budget
        Bytes of features that may be kept; slabs beyond them are read again when asked for.

    Raises
    ------
    VolumeError
        When the volume is thinner than a slab, or its slices do not fit the network.
    """

    def __init__(
        self,
        translator: Translator,
        source: Tensor,
        *,
        plane: str,
        direction: Direction,
        settings: SamplingSettings,
        budget: float,
    ) -> None:
        self._translator = translator
        self._direction = direction
        self.plane = plane
        self.volume_shape = source.shape
        self._slices = translator.network.settings.slab_slices
        turned = to_plane(source, plane)
        multiple = translator.network.settings.resolved.pixel_multiple
        if any(side % multiple for side in turned.shape[1:]):
            raise VolumeError(
                f"{plane} slices of {tuple(turned.shape[1:])} pixels; both must be multiples of {multiple}"
            )
        self.starts = slab_starts(len(turned), self._slices, settings.hop)
        weights = fusion_weights(len(turned), self._slices, self.starts)
        self._weights = torch.from_numpy(weights).to(source.device)
        self._size = settings.batch_slabs
        self._batches = self._split(self.of(source))
        self._kept: dict[int, Conditioning] = {}
        self.kept_bytes = 0
        self.previews = torch.cat([self._first_look(i, budget) for i in range(len(self._batches))])

    def _first_look(self, number: int, budget: float) -> Tensor:
        read = self._read(number)
        if self.kept_bytes + bytes_of(read) <= budget:
            self._kept[number] = read
            self.kept_bytes += bytes_of(read)
        return read.preview.float()

    def _read(self, number: int) -> Conditioning:
        with self._translator.autocast():
            return self._translator.network.condition(self._batches[number], direction=self._direction)

    def of(self, volume: Tensor) -> Tensor:
        """Cut a volume (D, H, W) into the slabs of this plane, (N, S, H', W')."""
        return cut(to_plane(volume, self.plane), self.starts, self._slices)

    def _split(self, slabs: Tensor) -> list[Tensor]:
        """Split slabs into the batches that the network is given."""
        return list(slabs.contiguous(memory_format=self._translator.memory_format).split(self._size))

    def denoise(self, noised: Tensor, shown: int, clinical: Tensor | None) -> Tensor:
        """Predict x_0 of slabs (N, S, H', W') float32; `shown` is the timestep that the network is told."""
        predicted = []
        for number, batch in enumerate(self._split(noised)):
            read = self._kept.get(number) or self._read(number)
            timesteps = torch.full((len(batch),), shown, device=batch.device)
            given = None if clinical is None else clinical.expand(len(batch), -1)
            with self._translator.autocast():
                x0 = self._translator.network.denoise(
                    batch, timesteps, read, given, direction=self._direction
                )
            predicted.append(x0.float())
        return torch.cat(predicted)

    def fused(self, slabs: Tensor) -> Tensor:
        """Fuse slabs into a volume (D, H, W), axial slices first."""
        return from_plane(fuse(slabs, self.starts, self._weights), self.plane)


def bytes_of(conditioning: Conditioning) -> int:
    """Bytes of the maps that a conditioner returned."""
    return sum(t.nbytes for t in (*conditioning.features, conditioning.preview))
