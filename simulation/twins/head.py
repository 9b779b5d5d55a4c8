# SPDX-License-Identifier: Apache-2.0
"""A plausible head around a twin's brain: fluid, skull, scalp, face and neck, for the MRI and the PET.

Every structure is a signed distance, negative inside, painted with soft borders from the skin inwards;
the twin's own brain is laid in last and keeps its values. It serves to test what must find a brain in a
raw scan, and nothing that concerns a face.

Shapes: (x, y, z) on the head's own grid, which is the twin's with a margin; distances in mm.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid, template
from simulation.twins.fields import Floats, blur, smooth_noise, to_grid

_MARGIN = ((18.0, 18.0), (24.0, 42.0), (96.0, 18.0))  # mm on both sides along x, y, z
_BRIDGE = 12.0  # mm: the skull spans fissures of the brain up to twice as wide
_RESOLUTION = 6.0  # FWHM of the uptake outside of the brain, mm


class Tissue(NamedTuple):
    """T1 relative to white matter, and SUVR."""

    t1: float
    suvr: float


AIR = Tissue(0.0, 0.0)
MUSCLE = Tissue(0.42, 0.25)
FAT = Tissue(1.15, 0.18)
SKIN = Tissue(0.50, 0.25)
BONE = Tissue(0.05, 0.10)
MARROW = Tissue(0.50, 0.20)
FLUID = Tissue(0.13, 0.04)
EYE = Tissue(0.16, 0.06)
MUCOSA = Tissue(0.55, 0.50)
CORD = Tissue(0.80, 0.50)


class Blob(NamedTuple):
    """An ellipsoid: centre and radii in MNI mm. On both sides when its centre has x > 0."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


_FACE = (Blob((0, 30, -60), (66, 60, 55)), Blob((0, 28, -97), (52, 56, 38)), Blob((0, 90, -62), (14, 15, 19)))
_EARS = Blob((80, -26, -46), (7, 15, 25))
_JAW = Blob((0, 26, -102), (47, 48, 60))
_EYES = Blob((32, 63, -39), (12, 12, 12))
_ORBITS = Blob((31, 54, -39), (18, 24, 17))
_TONGUE = Blob((0, 42, -94), (22, 30, 16))
_CAVITIES = (
    Blob((0, 56, -62), (9, 34, 17)),  # nose
    Blob((29, 56, -68), (13, 15, 15)),  # maxillary sinuses
    Blob((0, 24, -44), (10, 12, 9)),  # sphenoid sinus
    Blob((50, -30, -52), (9, 11, 13)),  # mastoids
)


@dataclass(frozen=True)
class Head:
    """A head in MNI space.

    Attributes
    ----------
    t1
        White matter about 1, air 0.
    suvr
        FDG uptake at the twin's resolution.
    """

    grid: Grid
    t1: Floats
    suvr: Floats


def on_template(data: Floats, *, spacing: float) -> Floats:
    """Cut a map of a head back to the template's grid."""
    _, margin = _wider(template(spacing).head)
    inner: Floats = data[tuple(slice(low, -high) for low, high in margin)]
    return inner


def bare_head(mri: Floats, pet: Floats, *, spacing: float) -> Head:
    """Return a twin's brain on the head's grid with nothing around it."""
    grid, margin = _wider(template(spacing).head)
    white = np.float32(np.percentile(mri[mri > 0], 90))
    return Head(grid, np.pad(mri / white, margin), np.pad(pet, margin))


def build_head(rng: np.random.Generator, mri: Floats, pet: Floats, *, spacing: float) -> Head:
    """Build a head around a twin's scans.

    Parameters
    ----------
    mri, pet
        Skull-stripped T1 in any unit, zero outside of the brain, and FDG in SUVR, on the template's head.
    """
    bare = bare_head(mri, pet, spacing=spacing)
    brain = bare.t1 > 0
    paint = _Canvas(bare.grid, rng)
    _paint_head(paint, _hull_distance(brain, spacing=spacing))
    t1, outside = paint.finished()
    outside[brain] = 0
    return Head(
        bare.grid,
        np.where(brain, bare.t1, t1),
        bare.suvr + blur(outside, fwhm=_RESOLUTION, spacing=spacing),
    )


