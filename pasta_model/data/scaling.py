# SPDX-License-Identifier: Apache-2.0
"""File intensities <-> the network's [-1, 1], linear and invertible.

A PET has one fixed scale for everybody, so that SUVR means the same in each subject and site: SUVR 0
is -1, `PET_SUVR_RANGE` is +1, nothing is clipped. An MRI has arbitrary units, so each volume brings
its own scale: 0 is -1, its robust maximum is `MRI_ROBUST_LEVEL`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import VolumeError

PET_SUVR_RANGE = 3.0  # SUVR at +1; FDG of grey matter is 1 to 2
MRI_ROBUST_QUANTILE = 0.99  # of the brain's voxels
MRI_ROBUST_LEVEL = 0.8  # where that quantile lands in [-1, 1]


@dataclass(frozen=True)
class Scale:
    """The linear map x = intensity / full * 2 - 1; `full` in file units lands on +1."""

    full: float

    def to_network(self, intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """File units to network units."""
        return (intensity * np.float32(2.0 / self.full) - np.float32(1.0)).astype(np.float32)

    def to_file(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network units to file units."""
        return ((value + np.float32(1.0)) * np.float32(self.full / 2.0)).astype(np.float32)


PET_SCALE = Scale(PET_SUVR_RANGE)


def mri_scale(intensity: NDArray[np.float32]) -> Scale:
    """Scale of a skull-stripped MRI from its own brain voxels (intensity > 0).

    Raises
    ------
    VolumeError
        When the volume has no positive voxel.
    """
    brain = intensity[intensity > 0]
    if not brain.size:
        raise VolumeError("the MRI has no voxel above zero; wanted a brain on a zero background")
    robust = float(np.quantile(brain, MRI_ROBUST_QUANTILE))
    return Scale(robust * 2.0 / (MRI_ROBUST_LEVEL + 1.0))
