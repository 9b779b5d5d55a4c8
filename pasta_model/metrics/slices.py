# SPDX-License-Identifier: Apache-2.0
"""How near a synthetic PET is to the real one, slice by slice, as papers on 2D networks report it.

Shapes: a volume is (x, y, z); a mask has the same shape and is True in the brain. A slice counts with its
background, which is easy to get right: numbers look better than those inside the brain.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.metrics.similarity import check_pair, check_range
from pasta_model.metrics.windows import inner, ssim_map

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def slice_errors(real: Array, synthetic: Array, *, mask: Mask, data_range: float) -> Mapping[str, float]:
    """Errors of each axial slice that contains brain, averaged over slices.

    Parameters
    ----------
    real, synthetic
        (x, y, z), both in SUVR or both in [0, 1].
    mask
        (x, y, z): a slice with one voxel of it counts.
    data_range
        Peak of the PSNR, in the unit of the volumes.

    Returns
    -------
    mapping
        "mae", "mse" and "psnr" (dB). A slice that is equal in both, such as an empty one at the end of the
        brain, has no finite PSNR and does not count in that mean; infinite when all are equal.

    Raises
    ------
    VolumeError
        When the volumes cannot be compared.
    """
    check_range(data_range)
    first, second = _slices(real, synthetic, mask)
    error = second - first
    square = np.mean(error**2, axis=(0, 1))
    differ = square[square > 0]
    psnr = 20 * np.log10(data_range) - 10 * np.log10(differ)
    return {
        "mae": float(np.mean(np.abs(error))),
        "mse": float(np.mean(square)),
        "psnr": float(np.mean(psnr)) if differ.size else math.inf,
    }


def slice_ssim(real: Array, synthetic: Array, *, mask: Mask, data_range: float) -> float:
    """Structural similarity in 2D of each axial slice that contains brain, averaged over slices.

    Of each slice it is averaged where the whole Gaussian window lies in the slice, as scikit-image does.

    Parameters
    ----------
    real, synthetic, mask
        As of `slice_errors`.
    data_range
        The range L of the constants, in the unit of the volumes.

    Raises
    ------
    VolumeError
        When the volumes cannot be compared, or a slice is narrower than the window.
    """
    check_range(data_range)
    first, second = _slices(real, synthetic, mask)
    fits = inner(first.shape, axes=(0, 1))
    return float(np.mean(ssim_map(first, second, data_range=data_range, axes=(0, 1))[fits]))


def _slices(real: Array, synthetic: Array, mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    check_pair(real, synthetic, mask)
    chosen = mask.any(axis=(0, 1))
    return real[:, :, chosen].astype(np.float64), synthetic[:, :, chosen].astype(np.float64)