def _wider(grid: Grid) -> tuple[Grid, list[tuple[int, int]]]:
    """Return the twin's grid with room for a head, and the voxels added on both sides of each axis."""
    margin = [(round(low / grid.spacing), round(high / grid.spacing)) for low, high in _MARGIN]
    x, y, z = (size + low + high for size, (low, high) in zip(grid.shape, margin, strict=True))
    a, b, c = (o - grid.spacing * low for o, (low, _) in zip(grid.origin, margin, strict=True))
    return Grid((x, y, z), (a, b, c), grid.spacing), margin


def _hull_distance(brain: NDArray[np.bool_], *, spacing: float) -> Floats:
    """Distance to the brain's hull: the brain closed over its fissures, smooth like the dura."""
    away = ndimage.distance_transform_edt(~brain) * spacing
    wide = away <= _BRIDGE
    depth = ndimage.distance_transform_edt(wide) * spacing
    distance = np.where(wide, _BRIDGE - depth, away).astype(np.float32)
    smooth: Floats = ndimage.gaussian_filter(distance, 2.5 / spacing)
    return smooth


class _Canvas:
    """A T1 and an uptake being painted, and the shapes to paint with."""

    def __init__(self, grid: Grid, rng: np.random.Generator) -> None:
        self.grid, self.rng = grid, rng
        self._maps = [np.zeros(grid.shape, dtype=np.float32) for _ in AIR]
        axes = (o + grid.spacing * np.arange(n) for o, n in zip(grid.origin, grid.shape, strict=True))
        self.x, self.y, self.z = np.meshgrid(
            *(a.astype(np.float32) for a in axes), indexing="ij", sparse=True
        )

    def paint(self, distance: Floats, tissue: Tissue) -> None:
        """Fill where `distance` is negative; a border voxel holds a part."""
        share = np.clip(0.5 - distance / np.float32(self.grid.spacing), 0, 1)
        for painted, value in zip(self._maps, tissue, strict=True):
            painted[:] = painted + share * (np.float32(value) - painted)

    def blob(self, blob: Blob) -> Floats:
        """Approximate distance to an ellipsoid, or to the nearer one of a pair."""
        x = np.abs(self.x) if blob.centre[0] > 0 else self.x
        offsets = [(a - c) / r for a, c, r in zip((x, self.y, self.z), blob.centre, blob.radii, strict=True)]
        a, b, c = (np.square(offset, dtype=np.float32) for offset in offsets)
        distance: Floats = (np.sqrt(a + b + c) - 1) * np.float32(np.mean(blob.radii))
        return distance

    def tube(self, y: float, slope: float, radii: tuple[float, float], *, top: float) -> Floats:
        """Distance to a tube that runs down from z = `top`, where its middle is at (0, `y`)."""
        middle = y + slope * (top - self.z)
        across = np.sqrt((self.x / radii[0]) ** 2 + ((self.y - middle) / radii[1]) ** 2)
        distance: Floats = np.maximum((across - 1) * np.float32(np.mean(radii)), self.z - top)
        return distance

    def noise(self, *, fwhm: float) -> Floats:
        """Draw a smooth field of standard deviation about 1."""
        return to_grid(smooth_noise(self.rng, fwhm=fwhm), self.grid)

    def vary(self, mean: float, sd: float, low: float, high: float) -> Floats:
        """Draw a smooth thickness in mm."""
        thickness: Floats = np.clip(mean + sd * self.noise(fwhm=40.0), low, high).astype(np.float32)
        return thickness

    def finished(self) -> tuple[Floats, Floats]:
        """Return T1 and uptake, with the grain of tissue."""
        white = self.rng.standard_normal(self.grid.shape, dtype=np.float32)
        grain = ndimage.gaussian_filter(white, 2.0 / self.grid.spacing)
        texture = 1 + np.float32(0.07) * grain / grain.std()
        t1, suvr = self._maps
        return t1 * texture, suvr * texture


def _smooth_min(a: Floats, b: Floats, *, reach: float) -> Floats:
    """Join two shapes with a fillet of `reach` mm."""
    h = np.clip(0.5 + 0.5 * (b - a) / np.float32(reach), 0, 1)
    joined: Floats = b + h * (a - b) - np.float32(reach) * h * (1 - h)
    return joined


