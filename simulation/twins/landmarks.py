# SPDX-License-Identifier: Apache-2.0
"""Where the template's structures lie in a twin: the truth that a registration is measured against."""

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import METAROI_REGIONS, reference_mask, region_masks
from simulation.twins.fields import Floats, sample_rows

_STEPS = 30


def locate(points: NDArray[np.float64], positions: Floats, grid: Grid) -> NDArray[np.float64]:
    """Return where points of the template lie in a twin, (N, 3), by fixed-point iteration.

    Parameters
    ----------
    points
        MNI mm of the template, (N, 3).
    positions
        Of the twin: MNI mm of the template for every voxel of `grid`, (x, y, z, 3).
    """
    wanted = np.asarray(points, np.float32)
    found = wanted.copy()
    for _ in range(_STEPS):
        index = (found - np.asarray(grid.origin, np.float32)) / np.float32(grid.spacing)
        found += 0.8 * (wanted - sample_rows(positions, index))
    return found.astype(np.float64)


def landmarks(positions: Floats, grid: Grid) -> dict[str, list[float]]:
    """Return where the centre of each MetaROI region lies in a twin, MNI mm."""
    centres = np.array([region.centre for region in METAROI_REGIONS])
    found = locate(centres, positions, grid)
    return {region.name: place.tolist() for region, place in zip(METAROI_REGIONS, found, strict=True)}


def anatomical_suvr(pet: Floats, positions: Floats, grid: Grid) -> dict[str, float]:
    """Return the SUVR of each MetaROI region as it lies in a twin, to its own pons and vermis."""
    reference = _mean(pet, reference_mask(grid), positions, grid)
    return {n: _mean(pet, mask, positions, grid) / reference for n, mask in region_masks(grid).items()}


def _mean(pet: Floats, mask: NDArray[np.bool_], positions: Floats, grid: Grid) -> float:
    points = locate(grid.coordinates()[mask].astype(np.float64), positions, grid)
    index = (points - np.asarray(grid.origin)) / grid.spacing
    return float(sample_rows(pet[..., None], index.astype(np.float32)).mean(dtype=np.float64))
