# SPDX-License-Identifier: Apache-2.0
"""The anatomy of one person: a base anatomy, deformed, aged and shrunk by the disease.

Positions say where a voxel of the person samples the base anatomy (pull-back).
Shapes: voxel arrays (x, y, z); lattice vector fields (i, j, k, 3) in mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from simulation.twins.anatomy import CHANNELS, FLUID_T1, Anatomy
from simulation.twins.clinic import Person
from simulation.twins.fields import (
    LATTICE,
    Floats,
    blur,
    exponential,
    jacobian,
    sample_rows,
    smooth_noise,
    smooth_vectors,
    to_grid,
)

# Individual anatomy: (FWHM in mm, rms in mm) of the control points of the velocity.
_WARPS = ((45.0, 2.2), (22.0, 1.4), (12.0, 0.9))
_SYMMETRIC = 0.6  # share of the warp that is the same on both sides
_LOWEST_JACOBIAN = 0.02  # volume sampled per volume of voxel; 0 would be a fold


@dataclass(frozen=True)
class Brain:
    """One person's anatomy.

    Attributes
    ----------
    maps
        Channel name to (x, y, z): those of `CHANNELS`, after deformation and thinning.
    inside
        Brain with its fluid, (x, y, z).
    pattern
        Local strength of the disease, about 1, shared by MRI and PET, on the lattice (i, j, k).
    positions
        MNI mm of the base anatomy for every voxel, (x, y, z, 3).
    lowest_jacobian
        Smallest determinant of the deformation; > 0 means no folding.
    """

    grid: Grid
    maps: dict[str, Floats]
    inside: NDArray[np.bool_]
    pattern: Floats
    positions: Floats
    lowest_jacobian: float

    def millilitres(self, fraction: Floats) -> float:
        """Volume of a fraction map."""
        return float(fraction.sum(dtype=np.float64) * self.grid.spacing**3 / 1000.0)

    @property
    def hippocampus_ml(self) -> float:
        """Grey matter of both hippocampi in MNI space, ml."""
        return self.millilitres(self.maps["hippocampus"] * self.maps["grey"])

    @property
    def ventricles_ml(self) -> float:
        """Fluid of the ventricles in MNI space, ml."""
        return self.millilitres(self.maps["ventricles"])


def build_brain(rng: np.random.Generator, person: Person, *, anatomy: Anatomy) -> Brain:
    """Deform a base anatomy into a person's brain."""
    positions, lowest = _positions(rng, person, anatomy=anatomy)
    pattern = _disease_pattern(rng, person)
    thickness = 1.0 + 0.25 * smooth_noise(rng, fwhm=22.0)
    maps = _warp(anatomy, positions)
    _thin_cortex(maps, person, pattern=pattern, thickness=thickness, anatomy=anatomy)
    inside = maps["grey"] + maps["white"] + maps["csf"] > 0.35
    return Brain(anatomy.grid, maps, inside, pattern, positions, lowest)


def _positions(rng: np.random.Generator, person: Person, *, anatomy: Anatomy) -> tuple[Floats, float]:
    """MNI mm of the base anatomy for every voxel, (x, y, z, 3), and the lowest Jacobian there.

    A deformation that comes near folding is weakened until it does not.
    """
    velocity = _individual_velocity(rng)
    velocity = velocity + person.ventricles * anatomy.ventricle_push
    for amount, pull in zip(person.hippocampus, anatomy.hippocampus_pull, strict=True):
        velocity = velocity + amount * pull
    matrix = np.eye(3) + rng.normal(0, 0.012, (3, 3)) + np.diag(rng.normal(0, 0.02, 3))
    affine = _affine(anatomy.grid.coordinates(), matrix, rng.normal(0, 0.35, 3))
    while True:
        positions = affine + to_grid(exponential(velocity), anatomy.grid)
        lowest = float(jacobian(positions, spacing=anatomy.grid.spacing).min())
        if lowest > _LOWEST_JACOBIAN:
            return positions, lowest
        velocity = velocity * np.float32(0.9)


def _individual_velocity(rng: np.random.Generator) -> Floats:
    """Smooth random velocity, partly the same on both sides, mm on the lattice."""
    parts = [smooth_vectors(rng, fwhm=fwhm, rms=rms) for fwhm, rms in _WARPS]
    velocity: Floats = np.sum(parts, axis=0, dtype=np.float32)
    mirror = velocity[::-1] * np.array([-1, 1, 1], np.float32)
    mixed: Floats = _SYMMETRIC * velocity + (1 - _SYMMETRIC) * mirror
    return mixed


def _affine(points: Floats, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Floats:
    """Apply the residual of an imperfect affine registration about the origin."""
    x, y, z = (points[..., axis] for axis in range(3))
    rows = [
        np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2]) * z + np.float32(offset)
        for row, offset in zip(matrix, shift, strict=True)
    ]
    return np.stack(rows, axis=-1)


def _disease_pattern(rng: np.random.Generator, person: Person) -> Floats:
    """Local strength of the disease on the lattice: one side more, one lobe more; (i, j, k)."""
    side = np.tanh(LATTICE.coordinates()[..., 0] / 6.0)
    patches = np.clip(1.0 + 0.2 * smooth_noise(rng, fwhm=35.0), 0.4, 1.6)
    pattern: Floats = ((1.0 + person.asymmetry * side) * patches).astype(np.float32)
    return pattern


def _warp(anatomy: Anatomy, positions: Floats) -> dict[str, Floats]:
    """Sample every channel of the base anatomy at the person's positions."""
    grid = anatomy.grid
    where = positions.reshape(-1, 3)[anatomy.domain]
    index = (where - np.asarray(grid.origin, np.float32)) / np.float32(grid.spacing)
    rows = sample_rows(anatomy.maps, index)
    maps = {}
    for column, name in enumerate(CHANNELS):
        full = np.zeros(int(np.prod(grid.shape)), dtype=np.float32)
        full[anatomy.domain] = rows[:, column]
        maps[name] = full.reshape(grid.shape)
    return maps


def _thin_cortex(
    maps: dict[str, Floats], person: Person, *, pattern: Floats, thickness: Floats, anatomy: Anatomy
) -> None:
    """Turn outer grey matter into fluid: with age everywhere, with the disease by its map."""
    grid = anatomy.grid
    outer = np.clip(1.0 - blur(maps["white"], fwhm=4.0, spacing=grid.spacing), 0, 1)
    disease = 0.45 * person.atrophy * maps["atrophy"] * to_grid(pattern, grid)
    amount = (0.20 * person.thinning + disease) * np.clip(to_grid(thickness, grid), 0.4, 1.8)
    lost = maps["grey"] * np.clip(amount * outer, 0, 0.75)
    maps["grey"] -= lost
    maps["csf"] += lost
    maps["t1"] += lost * np.float32(FLUID_T1 - anatomy.grey_t1)
