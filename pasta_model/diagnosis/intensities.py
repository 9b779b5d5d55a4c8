# SPDX-License-Identifier: Apache-2.0
"""Scans as the network sees them: standardised voxel by voxel, by mean and spread of the training fold.

Shapes: a scan is (z, x, y); N scans.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Template
from pasta_model.prepare.template import template_brain

Floats = NDArray[np.float32]
LEAST_SPREAD = 0.5  # of the median spread of a brain's voxels: what hardly varies is not blown up


@dataclass(frozen=True, eq=False)
class Standard:
    """What a scan is compared with.

    Attributes
    ----------
    mean, factor
        (z, x, y): a scan becomes (scan - mean) * factor; `factor` is 0 outside the brain.
    """

    mean: Floats
    factor: Floats


def brain_of(template: Template) -> NDArray[np.bool_]:
    """Return the brain of MNI152, (z, x, y): the same voxels of everybody, so that no outline tells."""
    brain: NDArray[np.bool_] = template.to_network(template_brain(template.head).mask)
    return brain


def standard_of(scans: Iterable[NDArray[np.float16]], brain: NDArray[np.bool_]) -> Standard:
    """Mean and spread of each voxel over the training scans, one scan in memory at a time."""
    total, squares, count = np.zeros(brain.shape), np.zeros(brain.shape), 0
    for scan in scans:
        values = scan.astype(np.float64)
        total, squares, count = total + values, squares + values**2, count + 1
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    least = LEAST_SPREAD * float(np.median(spread[brain]))
    factor = np.where(brain, 1.0 / np.maximum(spread, least or 1.0), 0.0)
    return Standard(mean.astype(np.float32), factor.astype(np.float32))
