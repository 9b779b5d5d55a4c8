# SPDX-License-Identifier: Apache-2.0
"""Is hypometabolism kept, smoothed away or invented? Synthetic z maps laid on real ones.

Hypometabolism is where z is below a threshold. A cluster is a part of it, connected by faces, of at least
0.5 ml; a cluster meets the other map when at least a tenth of its voxels are hypometabolic there too, at the
same threshold: one voxel that touches is chance.

Shapes: volumes are (x, y, z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms.resolution import Mask

THRESHOLDS = (-1.65, -2.0, -2.58, -3.0)
"""z of one-sided p = 0.05, 0.023, 0.005 and 0.0013 in a healthy person's voxel."""
SMALLEST_CLUSTER_ML = 0.5
SHARED = 0.1  # of a cluster's voxels

Zs = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SubjectOverlap:
    """Hypometabolism of one real PET and one synthetic one, below one threshold.

    Attributes
    ----------
    person, diagnosis, method
        Whose it is, and who made the synthetic PET.
    real_ml, synthetic_ml, shared_ml
        Volume in the real map, the synthetic one, and both.
    real_clusters, kept_clusters
        Clusters of the real map, and those of them that meet the synthetic one.
    synthetic_clusters, true_clusters
        Clusters of the synthetic map, and those of them that meet the real one; the others are invented.
    """

    person: str
    diagnosis: str
    method: str
    threshold: float
    real_ml: float
    synthetic_ml: float
    shared_ml: float
    real_clusters: int
    kept_clusters: int
    synthetic_clusters: int
    true_clusters: int

    @property
    def invented_ml(self) -> float:
        """Volume in the synthetic map and not in the real one."""
        return self.synthetic_ml - self.shared_ml

    @property
    def lost_ml(self) -> float:
        """Volume in the real map and not in the synthetic one."""
        return self.real_ml - self.shared_ml

    @property
    def invented_clusters(self) -> int:
        """Clusters of the synthetic map that do not meet the real one."""
        return self.synthetic_clusters - self.true_clusters

    @property
    def dice(self) -> float | None:
        """Twice the shared volume over the sum of both; None when both maps are empty."""
        return _share(2 * self.shared_ml, self.real_ml + self.synthetic_ml)

    @property
    def sensitivity(self) -> float | None:
        """Share of the real hypometabolism that the synthetic map shows; None where there is none."""
        return _share(self.shared_ml, self.real_ml)

    @property
    def precision(self) -> float | None:
        """Share of the synthetic hypometabolism that is real; None where there is none."""
        return _share(self.shared_ml, self.synthetic_ml)


def overlap_of(
    z_real: Zs,
    z_synthetic: Zs,
    *,
    brain: Mask,
    spacing: float,
    thresholds: Sequence[float] = THRESHOLDS,
    person: str = "",
    diagnosis: str = "",
    method: str = "",
) -> list[SubjectOverlap]:
    """Compare the hypometabolism of a synthetic PET with that of the real one, a row a threshold.

    Parameters
    ----------
    z_real, z_synthetic
        z maps of one person, (x, y, z).
    brain
        Where to look: the norms' brain, or the grey matter in it.
    spacing
        Of the voxels, in mm.
    thresholds
        Below 0.

    Raises
    ------
    VolumeError
        When the maps are of different shape or not finite, or the mask misses the brain.
    ConfigError
        When a threshold is not below 0, or the spacing not above.
    """
    _check(z_real, z_synthetic, brain)
    if not thresholds or max(thresholds) >= 0 or spacing <= 0:
        raise ConfigError(
            f"found thresholds {list(thresholds)} and spacing {spacing}, wanted z below 0, mm above 0"
        )
    ml = spacing**3 / 1000.0
    rows = []
    for threshold in thresholds:
        real, synthetic = (brain & (z < threshold) for z in (z_real, z_synthetic))
        kept, true = _clusters(real, synthetic, ml), _clusters(synthetic, real, ml)
        rows.append(
            SubjectOverlap(
                person=person,
                diagnosis=diagnosis,
                method=method,
                threshold=threshold,
                real_ml=float(real.sum()) * ml,
                synthetic_ml=float(synthetic.sum()) * ml,
                shared_ml=float((real & synthetic).sum()) * ml,
                real_clusters=kept.found,
                kept_clusters=kept.meeting,
                synthetic_clusters=true.found,
                true_clusters=true.meeting,
            )
        )
    return rows


class _Clusters(NamedTuple):
    found: int
    meeting: int


def _clusters(own: Mask, other: Mask, ml: float) -> _Clusters:
    """Count the clusters of a map, and those that meet the other map."""
    labels, count = ndimage.label(own)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    shared = np.bincount(labels[other].ravel(), minlength=count + 1)[1:]
    large = sizes * ml >= SMALLEST_CLUSTER_ML - 1e-9
    return _Clusters(int(large.sum()), int((large & (shared >= SHARED * sizes)).sum()))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _check(z_real: Zs, z_synthetic: Zs, brain: Mask) -> None:
    if z_real.ndim != 3 or not z_real.shape == z_synthetic.shape == brain.shape:
        raise VolumeError(
            f"cannot compare: real z map {z_real.shape}, synthetic z map {z_synthetic.shape} and mask"
            f" {brain.shape} must have one 3D shape; make both maps with the same norms"
        )
    for name, z in (("real", z_real), ("synthetic", z_synthetic)):
        bad = int(z.size - np.isfinite(z).sum())
        if bad:
            raise VolumeError(f"the {name} z map has {bad} voxels that are NaN or infinite; wanted none")
        if brain.dtype == np.bool_ and brain.any() and not z[brain].any():
            raise VolumeError(
                f"the {name} z map is 0 in the whole mask: does the mask lie in the norms' brain?"
            )
    if brain.dtype != np.bool_ or not brain.any():
        raise VolumeError(
            f"the mask must be boolean and not empty, found {brain.dtype} with {int(brain.sum())} voxels"
        )
