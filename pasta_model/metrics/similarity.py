# SPDX-License-Identifier: Apache-2.0
"""How near a synthetic PET is to the real one, voxel by voxel, inside the brain.

Shapes: a volume is (x, y, z) in SUVR; a mask has the same shape and is True in the brain.
Nothing outside the mask counts, in any of the metrics.
"""

from typing import Any

import numpy as np
import torch
from monai.metrics.regression import compute_ssim_and_cs
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.errors import VolumeError

Array = NDArray[Any]
Mask = NDArray[np.bool_]

SUVR_RANGE = 3.0
"""Width of the fixed SUVR range 0 to 3 in which PETs are scaled; the data range of PSNR and SSIM."""

_SSIM_SIGMA = 1.5  # voxels, Wang et al. 2004
_SSIM_WIDTH = 11  # voxels, 3.5 sigma to each side
_LARGEST_BRAIN = 0.9  # of the grid; more is a volume with its background


def brain_mask(mri: Array) -> Mask:
    """Return where the brain is: the positive voxels of a skull-stripped MRI, without holes.

    Parameters
    ----------
    mri
        (x, y, z), arbitrary unit, 0 outside the brain.

    Returns
    -------
    Mask
        (x, y, z): closed by one voxel, the largest connected part, holes (dark ventricles) filled.

    Raises
    ------
    VolumeError
        When the MRI is not 3D, is not finite, is empty, or still has its background.
    """
    if mri.ndim != 3 or not np.isfinite(mri).all():
        raise VolumeError(f"an MRI must be 3D and finite to give a brain mask, found shape {mri.shape}")
    positive = np.pad(mri > 0, 2)
    parts, count = ndimage.label(ndimage.binary_closing(positive))
    if count == 0:
        raise VolumeError("the MRI has no voxel above 0, so there is no brain in it")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    mask: Mask = ndimage.binary_fill_holes(largest)[2:-2, 2:-2, 2:-2]
    if mask.mean() > _LARGEST_BRAIN:
        raise VolumeError(
            f"{mask.mean():.0%} of the MRI is above 0: its background is not 0; strip the skull first"
        )
    return mask


def mae(real: Array, synthetic: Array, *, mask: Mask) -> float:
    """Mean absolute error in the brain, in SUVR.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain.
    """
    _check(real, synthetic, mask)
    return float(np.mean(np.abs(_brain(synthetic, mask) - _brain(real, mask))))


def psnr(real: Array, synthetic: Array, *, mask: Mask, data_range: float) -> float:
    """Peak signal-to-noise ratio in the brain, in dB; infinite when the volumes are equal.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain.
    data_range
        The peak, in SUVR: a constant of the study, never the maximum of one scan, so that
        subjects can be compared.
    """
    _check(real, synthetic, mask)
    _check_range(data_range)
    mean_square = float(np.mean(np.square(_brain(synthetic, mask) - _brain(real, mask))))
    if mean_square == 0.0:
        return float("inf")
    return float(20.0 * np.log10(data_range) - 10.0 * np.log10(mean_square))


def ssim(real: Array, synthetic: Array, *, mask: Mask, data_range: float) -> float:
    """Structural similarity in 3D, its map averaged in the brain; at most 1.

    The map is MONAI's, with the Gaussian window of Wang et al. 2004 (sigma 1.5, 11 voxels wide).
    Voxels outside the mask are 0 in both volumes, as in a skull-stripped PET, so that a window at
    the surface of the brain sees nothing else.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain.
    data_range
        The range L of the constants (0.01 L)^2 and (0.03 L)^2, in SUVR.
    """
    _check(real, synthetic, mask)
    _check_range(data_range)
    inside = _bounding_box(mask)
    # MONAI returns the map only where the whole window fits: a margin of zeros keeps every voxel.
    pair = [np.pad(np.where(mask, v, 0)[inside], _SSIM_WIDTH // 2) for v in (synthetic, real)]
    first, second = (torch.from_numpy(v.astype(np.float32))[None, None] for v in pair)
    similarity, _ = compute_ssim_and_cs(
        first,
        second,
        spatial_dims=3,
        kernel_size=(_SSIM_WIDTH,) * 3,
        kernel_sigma=(_SSIM_SIGMA,) * 3,
        data_range=data_range,
    )
    return float(similarity[0, 0].double().numpy()[mask[inside]].mean())


def _brain(volume: Array, mask: Mask) -> NDArray[np.float64]:
    return volume[mask].astype(np.float64)


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    a, b, c = ndimage.find_objects(mask.astype(np.uint8))[0]
    return a, b, c


def _check_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise VolumeError(f"the data range must be a positive SUVR, found {data_range}")


def _check(real: Array, synthetic: Array, mask: Mask) -> None:
    if not real.ndim == 3 or not real.shape == synthetic.shape == mask.shape:
        raise VolumeError(
            f"cannot compare: real PET {real.shape}, synthetic PET {synthetic.shape} and mask"
            f" {mask.shape} must have one 3D shape; resample them to the same grid"
        )
    for name, volume in (("real", real), ("synthetic", synthetic)):
        bad = int(volume.size - np.isfinite(volume).sum())
        if bad:
            raise VolumeError(f"the {name} PET has {bad} voxels that are NaN or infinite; wanted none")
    if mask.dtype != np.bool_ or not mask.any():
        raise VolumeError(
            f"the brain mask must be boolean and not empty, found {mask.dtype} with {int(mask.sum())} voxels"
        )
