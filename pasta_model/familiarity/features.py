# SPDX-License-Identifier: Apache-2.0
"""An MRI in a few numbers that a person can explain: whether it is whole, sharp, upright, a T1 of a brain.

Each feature is a logarithm, log odds or a distance, so that over many scans it is about normal. None needs a
network, a PET or a diagnosis. Shapes: a crop is (x, y, z), or (z, x, y) in the network's order; k features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Template, template_of
from pasta_model.data.scaling import MRI_ROBUST_LEVEL, mri_scale
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.familiarity import measures
from pasta_model.familiarity.measures import Head

LEAST_BRAIN = 1000  # voxels


@dataclass(frozen=True)
class Feature:
    """One number of an MRI.

    Attributes
    ----------
    name, label
        In a table; in a sentence ("sharpness from foot to head").
    low, high
        What may be wrong where it is far below, or above, what the federation has.
    least
        Smallest standard deviation that is believed: one of a few alike scans says nothing.
    of
        From a head to the number.
    """

    name: str
    label: str
    low: str
    high: str
    least: float
    of: Callable[[Head], float]


FEATURES: tuple[Feature, ...] = (
    Feature(
        "volume",
        "brain volume",
        "cut off or wrong scale",
        "wrong scale or skull left on",
        0.02,
        measures.volume,
    ),
    Feature(
        "csf",
        "share of dark voxels",
        "another contrast",
        "atrophy or another contrast",
        0.05,
        measures.dark_share,
    ),
    Feature(
        "grey",
        "grey beside white matter",
        "strong contrast",
        "weak or inverted contrast",
        0.01,
        partial(measures.quantile_ratio, low=0.3, high=0.8),
    ),
    Feature(
        "bright",
        "glare of the brightest voxels",
        "clipped intensities",
        "bright spots",
        0.1,
        measures.glare,
    ),
    Feature("entropy", "number of shades", "few shades", "noise or another contrast", 0.02, measures.entropy),
    *(
        Feature(
            f"sharpness_{axis}",
            f"sharpness {way}",
            "blur, motion or thick slices",
            "noise, ringing or ghosts",
            0.02,
            partial(measures.sharpness, axis=number),
        )
        for number, (axis, way) in enumerate(
            (("x", "from left to right"), ("y", "from back to front"), ("z", "from foot to head"))
        )
    ),
    Feature("noise", "noise", "smoothed", "noise", 0.05, measures.noise),
    Feature("shading", "shading", "no bias field", "strong bias field", 0.1, measures.shading),
    Feature(
        "asymmetry",
        "asymmetry",
        "unusually alike sides",
        "turned, lopsided or a lesion",
        0.05,
        measures.asymmetry,
    ),
    Feature(
        "match",
        "likeness to the MNI152 template",
        "not a T1 in MNI space",
        "the template itself",
        0.05,
        measures.match,
    ),
    Feature(
        "overlap",
        "overlap with the MNI152 brain",
        "moved, cut off or wrong scale",
        "the template itself",
        0.1,
        measures.overlap,
    ),
    *(
        Feature(
            f"shift_{axis}", f"position {way}", "moved", "moved", 0.2, partial(measures.shift, axis=number)
        )
        for number, (axis, way) in enumerate(
            (("x", "from left to right"), ("y", "from back to front"), ("z", "from foot to head"))
        )
    ),
    Feature("flat_end", "size of its last slice", "unusual", "cut off", 0.02, measures.flat_end),
    Feature(
        "shortfall",
        "distance of its end from the template's",
        "large head",
        "cut off or moved",
        0.2,
        measures.shortfall,
    ),
    Feature("ripple", "ripple", "unusual", "ghosts or motion", 0.2, measures.ripple),
)
NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
COUNT = len(FEATURES)


def features_of(mri: Volume) -> NDArray[np.float64]:
    """Return the features of an MRI file's volume, (k,).

    Parameters
    ----------
    mri
        Skull-stripped, on the head grid of a template.

    Raises
    ------
    VolumeError
        When it lies on another grid, is not finite, or has no brain.
    """
    grid = template_of(mri.data.shape, mri.affine)
    if not np.isfinite(mri.data).all():
        raise VolumeError("the MRI holds NaN or infinity; wanted finite intensities")
    crop = grid.to_network(mri_scale(mri.data).to_network(mri.data))
    return features_of_crop(crop, grid)


def features_of_crop(crop: NDArray[np.floating], grid: Template) -> NDArray[np.float64]:
    """Return the features of an MRI as a store keeps it, (k,): the same as of the file it is from.

    Parameters
    ----------
    crop
        (z, x, y) in the network's units, background -1.

    Raises
    ------
    VolumeError
        When there are too few voxels above the background to be a brain.
    """
    kept = np.moveaxis(crop, 0, 2).astype(np.float16).astype(np.float32)  # a store's precision
    brightness = np.maximum((kept + 1.0) / (MRI_ROBUST_LEVEL + 1.0), 0.0, dtype=np.float32)
    voxels = int(np.count_nonzero(brightness))
    if voxels < LEAST_BRAIN:
        raise VolumeError(
            f"the MRI has {voxels} voxels of brain, wanted at least {LEAST_BRAIN}; is it empty?"
        )
    head = Head(np.ascontiguousarray(brightness), grid.crop)
    return np.array([feature.of(head) for feature in FEATURES], dtype=np.float64)