def _paint_head(canvas: _Canvas, hull: Floats) -> None:
    """Paint from the skin inwards; `hull` is the distance to the brain's hull."""
    fluid = canvas.vary(2.5, 0.7, 1.2, 4.5)
    skull = fluid + canvas.vary(6.5, 0.8, 5.0, 8.0)
    skin = _skin(canvas, hull - skull)
    _paint_flesh(canvas, skin)
    _paint_face(canvas, skin)
    _paint_neck(canvas)
    _paint_skull(canvas, hull, inner=fluid, outer=skull)
    cord = canvas.tube(-46, -0.05, (6, 5), top=-62)
    canvas.paint(np.minimum(hull - fluid, cord - 4), FLUID)
    canvas.paint(cord, CORD)


def _skin(canvas: _Canvas, above_skull: Floats) -> Floats:
    """Distance to the surface of the head."""
    temple = np.exp(-(canvas.blob(Blob((68, 12, -10), (20, 26, 26))).clip(0) ** 2) / 200.0)
    skin = above_skull - canvas.vary(6.0, 1.0, 4.0, 8.0) - 4 * temple
    for part in _FACE:
        skin = _smooth_min(skin, canvas.blob(part), reach=14.0)
    neck = canvas.tube(-24, 0.08, (56, 60), top=-70)
    skin = _smooth_min(skin, neck + 1.5 * canvas.noise(fwhm=40.0), reach=20.0)
    return _smooth_min(skin, canvas.blob(_EARS), reach=5.0)


def _paint_flesh(canvas: _Canvas, skin: Floats) -> None:
    """Skin, fat under it, and muscle with seams of fat."""
    canvas.paint(skin, SKIN)
    canvas.paint(skin + 1.5, FAT)
    canvas.paint(skin + canvas.vary(6.0, 1.2, 4.0, 9.0), MUSCLE)
    seams = 6.0 * (np.abs(canvas.noise(fwhm=16.0)) - 0.22)
    canvas.paint(np.maximum(seams, skin + 8), FAT)


def _paint_face(canvas: _Canvas, skin: Floats) -> None:
    """Jaws, tongue, orbits with eyes, and the cavities of the nose."""
    jaw = np.maximum(np.abs(canvas.blob(_JAW)) - 5, -canvas.y)
    jaw = np.maximum(jaw, np.maximum(np.abs(canvas.z + 100) - 22, skin + 6))
    canvas.paint(jaw, BONE)
    canvas.paint(jaw + 2.5, MARROW)
    canvas.paint(canvas.blob(_TONGUE), MUCOSA)
    orbit = np.maximum(canvas.blob(_ORBITS), skin + 3)
    canvas.paint(orbit - 2, BONE)
    canvas.paint(orbit, FAT)
    canvas.paint(canvas.blob(_EYES) - 1, MUSCLE)
    canvas.paint(canvas.blob(_EYES), EYE)
    walls = 2.0 * canvas.noise(fwhm=14.0)
    for cavity in _CAVITIES:
        distance = canvas.blob(cavity)
        canvas.paint(distance - 2, MUCOSA)
        canvas.paint(np.maximum(distance, walls - 2), AIR)


def _paint_neck(canvas: _Canvas) -> None:
    """Paint the airway and the spine."""
    airway = canvas.tube(10, -0.06, (9, 7), top=-66)
    canvas.paint(airway - 2, MUCOSA)
    canvas.paint(airway, AIR)
    bodies = canvas.tube(-27, -0.05, (11, 9), top=-80)
    arches = np.abs(canvas.tube(-48, -0.05, (15, 13), top=-80)) - 2
    canvas.paint(np.minimum(bodies - 2, arches), BONE)
    discs = 5 - np.abs((canvas.z + 80) % 18 - 9)  # negative within a vertebra
    canvas.paint(np.maximum(bodies, -2 - discs.astype(np.float32)), MARROW)


def _paint_skull(canvas: _Canvas, hull: Floats, *, inner: Floats, outer: Floats) -> None:
    """Two tables of bone with marrow between them."""
    canvas.paint(np.maximum(hull - outer, -80 - canvas.z), BONE)
    middle, half = (inner + outer) / 2, (outer - inner) / 6
    marrow = np.abs(hull - middle) - half * (1 + 0.5 * canvas.noise(fwhm=25.0))
    canvas.paint(np.maximum(marrow, -40 - canvas.z), MARROW)
