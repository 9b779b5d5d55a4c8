# SPDX-License-Identifier: Apache-2.0
"""How near a synthetic PET is to the real one, voxel by voxel, inside the brain or over the volume.

Shapes: a volume is (x, y, z) in SUVR; a mask has the same shape and is True in the brain.
Nothing outside the mask counts, in any of the metrics; without a mask every voxel does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.errors import VolumeError
from pasta_model.metrics.windows import inner, ssim_map

Array = NDArray[Any]
Mask = NDArray[np.bool_]

SUVR_RANGE = 3.0
"""Width of the fixed SUVR range 0 to 3 in which PETs are scaled; the data range of PSNR and SSIM."""

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


def mae(real: Array, synthetic: Array, *, mask: Mask | None = None) -> float:
    """Mean absolute error, in SUVR.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain; None for the whole volume.
    """
    return float(np.mean(np.abs(_errors(real, synthetic, mask))))


def mse(real: Array, synthetic: Array, *, mask: Mask | None = None) -> float:
    """Mean square error, in SUVR squared.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain; None for the whole volume.
    """
    return float(np.mean(np.square(_errors(real, synthetic, mask))))


def psnr(real: Array, synthetic: Array, *, mask: Mask | None = None, data_range: float) -> float:
    """Peak signal-to-noise ratio, in dB; infinite when the volumes are equal.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain; None for the whole volume.
    data_range
        The peak, in SUVR: a constant of the study, never the maximum of one scan, so that
        subjects can be compared.
    """
    mean_square = mse(real, synthetic, mask=mask)
    check_range(data_range)
    if mean_square == 0.0:
        return float("inf")
    return float(20.0 * np.log10(data_range) - 10.0 * np.log10(mean_square))


def ssim(real: Array, synthetic: Array, *, mask: Mask | None = None, data_range: float) -> float:
    """Structural similarity in 3D, its map averaged; at most 1.

    The window is the Gaussian of Wang et al. 2004 (sigma 1.5, 11 voxels wide). Voxels outside the mask
    are 0 in both volumes, as in a skull-stripped PET, so that a window at the surface of the brain sees
    nothing else. Without a mask the map is averaged where the whole window fits, as scikit-image does.

    Parameters
    ----------
    real, synthetic
        (x, y, z) in SUVR.
    mask
        (x, y, z), True in the brain; None for the whole volume.
    data_range
        The range L of the constants (0.01 L)^2 and (0.03 L)^2, in SUVR.
    """
    check_pair(real, synthetic, mask)
    check_range(data_range)
    axes = (0, 1, 2)
    if mask is None:
        fits = inner(real.shape, axes=axes)
        return float(ssim_map(synthetic, real, data_range=data_range, axes=axes)[fits].mean())
    box = _bounding_box(mask)
    inside = mask[box]
    pair = (np.where(inside, volume[box], 0) for volume in (synthetic, real))
    return float(ssim_map(*pair, data_range=data_range, axes=axes)[inside].mean())


def check_range(data_range: float) -> None:
    """Refuse a data range that is not a positive number."""
    if not (np.isfinite(data_range) and data_range > 0):
        raise VolumeError(f"the data range must be a positive SUVR, found {data_range}")


def check_pair(real: Array, synthetic: Array, mask: Mask | None) -> None:
    """Refuse volumes and a mask that cannot be compared.

    Raises
    ------
    VolumeError
        When they are not of one 3D shape, not finite, or the mask is not boolean or empty.
    """
    shapes = {real.shape, synthetic.shape} | ({mask.shape} if mask is not None else set())
    if real.ndim != 3 or len(shapes) > 1:
        third = f" and mask {mask.shape}" if mask is not None else ""
        raise VolumeError(
            f"cannot compare: real PET {real.shape}, synthetic PET {synthetic.shape}{third}"
            " must have one 3D shape; resample them to the same grid"
        )
    for name, volume in (("real", real), ("synthetic", synthetic)):
        bad = int(volume.size - np.isfinite(volume).sum())
        if bad:
            raise VolumeError(f"the {name} PET has {bad} voxels that are NaN or infinite; wanted none")
    if mask is not None and (mask.dtype != np.bool_ or not mask.any()):
        raise VolumeError(
            f"the brain mask must be boolean and not empty, found {mask.dtype} with {int(mask.sum())} voxels"
        )


def _errors(real: Array, synthetic: Array, mask: Mask | None) -> NDArray[np.float64]:
    check_pair(real, synthetic, mask)
    first, second = (v if mask is None else v[mask] for v in (real, synthetic))
    return np.asarray(second.astype(np.float64) - first.astype(np.float64))


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    a, b, c = ndimage.find_objects(mask.astype(np.uint8))[0]
    return a, b, c
