# SPDX-License-Identifier: Apache-2.0
"""Whether a synthetic PET has the grain of a real one: roughness across slices and power by frequency.

Voxel errors reward blur; these do not. Shapes: a volume is (x, y, z) in SUVR, a mask likewise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import VolumeError

Array = NDArray[Any]
Mask = NDArray[np.bool_]

ACROSS = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The axis of (x, y, z) that counts the slices of a plane."""


def roughness(suvr: Array, *, mask: Mask, axis: int = 2) -> float:
    """Root mean square of the second difference along an axis in the brain, in SUVR.

    Slabs that disagree leave steps between slices, which raise it; averaging many lowers it below the
    real PET's.

    Parameters
    ----------
    axis
        Across which slices; 2 for axial ones.

    Raises
    ------
    VolumeError
        When the brain has no three neighbours along the axis.
    """
    v, inside = np.moveaxis(suvr.astype(np.float64), axis, 0), np.moveaxis(mask, axis, 0)
    within = inside[:-2] & inside[1:-1] & inside[2:]
    if not within.any():
        raise VolumeError("the brain mask has no three neighbouring voxels; is it the right mask?")
    bend = (v[:-2] - 2 * v[1:-1] + v[2:])[within]
    return float(np.sqrt(np.mean(bend**2)))


def power_spectrum(suvr: Array, *, mask: Mask, shells: int = 24) -> NDArray[np.float64]:
    """Power of the brain by spatial frequency, averaged over directions, (shells,).

    Shells are equally wide, from above 0 (the mean is left out) to half a cycle a voxel (Nyquist).

    Raises
    ------
    VolumeError
        When a side is shorter than two voxels a shell, so that a shell would be empty.
    """
    if min(suvr.shape) < 2 * shells:
        raise VolumeError(f"a volume of {suvr.shape} voxels has fewer than {shells} frequencies; wanted more")
    brain = np.where(mask, suvr, 0).astype(np.float64)
    power = np.abs(np.fft.fftn(brain)) ** 2
    frequencies = np.meshgrid(*(np.fft.fftfreq(n) for n in brain.shape), indexing="ij")
    radius = np.sqrt(np.sum(np.square(frequencies), axis=0))
    shell = np.ceil(np.round(radius * 2 * shells, 9)).astype(int).ravel() - 1
    counted = (shell >= 0) & (shell < shells)
    sums = np.bincount(shell[counted], power.ravel()[counted], minlength=shells)
    return sums / np.bincount(shell[counted], minlength=shells)


def spectrum_distance(real: Array, synthetic: Array, *, mask: Mask, shells: int = 24) -> float:
    """Root mean square difference of two power spectra over all shells, in dB; 0 for equal ones."""
    floor = np.finfo(np.float64).tiny
    spectra = [power_spectrum(v, mask=mask, shells=shells) for v in (real, synthetic)]
    first, second = (10 * np.log10(np.maximum(power, floor)) for power in spectra)
    return float(np.sqrt(np.mean((first - second) ** 2)))
