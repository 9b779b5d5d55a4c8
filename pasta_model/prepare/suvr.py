# SPDX-License-Identifier: Apache-2.0
"""The unit of a PET: SUVR is uptake divided by its mean in a region that the disease spares."""

import numpy as np

from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import reference_mask, region_masks
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError

LARGEST_EMPTY = 0.1  # share of the reference region that may have no uptake


def reference_uptake(pet: Volume, *, grid: Grid, reference: str) -> float:
    """Return the mean uptake in the reference region, in the PET's own unit.

    Parameters
    ----------
    pet
        On the atlas, structure on structure; any unit that is linear in activity.
    reference
        Name of a region of `data.metaroi.reference_mask`.

    Raises
    ------
    VolumeError
        When the reference region lies outside the PET's field of view.
    """
    inside = pet.data[reference_mask(grid, reference)]
    empty = float(np.mean(inside <= 0))
    if empty > LARGEST_EMPTY:
        raise VolumeError(
            f"{100 * empty:.0f} % of the reference region {reference} has no uptake, wanted at most"
            f" {100 * LARGEST_EMPTY:.0f} %: the PET ends above it; choose another reference region"
        )
    return float(inside.mean(dtype=np.float64))


def region_suvr(pet: Volume, *, grid: Grid, uptake: float) -> dict[str, float]:
    """Return the mean SUVR of each MetaROI region of a PET on the atlas."""
    means = {name: float(pet.data[mask].mean(dtype=np.float64)) for name, mask in region_masks(grid).items()}
    return {name: mean / uptake for name, mean in means.items()}
