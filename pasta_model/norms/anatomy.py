# SPDX-License-Identifier: Apache-2.0
"""Where grey and white matter are in MNI space: the maps of ICBM152 2009a symmetric, with nilearn."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import nilearn
import numpy as np
from scipy import ndimage

from pasta_model.data.grid import Grid
from pasta_model.norms.resolution import Floats, Mask

LEAST_GREY = 0.3
_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_PAD = 6  # mm of empty space around the maps


class TissueMaps(NamedTuple):
    """Probabilities on voxels of 1 mm, (x, y, z) in [0, 1], and MNI mm of the first voxel; read-only."""

    grey: Floats
    white: Floats
    origin: tuple[float, float, float]


@lru_cache(maxsize=1)
def tissue_maps() -> TissueMaps:
    """Read the maps, once a process."""
    grey, white = (nib.as_closest_canonical(nib.load(_path(name))) for name in ("gm", "wm"))
    maps = [np.pad(np.asarray(m.dataobj, np.float32) / np.float32(255), _PAD) for m in (grey, white)]
    for data in maps:
        data.setflags(write=False)
    x, y, z = (float(v) - _PAD for v in grey.affine[:3, 3])
    return TissueMaps(maps[0], maps[1], (x, y, z))


def grey_matter(grid: Grid) -> Mask:
    """Return where the template's grey matter is on a grid: at least three tenths of a voxel, (x, y, z)."""
    return _grey_matter(grid).copy()


@lru_cache(maxsize=4)
def _grey_matter(grid: Grid) -> Mask:
    maps = tissue_maps()
    offset = np.asarray(grid.origin) - maps.origin
    lost = max(grid.spacing**2 - 1.0, 0.0) ** 0.5  # smoothed against aliasing, as `template_brain`
    smooth = ndimage.gaussian_filter(maps.grey, 0.35 * lost, truncate=3.0)
    found = ndimage.affine_transform(
        smooth, np.eye(3) * grid.spacing, offset, output_shape=grid.shape, order=1
    )
    return np.asarray(found >= LEAST_GREY)


def _path(tissue: str) -> Path:
    return Path(nilearn.__file__).parent / "datasets" / "data" / _FILE.format(tissue)
