# SPDX-License-Identifier: Apache-2.0
"""The MetaROI map m in [0, 1]: where Alzheimer's disease lowers the metabolism.

Five regions after Landau et al. 2011: left and right angular gyrus, posterior cingulate, left and right
inferior temporal gyrus. Built from the centres of these gyri in MNI mm (facts, no atlas file needed), with
soft borders; users with Landau's own mask will want to use that.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pasta_model.data.grid import Grid


@dataclass(frozen=True)
class Region:
    """An ellipsoid: centre and half-axes in MNI mm."""

    name: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


METAROI_REGIONS = (
    Region("angular_left", (-46.0, -64.0, 37.0), (12.0, 12.0, 12.0)),
    Region("angular_right", (48.0, -60.0, 38.0), (12.0, 12.0, 12.0)),
    Region("posterior_cingulate", (0.0, -46.0, 24.0), (11.0, 11.0, 11.0)),
    Region("temporal_left", (-54.5, -36.0, -24.0), (12.0, 12.0, 12.0)),
    Region("temporal_right", (54.5, -36.0, -24.0), (12.0, 12.0, 12.0)),
)
REFERENCE_REGIONS = (
    Region("pons", (0.0, -27.0, -33.0), (11.0, 9.0, 12.0)),
    Region("vermis", (0.0, -62.0, -22.0), (6.0, 12.0, 12.0)),
)


def region_map(grid: Grid, region: Region, *, edge: float = 1.0) -> NDArray[np.float32]:
    """Soft membership of an ellipsoid, (x, y, z) in [0, 1]; 0.5 on its surface.

    Parameters
    ----------
    edge
        Width of the border in mm: the logistic scale of the signed distance.
    """
    offset = (grid.coordinates() - np.asarray(region.centre, np.float32)) / np.asarray(
        region.radii, np.float32
    )
    distance = (np.linalg.norm(offset, axis=-1) - 1.0) * float(np.mean(region.radii))
    soft: NDArray[np.float32] = np.asarray(expit(-distance / edge), np.float32)
    return soft


def metaroi_map(grid: Grid, *, edge: float = 1.5) -> NDArray[np.float32]:
    """Return the map m of the loss weight W = 1 + 9 m, (x, y, z) in [0, 1] (Li et al. 2026)."""
    maps = [region_map(grid, region, edge=edge) for region in METAROI_REGIONS]
    combined: NDArray[np.float32] = np.max(np.stack(maps), axis=0)
    return combined


def region_masks(grid: Grid) -> dict[str, NDArray[np.bool_]]:
    """Return the five MetaROI regions as masks, by name."""
    return {r.name: np.asarray(region_map(grid, r) > 0.5) for r in METAROI_REGIONS}


def reference_mask(grid: Grid) -> NDArray[np.bool_]:
    """Return pons and cerebellar vermis, the reference region of SUVR."""
    maps = [region_map(grid, region) > 0.5 for region in REFERENCE_REGIONS]
    reference: NDArray[np.bool_] = np.logical_or.reduce(maps)
    return reference
