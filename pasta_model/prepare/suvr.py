# SPDX-License-Identifier: Apache-2.0
"""A PET in MNI space to SUVR: divided by its mean in a reference region that the disease spares."""

import numpy as np

from dataclasses import replace

from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import reference_mask
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError


def to_suvr(pet: Volume, *, grid: Grid, reference: str) -> tuple[Volume, float]:
    """Return a PET in SUVR and the uptake that was divided by, in the PET's unit.

    Parameters
    ----------
    pet
        On `grid`, any unit that is linear in activity.
    reference
        Name of a region of `data.metaroi.reference_mask`.

    Raises
    ------
    VolumeError
        When the reference region has no uptake, or lies outside the PET's field of view.
    """
    inside = pet.data[reference_mask(grid, reference)]
    empty = float(np.mean(inside <= 0))
    if empty > 0.1:
        raise VolumeError(
            f"{100 * empty:.0f} % of the reference region {reference} has no uptake, wanted at most 10 %:"
            " the PET's field of view ends above it, or it is not in place; choose another reference region"
        )
    uptake = float(inside.mean(dtype=np.float64))
    return replace(pet, data=(pet.data / np.float32(uptake)).astype(np.float32), unit="SUVR"), uptake
