# SPDX-License-Identifier: Apache-2.0
"""Where a head lies in a scanner, what box of it is scanned, and how a scanner's file says so.

Matrices are (4, 4) and map mm to mm, or voxel indices to mm where they are called an affine.
Shapes: scans (x, y, z) or (x, y, z, frame).
"""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pasta_model.data.grid import Grid
from pasta_model.files import atomic_path
from simulation.twins.fields import Floats

Matrix = NDArray[np.float64]
Triple = tuple[float, float, float]

_PIVOT = np.array([0.0, -18.0, 0.0])  # middle of a head, MNI mm
_OFF_CENTRE = 4.0  # mm at most between the middle of a field of view and what it should show


class View(NamedTuple):
    """A field of view: its voxels, and where they lie in the scanner."""

    shape: tuple[int, int, int]
    affine: Matrix


def turned(angles: ArrayLike) -> Matrix:
    """Rotation about x, y and z in degrees, (3, 3)."""
    rotation = Rotation.from_euler("xyz", np.asarray(angles, dtype=np.float64), degrees=True)
    matrix: Matrix = np.asarray(rotation.as_matrix(), dtype=np.float64)
    return matrix


def shift(move: ArrayLike) -> Matrix:
    """Return the matrix of a shift along x, y and z in mm."""
    matrix = np.eye(4)
    matrix[:3, 3] = move
    return matrix


def draw_pose(rng: np.random.Generator, *, rotation: float, reach: float, scale: float = 1.0) -> Matrix:
    """Draw how a head lies: MNI mm to mm of the scanner.

    Parameters
    ----------
    rotation, reach
        Largest angle about, and shift along, each axis; degrees and mm.
    scale
        Size of the head relative to MNI.
    """
    pose = np.eye(4)
    pose[:3, :3] = scale * turned(rng.uniform(-rotation, rotation, 3))
    pose[:3, 3] = _PIVOT + rng.uniform(-reach, reach, 3) - pose[:3, :3] @ _PIVOT
    return pose


def aim(
    rng: np.random.Generator,
    pose: Matrix,
    *,
    size: Triple,
    voxel: Triple,
    at: Triple,
    tilt: ArrayLike = (0, 0, 0),
) -> View:
    """Lay a box over a head, as a technologist does.

    Parameters
    ----------
    size, voxel
        Of the box and its voxels in mm, to the right, the front and the top.
    at
        What lies in the middle, MNI mm.
    tilt
        Angles of the box in the scanner, degrees; zeros for a box that is not oblique.
    """
    x, y, z = (round(length / edge) for length, edge in zip(size, voxel, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = turned(tilt) @ np.diag(voxel)
    middle = apply(pose, at) + rng.uniform(-_OFF_CENTRE, _OFF_CENTRE, 3)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
    return View((x, y, z), affine)


def apply(matrix: ArrayLike, points: ArrayLike) -> Matrix:
    """Map points of mm, (..., 3)."""
    linear = np.asarray(matrix, dtype=np.float64)
    mapped: Matrix = np.asarray(points, dtype=np.float64) @ linear[:3, :3].T + linear[:3, 3]
    return mapped


def sample(data: Floats, grid: Grid, *, pose: Matrix, view: View) -> Floats:
    """Scan a map of a head by cubic splines; the neck goes on where the map ends."""
    index = np.linalg.inv(pose @ grid.affine) @ view.affine  # voxel of the scan to voxel of the map
    out: Floats = ndimage.affine_transform(
        data, index[:3, :3], index[:3, 3], output_shape=view.shape, order=3, mode="nearest"
    )
    return out


def save_scan(
    path: Path, data: NDArray[Any], affine: Matrix, *, orientation: str, description: str, step: float = 0.0
) -> None:
    """Write a scan as a scanner would: 16-bit integers, sform and qform alike in its own space.

    Parameters
    ----------
    data
        In RAS+ order. Integers are kept; floats get a common factor in the header.
    orientation
        Axis codes of the file, such as "LAS".
    step
        Seconds from frame to frame.
    """
    ras = nib.Nifti1Image(data, affine)
    axes = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    image = ras.as_reoriented(axes)
    image.set_data_dtype(np.int16)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header["pixdim"][4] = step
    image.header["descrip"] = description.encode()
    with atomic_path(path) as temporary:
        payload = image.to_bytes()
        if path.name.endswith(".gz"):
            payload = gzip.compress(payload, compresslevel=4, mtime=0)
        temporary.write_bytes(payload)
