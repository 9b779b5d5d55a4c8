# SPDX-License-Identifier: Apache-2.0
"""Our own table of brain regions: where they lie and how they behave in FDG-PET and in disease.

No atlas file is shipped or read. A centre and a size are facts of anatomy, given here in MNI mm; the
border between two regions is the soft power diagram of their spheres. The three weights follow the
known pattern of Alzheimer's disease: posterior cingulate, precuneus and temporo-parietal cortex lose
metabolism first, the medial temporal lobe shrinks most, and the sensorimotor and primary visual cortex,
basal ganglia, cerebellum and brainstem are spared (Landau et al. 2011,
doi:10.1016/j.neurobiolaging.2009.07.002).

Shapes: P points, R regions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import Region, region_map

_SOFTNESS = 6.5  # mm: width of the border between two regions


class Weights(NamedTuple):
    """How a region behaves.

    Attributes
    ----------
    glucose
        Normal FDG uptake of its grey matter, 1 = average cortex.
    hypometabolism
        Share of the disease's loss of uptake, 0..1.
    atrophy
        Share of the disease's loss of grey matter, 0..1.
    """

    glucose: float
    hypometabolism: float
    atrophy: float


class Sphere(NamedTuple):
    """A region of the power diagram; one with x > 0 has a twin on the left.

    Attributes
    ----------
    centre
        MNI mm.
    radius
        mm.
    """

    name: str
    centre: tuple[float, float, float]
    radius: float
    weights: Weights


def _row(
    name: str, centre: tuple[float, float, float], radius: float, weights: tuple[float, float, float]
) -> Sphere:
    return Sphere(name, centre, radius, Weights(*weights))


SPHERES = (
    # frontal
    _row("precentral_dorsal", (32, -14, 58), 16, (1.00, 0.05, 0.08)),
    _row("precentral_ventral", (50, 0, 34), 14, (1.00, 0.08, 0.10)),
    _row("supplementary_motor", (7, 2, 60), 13, (1.02, 0.08, 0.12)),
    _row("superior_frontal_posterior", (22, 12, 55), 15, (1.00, 0.25, 0.22)),
    _row("superior_frontal_anterior", (20, 48, 26), 16, (1.00, 0.25, 0.22)),
    _row("superior_frontal_medial", (7, 48, 29), 14, (1.00, 0.25, 0.22)),
    _row("middle_frontal_posterior", (36, 18, 44), 14, (1.05, 0.40, 0.25)),
    _row("middle_frontal_anterior", (36, 44, 18), 15, (1.05, 0.40, 0.25)),
    _row("inferior_frontal_opercular", (49, 13, 18), 11, (1.00, 0.25, 0.22)),
    _row("inferior_frontal_triangular", (48, 29, 11), 13, (1.00, 0.25, 0.22)),
    _row("inferior_frontal_orbital", (43, 32, -9), 10, (0.97, 0.22, 0.22)),
    _row("orbitofrontal_medial", (6, 45, -13), 11, (0.95, 0.18, 0.22)),
    _row("orbitofrontal_lateral", (25, 36, -19), 13, (0.95, 0.18, 0.22)),
    _row("subcallosal", (8, 14, -13), 7, (0.80, 0.10, 0.25)),
    _row("insula_anterior", (36, 15, 0), 10, (0.95, 0.15, 0.30)),
    _row("insula_posterior", (38, -6, 4), 10, (0.95, 0.15, 0.30)),
    # cingulate and medial parietal
    _row("cingulate_anterior", (6, 34, 16), 12, (0.92, 0.12, 0.20)),
    _row("cingulate_middle", (6, -6, 40), 13, (1.00, 0.30, 0.22)),
    _row("cingulate_middle_posterior", (6, -30, 40), 11, (1.05, 0.60, 0.35)),
    _row("cingulate_posterior", (6, -46, 24), 12, (1.14, 1.00, 0.50)),
    _row("precuneus_dorsal", (9, -60, 52), 14, (1.12, 0.85, 0.40)),
    _row("precuneus_ventral", (9, -58, 32), 13, (1.14, 0.95, 0.45)),
    # lateral parietal
    _row("postcentral_dorsal", (30, -34, 60), 16, (1.00, 0.05, 0.08)),
    _row("postcentral_ventral", (52, -20, 38), 14, (1.00, 0.05, 0.08)),
    _row("paracentral", (7, -30, 66), 10, (1.00, 0.05, 0.08)),
    _row("rolandic_operculum", (50, -9, 13), 10, (1.00, 0.05, 0.08)),
    _row("superior_parietal", (25, -61, 59), 14, (1.00, 0.50, 0.30)),
    _row("inferior_parietal", (45, -48, 46), 14, (1.04, 0.90, 0.45)),
    _row("supramarginal", (58, -34, 31), 13, (1.00, 0.50, 0.35)),
    _row("angular", (46, -63, 36), 14, (1.06, 1.00, 0.50)),
    # occipital
    _row("cuneus", (9, -82, 26), 12, (1.08, 0.12, 0.10)),
    _row("calcarine", (10, -78, 6), 14, (1.14, 0.02, 0.08)),
    _row("lingual", (15, -69, -6), 14, (1.08, 0.12, 0.10)),
    _row("superior_occipital", (21, -85, 28), 11, (1.02, 0.35, 0.15)),
    _row("middle_occipital", (35, -82, 15), 14, (1.02, 0.35, 0.15)),
    _row("inferior_occipital", (37, -82, -10), 11, (1.02, 0.35, 0.15)),
    # temporal
    _row("heschl", (44, -20, 8), 8, (1.06, 0.15, 0.20)),
    _row("superior_temporal_anterior", (54, -6, -3), 11, (0.98, 0.30, 0.35)),
    _row("superior_temporal_posterior", (58, -34, 13), 12, (0.98, 0.45, 0.40)),
    _row("middle_temporal_anterior", (56, -14, -16), 11, (0.95, 0.70, 0.60)),
    _row("middle_temporal_posterior", (57, -50, 4), 14, (0.98, 0.85, 0.60)),
    _row("inferior_temporal_anterior", (49, -14, -32), 12, (0.91, 0.75, 0.60)),
    _row("inferior_temporal_posterior", (54, -44, -20), 14, (0.96, 0.92, 0.60)),
    _row("fusiform_anterior", (31, -25, -26), 11, (0.92, 0.45, 0.60)),
    _row("fusiform_posterior", (34, -56, -17), 12, (0.94, 0.50, 0.50)),
    _row("parahippocampal", (23, -16, -24), 10, (0.76, 0.50, 0.90)),
    _row("temporal_pole_superior", (42, 14, -22), 11, (0.76, 0.40, 0.60)),
    _row("temporal_pole_inferior", (40, 13, -35), 10, (0.74, 0.40, 0.60)),
    # below the tentorium: spared
    _row("cerebellum_lateral", (38, -69, -33), 18, (0.75, 0.00, 0.05)),
    _row("cerebellum_medial", (18, -50, -22), 14, (0.75, 0.00, 0.05)),
    _row("cerebellum_inferior", (20, -60, -48), 18, (0.75, 0.00, 0.05)),
    _row("vermis", (0, -60, -24), 13, (0.51, 0.00, 0.05)),
    _row("midbrain", (0, -24, -12), 10, (0.65, 0.00, 0.02)),
    _row("pons", (0, -27, -33), 14, (0.60, 0.00, 0.00)),
)


class Nucleus(NamedTuple):
    """A deep structure with a sharp border: an ellipsoid, mirrored to the left.

    Attributes
    ----------
    region
        On the right side, MNI mm.
    weights
        As of a sphere.
    grey
        Least share of grey matter inside, 0..1: T1 contrast understates it in deep nuclei.
    """

    region: Region
    weights: Weights
    grey: float


NUCLEI = (
    Nucleus(Region("thalamus", (11, -18, 7), (9, 13, 8)), Weights(1.02, 0.05, 0.15), 0.72),
    Nucleus(Region("caudate", (13, 13, 9), (5, 10, 9)), Weights(1.08, 0.00, 0.15), 0.70),
    Nucleus(Region("putamen", (26, 3, 1), (6, 14, 9)), Weights(1.14, 0.00, 0.10), 0.78),
    Nucleus(Region("amygdala", (24, -2, -19), (7, 8, 7)), Weights(0.68, 0.30, 0.90), 0.0),
)
HIPPOCAMPUS = Weights(0.72, 0.45, 1.00)
# Head to tail on the right side, MNI mm, and the radius in mm.
_HIPPOCAMPUS_AXIS = ((23.0, -10.0, -21.0), (29.0, -35.0, -4.0))
_HIPPOCAMPUS_RADIUS = 7.0
BRAINSTEM = (
    Region("pons", (0, -27, -33), (15, 12, 14)),
    Region("midbrain", (0, -24, -14), (12, 10, 9)),
    Region("medulla", (0, -38, -53), (9, 8, 14)),
)


def both_sides() -> tuple[Sphere, ...]:
    """Every sphere, with the left twins."""
    left = tuple(
        s._replace(name=f"{s.name}_left", centre=(-s.centre[0], s.centre[1], s.centre[2]))
        for s in SPHERES
        if s.centre[0] > 0
    )
    return SPHERES + left


def cortex_fields(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix the table's weights smoothly over space.

    A region's share at a point is the softmax of its negative power distance
    (d^2 - r^2) / (2 s^2) with the softness s.

    Parameters
    ----------
    points
        MNI mm, (P, 3).

    Returns
    -------
    ndarray
        glucose, hypometabolism, atrophy; (P, 3).
    """
    spheres = both_sides()
    logits = np.empty((len(points), len(spheres)), dtype=np.float64)  # (P, R)
    for column, sphere in enumerate(spheres):
        offset = points.astype(np.float64) - np.asarray(sphere.centre)
        power = np.square(offset).sum(axis=1) - sphere.radius**2
        logits[:, column] = -power / (2.0 * _SOFTNESS**2)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    table = np.asarray([sphere.weights for sphere in spheres])
    mixed = [(shares * table[:, k]).sum(axis=1) for k in range(table.shape[1])]
    return np.stack(mixed, axis=1).astype(np.float32)


