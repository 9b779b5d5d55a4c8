# SPDX-License-Identifier: Apache-2.0
"""Geometry of slabs in a volume: turned to a plane, where they lie, how they are weighted.

Shapes: a volume (D, H, W) lies as (z, x, y), axial slices first; N slabs of S slices.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pasta_model.data.planes import SLICE_AXIS
from pasta_model.errors import ConfigError, VolumeError


def to_plane(volume: Tensor, plane: str) -> Tensor:
    """View a volume (D, H, W) with the slices of a plane first."""
    return volume.movedim(SLICE_AXIS[plane], 0)


def from_plane(volume: Tensor, plane: str) -> Tensor:
    """Undo `to_plane`."""
    return volume.movedim(0, SLICE_AXIS[plane])


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


def fusion_weights(slices: int, slab_slices: int, starts: Sequence[int]) -> NDArray[np.float32]:
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


def cut(volume: Tensor, starts: Sequence[int], slab_slices: int) -> Tensor:
    """Cut slabs (N, S, H, W) out of a volume (D, H, W)."""
    return torch.stack([volume[start : start + slab_slices] for start in starts])


def fuse(slabs: Tensor, starts: Sequence[int], weights: Tensor) -> Tensor:
    """Weighted sum of slabs (N, S, H, W) into a volume (D, H, W)."""
    length = slabs.shape[1]
    volume = slabs.new_zeros(starts[-1] + length, *slabs.shape[2:])
    for slab, start, weight in zip(slabs, starts, weights, strict=True):
        volume[start : start + length] += weight[:, None, None] * slab
    return volume
