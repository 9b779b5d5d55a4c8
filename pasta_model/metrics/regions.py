# SPDX-License-Identifier: Apache-2.0
"""The metabolism of the five MetaROI regions, and how far a synthetic PET misses it.

Shapes: a volume is (x, y, z) in SUVR on the grid that is passed with it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import region_masks
from pasta_model.errors import VolumeError

Array = NDArray[Any]


def metaroi_suvr(suvr: Array, *, grid: Grid) -> dict[str, float]:
    """Mean SUVR of each MetaROI region, by name.

    Parameters
    ----------
    suvr
        (x, y, z) in SUVR.
    grid
        Where the voxels of `suvr` lie, in MNI mm.

    Raises
    ------
    VolumeError
        When the volume is not on the grid, is not finite in a region, or misses one.
    """
    if suvr.shape != grid.shape:
        raise VolumeError(f"the PET has {suvr.shape} voxels and its grid {grid.shape}; wanted the same")
    means = {name: float(suvr[mask].mean(dtype=np.float64)) for name, mask in _masks(grid).items()}
    bad = [name for name, value in means.items() if not np.isfinite(value)]
    if bad:
        raise VolumeError(f"the PET is NaN or infinite in {', '.join(bad)}; wanted finite SUVR")
    return means


def composite(regions: Mapping[str, float]) -> float:
    """Mean of the regions, in SUVR; every region counts the same, whatever its size."""
    return float(np.mean(list(regions.values())))


def metaroi_error(real: Array, synthetic: Array, *, grid: Grid) -> float:
    """Absolute difference of the composite MetaROI SUVR, synthetic against real, in SUVR."""
    wanted = composite(metaroi_suvr(real, grid=grid))
    found = composite(metaroi_suvr(synthetic, grid=grid))
    return abs(found - wanted)


def metaroi_bias(real: Array, synthetic: Array, *, grid: Grid) -> dict[str, float]:
    """Signed difference by region, synthetic minus real, in SUVR."""
    wanted = metaroi_suvr(real, grid=grid)
    found = metaroi_suvr(synthetic, grid=grid)
    return {name: found[name] - wanted[name] for name in wanted}


@lru_cache(maxsize=8)
def _masks(grid: Grid) -> dict[str, NDArray[np.bool_]]:
    masks = region_masks(grid)
    missing = [name for name, mask in masks.items() if not mask.any()]
    if missing:
        raise VolumeError(f"the grid has no voxel in {', '.join(missing)}: is the volume in MNI space?")
    return masks
