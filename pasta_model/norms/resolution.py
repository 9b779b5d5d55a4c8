# SPDX-License-Identifier: Apache-2.0
"""PETs of any scanner on one grid at one resolution: the network's crop, smoothed inside the brain.

Shapes: (x, y, z) on the crop of a template; PETs in SUVR.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid, Template, template
from pasta_model.data.store import MAX_SUVR
from pasta_model.data.volume import Volume
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.prepare.template import template_brain

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

FWHM = 8.0
"""Common resolution in mm: what is added to every PET, whatever its scanner's own."""
LARGEST_FWHM = 30.0
EMPTY = 0.05  # SUVR; less is background, where no brain is given
SMALLEST_COVER = 0.6  # of the template's brain
_REACH = 0.02  # of a Gaussian's weight that must lie in the brain
_TOLERANCE = 1e-2  # mm


def check_fwhm(fwhm: float) -> None:
    """Refuse a resolution that makes no sense.

    Raises
    ------
    ConfigError
        Unless it is from 0 (PETs as they are) to 30 mm.
    """
    if not 0 <= fwhm <= LARGEST_FWHM:
        raise ConfigError(f"found a smoothing of {fwhm} mm, wanted 0 to {LARGEST_FWHM:g} mm (FWHM)")


def on_crop(volume: Volume, *, spacing: float) -> NDArray[np.float32]:
    """Return the part of a volume that the network sees, (x, y, z).

    Parameters
    ----------
    volume
        On the head grid or on the crop of the template of that spacing.

    Raises
    ------
    VolumeError
        When it lies on another grid.
    """
    known = template(spacing)
    if lies_on(volume, known.crop):
        return np.asarray(volume.data, np.float32)
    if lies_on(volume, known.head):
        return np.asarray(volume.data[known.slices], np.float32)
    raise VolumeError(_other_grid(volume, known))


def lies_on(volume: Volume, grid: Grid) -> bool:
    """Say whether a volume lies on a grid."""
    return volume.data.shape == grid.shape and np.allclose(
        volume.affine, grid.affine, rtol=0, atol=_TOLERANCE
    )


def check_suvr(pet: Volume) -> None:
    """Refuse what is no PET in SUVR.

    Raises
    ------
    VolumeError
        When the unit is another one, a voxel is not finite, or the values are far too high.
    """
    if pet.unit != "SUVR":
        raise VolumeError(f"the PET is in unit '{pet.unit}', wanted SUVR; norms are of SUVR only")
    bad = int(pet.data.size - np.isfinite(pet.data).sum())
    if bad:
        raise VolumeError(f"the PET has {bad} voxels that are NaN or infinite; wanted none")
    top = float(np.quantile(pet.data, 0.99))
    if top >= MAX_SUVR:
        raise VolumeError(f"the PET's 99th percentile is {top:g}, wanted below {MAX_SUVR:g}: is it in SUVR?")


def common_resolution(pet: Volume, *, spacing: float, fwhm: float, brain: Mask | None = None) -> Floats:
    """Bring a PET to the crop and smooth it inside the person's brain.

    Normalised convolution (Knutsson and Westin 1993): the Gaussian's weights outside the brain do not
    count, so that the rim is not dimmed by the empty space around it. Where the template's brain reaches
    beyond the person's (atrophy), the nearest value is taken.

    Parameters
    ----------
    pet
        SUVR, on the head grid or the crop.
    fwhm
        Of the Gaussian, mm; 0 leaves the PET as sharp as it is.
    brain
        The person's brain, on the PET's grid, from the MRI: what the PET shows outside is left out, and what
        it does not show inside counts as 0. By default the template's brain where there is uptake, which is
        less exact at the rim. Norms and the PETs that are compared with them should both have it, or neither.

    Returns
    -------
    Floats
        (x, y, z) on the crop; 0 outside the template's brain.

    Raises
    ------
    VolumeError
        When the PET is not in SUVR or on another grid, or covers too little of the brain.
    """
    check_suvr(pet)
    uptake = on_crop(pet, spacing=spacing)
    wanted = template_brain(template(spacing).crop).mask
    inside = (uptake > EMPTY) & wanted if brain is None else _brain_on_crop(brain, pet, spacing)
    sigma = fwhm / spacing / (8.0 * np.log(2.0)) ** 0.5
    weights = _blur(inside.astype(np.float32), sigma)
    near = weights >= _REACH
    cover = float(near[wanted].mean())
    if cover < SMALLEST_COVER:
        raise VolumeError(
            f"the PET covers {cover:.0%} of the template's brain, wanted at least {SMALLEST_COVER:.0%}; is it"
            " registered, and in SUVR?"
        )
    smooth = _blur(np.where(inside, uptake, 0), sigma) / np.maximum(weights, _REACH)
    return np.where(wanted, _nearest(smooth, near), 0).astype(np.float32)


def _blur(data: NDArray[Any], sigma: float) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(data.astype(np.float32), sigma, mode="constant", truncate=4.0)
    return blurred


def _nearest(data: Floats, known: Mask) -> Floats:
    """Fill what is not known with the nearest known value."""
    where: Any = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled: Floats = data[tuple(where)]
    return filled


def _brain_on_crop(brain: Mask, pet: Volume, spacing: float) -> Mask:
    if brain.shape != pet.data.shape or not brain.any():
        raise VolumeError(
            f"the brain has shape {brain.shape} and {int(brain.sum())} voxels; wanted a mask of the PET's"
            f" {pet.data.shape} voxels that is not empty"
        )
    return on_crop(Volume(brain.astype(np.float32), pet.affine), spacing=spacing) > 0


def _other_grid(volume: Volume, known: Template) -> str:
    origin = np.asarray(volume.affine)[:3, 3].round(2).tolist()
    step = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0).round(3).tolist()
    return (
        f"found {volume.data.shape} voxels of {step} mm from {origin}; the norms are on {known.name}:"
        f" {known.head.shape} voxels from {known.head.origin}, or its crop {known.crop.shape} from"
        f" {known.crop.origin}; register and resample the PET first"
    )
