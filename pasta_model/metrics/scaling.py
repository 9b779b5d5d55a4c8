# SPDX-License-Identifier: Apache-2.0
"""The published intensity scale of a PET, to [0, 1] by its own range: for comparison with the paper only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import VolumeError

Array = NDArray[Any]


def own_range_scaled(volume: Array, *, name: str = "PET") -> NDArray[np.float64]:
    """Scale a volume to [0, 1] by its own minimum and maximum, as the published loader does.

    What it destroys: the unit. Real and synthetic PET are divided by two different numbers, so that a
    synthetic PET that is 20 % too low everywhere has no error at all; one hot voxel of either rescales
    its whole volume; and the errors of two subjects are of different size. Errors on this scale can be laid
    beside the paper's, and say nothing of metabolism.

    Parameters
    ----------
    volume
        (x, y, z), SUVR.
    name
        What a message calls it.

    Raises
    ------
    VolumeError
        When the volume is constant.
    """
    low, high = float(volume.min()), float(volume.max())
    if not high > low:
        raise VolumeError(f"the {name} is constant ({low:g}): it has no range to be scaled by")
    scaled: NDArray[np.float64] = (volume.astype(np.float64) - low) / (high - low)
    return scaled
