# SPDX-License-Identifier: Apache-2.0
"""Stereotactic surface projections: what lies under the brain's surface, in the eight views.

After Minoshima et al. 1995 (J Nucl Med 36:1238-1248): from each point of the surface of a standard brain,
along its normal inwards to a depth of 13.5 mm, the extreme value is taken, so that thin cortex is found
wherever it lies in a person. Their z scores compare the projections; here the z map itself is projected.

Shapes: a projection is (rows, columns), from the bottom of the picture upwards, pixels of 1 mm.
"""

from typing import Literal

import numpy as np
from scipy import ndimage

from pasta_model.data.volume import Volume
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms.resolution import Floats
from pasta_model.norms.surface import VIEWS, Surface, View, surface

DEPTH = 13.5
"""mm below the surface that are searched: six pixels of 2.25 mm, Minoshima et al. 1995."""
STEP = 1.5  # mm

Take = Literal["lowest", "highest", "mean"]
_BEST = {"lowest": np.min, "highest": np.max}


def project(volume: Volume, *, take: Take = "lowest", depth: float = DEPTH) -> dict[str, Floats]:
    """Project a volume on the surface of the template's brain.

    Parameters
    ----------
    volume
        In MNI space on any grid, 0 outside the brain: a z map, or a PET in SUVR.
    take
        Of the values below a point: "lowest" for hypometabolism in a z map, "highest" for a PET, or the
        "mean" of those that are not 0.
    depth
        How deep to look, in mm; 0 takes the surface itself.

    Returns
    -------
    dict
        View -> projection in the volume's unit; NaN where the view sees no brain.

    Raises
    ------
    VolumeError
        When the volume is not finite.
    ConfigError
        When the depth is not from 0 to 50 mm.
    """
    if not np.isfinite(volume.data).all():
        raise VolumeError("the volume to project has voxels that are NaN or infinite; wanted none")
    if not 0 <= depth <= 50:
        raise ConfigError(f"found a depth of {depth} mm, wanted 0 to 50")
    return {view.name: _project(volume, surface(view), take, depth) for view in VIEWS}


def _project(volume: Volume, seen: Surface, take: Take, depth: float) -> Floats:
    where = seen.seen
    found = np.full(where.shape, np.nan, np.float32)
    values = _sample(volume, seen, depth)
    if take == "mean":
        found[where] = values.sum(0) / np.maximum((values != 0).sum(0), 1)
    else:
        found[where] = _BEST[take](values, axis=0)
    return found


def _sample(volume: Volume, seen: Surface, depth: float) -> Floats:
    """Return the values below each point that is seen, (depths, points)."""
    points, normals = seen.points[seen.seen], seen.normals[seen.seen]
    depths = np.append(np.arange(0, depth, STEP), depth)[:, None, None]
    to_index = np.linalg.inv(volume.affine)
    index = (points + depths * normals) @ to_index[:3, :3].T + to_index[:3, 3]
    found: Floats = ndimage.map_coordinates(
        np.asarray(volume.data, np.float32), np.moveaxis(index, -1, 0), order=1, mode="constant", cval=0.0
    )
    return found


__all__ = ["DEPTH", "VIEWS", "View", "project"]
