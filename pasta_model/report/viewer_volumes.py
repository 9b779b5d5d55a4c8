# SPDX-License-Identifier: Apache-2.0
"""Volumes as the viewer holds them: cropped to the brain's box, 256 steps, packed NIfTI in base64."""

import base64
import gzip
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.report.layers import BY_KEY, LAYERS, MRI, Layer

Array = NDArray[Any]
Box = tuple[slice, slice, slice]

MARGIN = 1  # voxels around the brain
MIDDLE = 128  # code of 0 where values have signs
BRIGHT = 99.5  # percentile of the MRI in the brain that is drawn white
_UNITS_MM = 2  # NIfTI: xyzt_units
_MNI = 4  # NIfTI: sform_code


def encode(volumes: Mapping[str, Volume], *, name: str) -> dict[str, str]:
    """Return the layers of a case as the page holds them, in the order of `LAYERS`.

    Parameters
    ----------
    volumes
        By key of a layer; all (x, y, z) on one grid, the MRI among them, 0 outside the brain.

    Raises
    ------
    VolumeError
        When the MRI is missing, a layer is unknown, grids differ, or values are not finite.
    """
    _check(volumes, name)
    box = brain_box(volumes[MRI].data)
    affine = volumes[MRI].affine.copy()
    affine[:3, 3] = (affine @ [*(side.start for side in box), 1.0])[:3]
    kept = [layer for layer in LAYERS if layer.key in volumes]
    return {layer.key: pack(volumes[layer.key].data[box], affine, layer) for layer in kept}


def brain_box(mri: Array) -> Box:
    """Return the box around what is not 0, with `MARGIN` voxels of air; everything where all is 0."""
    sides = []
    for axis in range(3):
        found = np.flatnonzero(mri.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = (int(found[0]), int(found[-1]) + 1) if found.size else (0, mri.shape[axis])
        sides.append(slice(max(0, low - MARGIN), min(mri.shape[axis], high + MARGIN)))
    return sides[0], sides[1], sides[2]


def window(mri: Array) -> tuple[float, float]:
    """Return black and white of an MRI, whose unit is arbitrary."""
    inside = mri[mri > 0]
    return (0.0, float(np.percentile(inside, BRIGHT))) if inside.size else (0.0, 1.0)


def pack(data: Array, affine: Array, layer: Layer) -> str:
    """Return one volume in 256 steps as base64 of a gzipped NIfTI; 0 stays exactly 0.

    In place of a voxel's code stands its difference from what its neighbours before it predict (the
    Lorenzo predictor, Ibarria et al. 2003, modulo 256): nothing is lost, and a third of the bytes is saved.
    `viewer.js` adds them up again; `unpack` does it here.
    """
    highest = MIDDLE - 1 if layer.signed else 255
    step = max(layer.step, float(np.abs(data).max()) / highest) or 1.0
    zero = MIDDLE if layer.signed else 0
    codes = np.clip(np.rint(data / step) + zero, 0, 255).astype(np.uint8)
    header = nib.Nifti1Header()
    header.set_data_shape(codes.shape)
    header.set_data_dtype(np.uint8)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=_MNI)
    header.set_qform(affine, code=_MNI)
    header["xyzt_units"] = _UNITS_MM
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = step, -zero * step
    for axis in range(3):
        codes = np.diff(codes, axis=axis, prepend=np.uint8(0))
    payload = bytes(header.binaryblock) + bytes(4) + codes.tobytes(order="F")
    return base64.b64encode(gzip.compress(payload, compresslevel=6, mtime=0)).decode("ascii")


def unpack(packed: str) -> bytes:
    """Return the NIfTI file that `pack` put away, as a viewer reads it."""
    payload = gzip.decompress(base64.b64decode(packed))
    shape = nib.Nifti1Header(payload[:348]).get_data_shape()
    codes = np.frombuffer(payload, np.uint8, offset=352).reshape(shape, order="F")
    for axis in range(3):
        codes = np.cumsum(codes, axis=axis, dtype=np.uint8)
    return payload[:352] + codes.tobytes(order="F")


def _check(volumes: Mapping[str, Volume], name: str) -> None:
    if MRI not in volumes:
        raise VolumeError(f"{name}: found layers {sorted(volumes)}, wanted the MRI ('{MRI}') among them")
    unknown = sorted(set(volumes) - set(BY_KEY))
    if unknown:
        raise VolumeError(f"{name}: unknown layers {unknown}; choose of {list(BY_KEY)}")
    base = volumes[MRI]
    for key, volume in volumes.items():
        same = np.allclose(volume.affine, base.affine, rtol=0, atol=1e-2)
        if volume.data.shape != base.data.shape or not same:
            raise VolumeError(
                f"{name}: layer '{key}' of {volume.data.shape} voxels does not lie on the grid of the MRI,"
                f" {base.data.shape} voxels; resample it first"
            )
        if not np.isfinite(volume.data).all():
            raise VolumeError(f"{name}: layer '{key}' holds NaN or infinity; say 0 where it is not defined")
