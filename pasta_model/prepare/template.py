# SPDX-License-Identifier: Apache-2.0
"""The MNI152 template that scans are registered to: ICBM152 2009a symmetric, as nilearn ships it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid

NAME = "ICBM152 2009a nonlinear symmetric (nilearn)"
_FILE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class TemplateBrain:
    """The template's skull-stripped T1 and its brain mask, (x, y, z) on `grid`."""

    grid: Grid
    t1: NDArray[np.float32]
    mask: NDArray[np.bool_]


@lru_cache(maxsize=4)
def template_brain(grid: Grid) -> TemplateBrain:
    """Return the template on a grid, smoothed against aliasing."""
    image = nib.as_closest_canonical(nib.load(Path(nilearn.__file__).parent / "datasets" / "data" / _FILE))
    whole = np.asarray(image.dataobj, dtype=np.float32)
    voxel = float(image.affine[0, 0])
    offset = (np.asarray(grid.origin) - image.affine[:3, 3]) / voxel
    step = np.eye(3) * (grid.spacing / voxel)
    lost = max((grid.spacing / voxel) ** 2 - 1.0, 0.0) ** 0.5
    t1, inside = (
        ndimage.affine_transform(
            ndimage.gaussian_filter(volume, 0.35 * lost, truncate=3.0),
            step,
            offset,
            output_shape=grid.shape,
            order=1,
        )
        for volume in (whole, ndimage.binary_fill_holes(whole > 0).astype(np.float32))
    )
    for array in (t1, inside):
        array.flags.writeable = False
    return TemplateBrain(grid, t1, inside > 0.5)
