# SPDX-License-Identifier: Apache-2.0
"""The classical reader: a few regional means of a scan, into a logistic regression.

Of a PET: mean SUVR of the five MetaROI regions (Landau et al. 2011). Of an MRI: how much of a region is
tissue, and how bright it is. These are proxies of volumes, not volumes: the regions are fixed in MNI space
(gyri of the atlas that ships, ellipsoids for hippocampus and ventricles, which it lacks) and nothing is
segmented; where the brain shrinks, fluid comes into them.
Shapes: a scan is (z, x, y), as the network sees it; N scans, F features, C classes.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pasta_model.data.atlas import load_atlas
from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import Region, region_map
from pasta_model.diagnosis.inputs import MRI
from pasta_model.errors import VolumeError
from pasta_model.metrics.regions import metaroi_suvr

Floats = NDArray[np.float32]
Features = NDArray[np.float64]
TISSUE = 0.6  # of the brain's median: fluid is darker in a T1, grey and white matter brighter
ELLIPSOIDS = (  # centres and half-axes in MNI mm, drawn around the organ
    Region("hippocampus_left", (-27.0, -21.0, -14.0), (8.0, 18.0, 9.0)),
    Region("hippocampus_right", (27.0, -21.0, -14.0), (8.0, 18.0, 9.0)),
    Region("ventricle_left", (-13.0, -14.0, 16.0), (11.0, 36.0, 15.0)),
    Region("ventricle_right", (13.0, -14.0, 16.0), (11.0, 36.0, 15.0)),
)
_GYRI = {
    "temporal": ("middletemporal", "inferiortemporal"),
    "parietal": ("inferiorparietal", "supramarginal"),
    "medial_parietal": ("isthmuscingulate", "posteriorcingulate", "precuneus"),
}


def regional_measures(scan: Floats, *, kind: str, grid: Grid) -> dict[str, float]:
    """Return the measures of one scan by name.

    Parameters
    ----------
    scan
        (z, x, y), in SUVR, or an MRI with 0 outside the brain.
    kind
        "MRI", or any other name: a PET.
    grid
        Where the voxels lie, (x, y, z) in MNI mm.

    Raises
    ------
    VolumeError
        When a PET is not finite in a region, or an MRI has no brain.
    """
    volume = np.moveaxis(np.asarray(scan, np.float32), 0, 2)
    return mri_measures(volume, grid=grid) if kind == MRI else metaroi_suvr(volume, grid=grid)


def mri_measures(mri: Floats, *, grid: Grid) -> dict[str, float]:
    """Measure each region of a skull-stripped MRI, (x, y, z).

    Returns
    -------
    dict
        "<region>_tissue": share of the region's voxels above 0.6 of the brain's median; outside the brain
        nothing is tissue. "<region>_level": mean of the region, as a share of that median.

    Raises
    ------
    VolumeError
        When no voxel is above 0.
    """
    brain = mri[mri > 0]
    if not brain.size:
        raise VolumeError("the MRI has no voxel above zero; wanted a brain on a zero background")
    relative = mri / float(np.median(brain))
    found = {}
    for name, mask in _mri_regions(grid).items():
        inside = relative[mask]
        found[f"{name}_tissue"] = float((inside > TISSUE).mean())
        found[f"{name}_level"] = float(inside.mean(dtype=np.float64))
    return found


def read_regions(
    train: Features, labels: NDArray[np.intp], test: Mapping[str, Features], *, penalty: float
) -> dict[str, Features]:
    """Train a logistic regression, and read the held-out scans of one or several inputs.

    Features are standardised by mean and spread of the training rows; L2 with a fixed C (no inner choice),
    classes weighted so that each counts the same.

    Parameters
    ----------
    train
        (N, F) features, `labels` (N,) from 0 to C - 1, each there.
    test
        Input name to (M, F).
    penalty
        C, the inverse strength of L2.

    Returns
    -------
    dict
        Input name to (M, C) probabilities.
    """
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)
    )
    model.fit(train, labels)
    return {name: np.asarray(model.predict_proba(rows), np.float64) for name, rows in test.items()}


@lru_cache(maxsize=4)
def _mri_regions(grid: Grid) -> dict[str, NDArray[np.bool_]]:
    regions = {region.name: region_map(grid, region) > 0.5 for region in ELLIPSOIDS}
    for name, gyri in _GYRI.items():
        for side in ("left", "right"):
            regions[f"{name}_{side}"] = _parcels(grid, *(f"{gyrus}_{side}" for gyrus in gyri))
    missing = [name for name, mask in regions.items() if not mask.any()]
    if missing:
        raise VolumeError(f"the grid has no voxel in {', '.join(missing)}: is the MRI in MNI space?")
    return regions


def _parcels(grid: Grid, *names: str) -> NDArray[np.bool_]:
    """Return where parcels of the atlas lie on a grid, (x, y, z)."""
    atlas = load_atlas()
    index = np.moveaxis(grid.coordinates() - atlas.origin.astype(np.float32), -1, 0)
    share = ndimage.map_coordinates(atlas.mask(*names).astype(np.float32), index, order=1)
    return np.asarray(share >= 0.5)
