# SPDX-License-Identifier: Apache-2.0
"""Smooth random fields and warps on a coarse lattice, and their use on the voxel grid.

Everything smooth in a twin lives on one lattice of 6 mm whatever the spacing of the scan: the same
person at 1.5 mm and at 3 mm has the same anatomy, and a warp costs little. No linear algebra library
is called, so that the result does not depend on its number of threads.

Shapes: lattice fields (i, j, k); vector fields (i, j, k, 3) in mm; voxel arrays (x, y, z).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid

Floats = NDArray[np.float32]

LATTICE = Grid((30, 36, 30), (-87.0, -123.0, -75.0), 6.0)
FWHM = 2.3548200450309493  # of a Gaussian of standard deviation 1
_SQUARINGS = 7


def blur(data: Floats, *, fwhm: float, spacing: float) -> Floats:
    """Gaussian blur of `fwhm` mm; nothing lies outside the box."""
    if fwhm <= 0:
        return data
    blurred: Floats = ndimage.gaussian_filter(data, fwhm / FWHM / spacing, mode="constant", truncate=3.0)
    return blurred


def smooth_noise(rng: np.random.Generator, *, fwhm: float) -> Floats:
    """Draw a smooth field of standard deviation 1 on the lattice, (i, j, k)."""
    white = rng.standard_normal(LATTICE.shape, dtype=np.float32)
    smooth: Floats = ndimage.gaussian_filter(white, fwhm / FWHM / LATTICE.spacing, mode="wrap")
    unit: Floats = smooth / smooth.std()
    return unit


def smooth_vectors(rng: np.random.Generator, *, fwhm: float, rms: float) -> Floats:
    """Draw a smooth vector field with `rms` mm along each axis, (i, j, k, 3)."""
    return rms * np.stack([smooth_noise(rng, fwhm=fwhm) for _ in range(3)], axis=-1)


def to_grid(field: Floats, grid: Grid) -> Floats:
    """Spread lattice values (i, j, k, ...) over a grid by cubic B-splines, (x, y, z, ...)."""
    out = field
    for axis in range(3):
        out = _spread(out, grid, axis=axis)
    return out


def _spread(field: Floats, grid: Grid, *, axis: int) -> Floats:
    """Evaluate the B-spline along one axis: four neighbours a voxel."""
    where = grid.origin[axis] + grid.spacing * np.arange(grid.shape[axis])
    index = (where - LATTICE.origin[axis]) / LATTICE.spacing
    first = np.floor(index).astype(np.int64)
    t = index - first
    taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    broadcast = tuple(-1 if a == axis else 1 for a in range(field.ndim))
    last = field.shape[axis] - 1
    parts = [
        np.take(field, np.clip(first + shift, 0, last), axis=axis)
        * (tap / 6.0).astype(np.float32).reshape(broadcast)
        for shift, tap in enumerate(taps, start=-1)
    ]
    total: Floats = parts[0] + parts[1] + parts[2] + parts[3]
    return total


def sample_rows(maps: Floats, points: Floats) -> Floats:
    """Trilinear interpolation of all channels at once.

    Parameters
    ----------
    maps
        (x, y, z, C), channels last so that one voxel is one stretch of memory.
    points
        Voxel indices, (N, 3); points outside take the nearest border.

    Returns
    -------
    ndarray
        (N, C).
    """
    flat = maps.reshape(-1, maps.shape[3])
    strides = (maps.shape[1] * maps.shape[2], maps.shape[2], 1)
    corner = np.zeros(len(points), dtype=np.int64)
    fractions = []
    for axis, stride in enumerate(strides):
        inside = np.clip(points[:, axis], 0, maps.shape[axis] - 1.001)
        floor = inside.astype(np.int64)
        fractions.append((inside - floor).astype(np.float32))
        corner += floor * stride
    out = np.zeros((len(points), maps.shape[3]), dtype=np.float32)
    for bits in np.ndindex(2, 2, 2):
        weight = np.ones(len(points), dtype=np.float32)
        for fraction, bit in zip(fractions, bits, strict=True):
            weight *= fraction if bit else 1.0 - fraction
        step = sum(bit * stride for bit, stride in zip(bits, strides, strict=True))
        out += weight[:, None] * flat.take(corner + step, axis=0)
    return out


def exponential(velocity: Floats) -> Floats:
    """Integrate a stationary velocity field by scaling and squaring.

    Parameters
    ----------
    velocity
        mm on the lattice, (i, j, k, 3).

    Returns
    -------
    ndarray
        Displacement in mm, (i, j, k, 3); invertible when the step is small enough.
    """
    step = (velocity / (LATTICE.spacing * 2.0**_SQUARINGS)).reshape(-1, 3)
    nodes = np.stack(np.meshgrid(*map(np.arange, LATTICE.shape), indexing="ij"), axis=-1)
    nodes = nodes.reshape(-1, 3).astype(np.float32)
    for _ in range(_SQUARINGS):
        step = step + sample_rows(step.reshape(*LATTICE.shape, 3), nodes + step)
    return (step * LATTICE.spacing).reshape(*LATTICE.shape, 3)


def jacobian(positions: Floats, *, spacing: float) -> Floats:
    """Return the determinant of a map's derivative, (x, y, z): volume sampled per volume of voxel.

    Parameters
    ----------
    positions
        Where each voxel samples, mm, (x, y, z, 3).
    """
    rows = [np.gradient(positions[..., c], spacing) for c in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = rows
    determinant: Floats = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return determinant