def mirrored(region: Region) -> tuple[Region, Region]:
    """Left and right copies of a region given on the right."""
    x, y, z = region.centre
    return Region(f"{region.name}_left", (-x, y, z), region.radii), region


def nucleus_map(grid: Grid, region: Region) -> NDArray[np.float32]:
    """Soft membership of both copies of a deep structure, (x, y, z) in [0, 1]."""
    left, right = (region_map(grid, side, edge=1.2) for side in mirrored(region))
    return np.maximum(left, right)


def brainstem_map(grid: Grid) -> NDArray[np.float32]:
    """Soft membership of midbrain, pons and medulla, (x, y, z) in [0, 1]."""
    combined: NDArray[np.float32] = np.max(
        np.stack([region_map(grid, part, edge=2.0) for part in BRAINSTEM]), axis=0
    )
    return combined


def hippocampus_map(grid: Grid, *, side: int, edge: float = 1.2) -> NDArray[np.float32]:
    """Soft membership of one hippocampus, (x, y, z) in [0, 1]: a capsule from head to tail.

    Parameters
    ----------
    side
        -1 left, +1 right.
    edge
        Width of the border in mm.
    """
    mirror = np.array([side, 1.0, 1.0])
    head, tail = (np.asarray(end) * mirror for end in _HIPPOCAMPUS_AXIS)
    axis = tail - head
    offset = grid.coordinates().astype(np.float64) - head
    along = np.clip((offset * axis).sum(axis=-1) / (axis * axis).sum(), 0.0, 1.0)
    distance = np.linalg.norm(offset - along[..., None] * axis, axis=-1) - _HIPPOCAMPUS_RADIUS
    member: NDArray[np.float32] = (1.0 / (1.0 + np.exp(np.clip(distance / edge, -30, 30)))).astype(np.float32)
    return member


def hippocampus_centre(*, side: int) -> NDArray[np.float32]:
    """Middle of one hippocampus, MNI mm, (3,)."""
    middle = np.mean(np.asarray(_HIPPOCAMPUS_AXIS), axis=0)
    centre: NDArray[np.float32] = (middle * np.array([side, 1.0, 1.0])).astype(np.float32)
    return centre
