# SPDX-License-Identifier: Apache-2.0
"""The surface of the template's brain as the eight views of nuclear medicine see it.

Shapes: a view's arrays are (rows, columns), from the bottom of the picture upwards, pixels of 1 mm; points
and directions (rows, columns, 3) in MNI mm, RAS+; NaN where the view sees no brain.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.norms.anatomy import tissue_maps
from pasta_model.norms.resolution import Floats, Mask

Axis = tuple[int, int]
"""An axis of MNI space and a direction along it: (0, 1) is to the right, (2, -1) down."""

_PIAL = 0.5  # of a voxel that must be tissue
_RELIEF = 0.8  # mm, sigma: gyri that the light falls on
_HULL = 4.0  # mm, sigma: the smooth surface whose normals lead inwards
_SULCUS = 2.5  # mm below the surroundings at which a fold is dark
_LIGHT = (0.35, 0.5, 0.8)  # how much comes from the left, from above and from the viewer
_ROOM = 6  # mm around the brain


@dataclass(frozen=True)
class View:
    """How a camera at infinity is held.

    Attributes
    ----------
    right, up, inward
        Where the picture's columns, its rows and the rays run to.
    half
        The hemisphere that is there, the other one being taken away; None: the whole brain.
    sides
        Letters at the left and the right edge of the picture.
    """

    name: str
    right: Axis
    up: Axis
    inward: Axis
    half: str | None
    sides: tuple[str, str]


VIEWS = (
    View("right lateral", (1, 1), (2, 1), (0, -1), None, ("P", "A")),
    View("left lateral", (1, -1), (2, 1), (0, 1), None, ("A", "P")),
    View("right medial", (1, -1), (2, 1), (0, 1), "right", ("A", "P")),
    View("left medial", (1, 1), (2, 1), (0, -1), "left", ("P", "A")),
    View("anterior", (0, -1), (2, 1), (1, -1), None, ("R", "L")),
    View("posterior", (0, 1), (2, 1), (1, 1), None, ("L", "R")),
    View("superior", (0, 1), (1, 1), (2, -1), None, ("L", "R")),
    View("inferior", (0, -1), (1, 1), (2, 1), None, ("R", "L")),
)


@dataclass(frozen=True, eq=False)
class Surface:
    """What a view sees of the template's brain.

    Attributes
    ----------
    points
        Where each ray meets the brain.
    normals
        Unit vectors from there into the brain, across the smooth surface without its folds.
    shade
        Light that comes back, in [0, 1]; 0 where there is no brain.
    """

    view: View
    points: Floats
    normals: Floats
    shade: Floats

    @property
    def seen(self) -> Mask:
        """Where there is brain, (rows, columns)."""
        return np.isfinite(self.points[..., 0])


@lru_cache(maxsize=len(VIEWS))
def surface(view: View) -> Surface:
    """Look at the template's brain; the arrays are read-only."""
    body = _body(view.half)
    turned = _turn(body.tissue, view)
    depth, seen = _first_hit(turned)
    box = ndimage.find_objects(seen.astype(np.uint8))[0]
    points = _to_mm(depth, view, turned.shape, body.origin)[seen]
    relief, hull = (_ascent(field, points - body.origin, view) for field in (body.relief, body.hull))
    whole = [np.full((*seen.shape, 3), np.nan, np.float32) for _ in range(2)]
    shade = np.zeros(seen.shape, np.float32)
    whole[0][seen], whole[1][seen], shade[seen] = points, hull, _lit(relief, view)
    parts = [np.ascontiguousarray(part[box]) for part in (*whole, shade * _open(depth, seen))]
    for part in parts:
        part.setflags(write=False)
    return Surface(view, *parts)


class _Body(NamedTuple):
    """How much of each voxel of 1 mm is brain, (x, y, z); the same blurred; MNI mm of the first voxel."""

    tissue: Floats
    relief: Floats
    hull: Floats
    origin: NDArray[np.float32]


@lru_cache(maxsize=3)
def _body(half: str | None) -> _Body:
    maps = tissue_maps()
    tissue = maps.grey + maps.white
    x = (maps.origin[0] + np.arange(tissue.shape[0]))[:, None, None]
    if half:
        tissue = np.where(x > 0 if half == "right" else x < 0, tissue, 0)
    parts, _ = ndimage.label(tissue >= _PIAL)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    box = ndimage.find_objects((parts == largest).astype(np.uint8))[0]
    room = tuple(slice(max(side.start - _ROOM, 0), side.stop + _ROOM) for side in box)
    own = np.where((parts == largest) | (tissue < _PIAL), tissue, 0)[room]
    origin = np.asarray(maps.origin, np.float32) + [side.start for side in room]
    relief, hull = (ndimage.gaussian_filter(own, width, truncate=3.0) for width in (_RELIEF, _HULL))
    return _Body(own, relief, hull, origin)


def _turn(data: Floats, view: View) -> Floats:
    """Turn (x, y, z) into (up, right, inward)."""
    axes = (view.up, view.right, view.inward)
    turned = np.transpose(data, [axis for axis, _ in axes])
    return np.flip(turned, [place for place, (_, way) in enumerate(axes) if way < 0])


def _first_hit(turned: Floats) -> tuple[Floats, Mask]:
    """Return how far each ray goes until it meets the brain, between voxels, in mm; and whether it does."""
    solid = turned >= _PIAL
    seen = solid.any(axis=2)
    first = np.argmax(solid, axis=2)
    before = np.maximum(first - 1, 0)
    low, high = (np.take_along_axis(turned, i[..., None], 2)[..., 0] for i in (before, first))
    step = np.where(high > low, (_PIAL - low) / np.maximum(high - low, 1e-6), 1.0)
    return np.asarray(before + np.clip(step, 0, 1), np.float32), np.asarray(seen)


def _to_mm(depth: Floats, view: View, shape: tuple[int, ...], origin: NDArray[np.float32]) -> Floats:
    index = (*np.indices(depth.shape, np.float32), depth)
    found = np.empty((*depth.shape, 3), np.float32)
    for along, size, (axis, way) in zip(index, shape, (view.up, view.right, view.inward), strict=True):
        found[..., axis] = origin[axis] + (along if way > 0 else size - 1 - along)
    return found


def _ascent(field: Floats, index: NDArray[np.float32], view: View) -> Floats:
    """Return unit vectors of steepest ascent at points, (points, 3); the ray's way where it is flat."""
    slopes = np.empty_like(index)
    for axis in range(3):
        step = np.eye(3, dtype=np.float32)[axis]
        after, before = (
            ndimage.map_coordinates(field, (index + way * step).T, order=1, mode="nearest") for way in (1, -1)
        )
        slopes[:, axis] = after - before
    length = np.linalg.norm(slopes, axis=1, keepdims=True)
    ahead = _vector(view.inward)
    unit: Floats = np.where(length > 1e-4, slopes / np.maximum(length, 1e-6), ahead)
    return unit


def _vector(axis: Axis) -> NDArray[np.float32]:
    place, way = axis
    return np.asarray(way * np.eye(3)[place], np.float32)


def _lit(relief: Floats, view: View) -> Floats:
    """Return Lambert's cosine of light on the folds whose normals inwards are `relief`, (points, 3)."""
    left, above, viewer = _LIGHT
    light = viewer * _vector(view.inward) + left * _vector(view.right) - above * _vector(view.up)
    cosine = relief @ (light / np.linalg.norm(light))
    return np.asarray(0.25 + 0.75 * np.clip(cosine, 0, 1), np.float32)


def _open(depth: Floats, seen: Mask) -> Floats:
    """Return how open the surface is, 1 on a gyrus, less in a sulcus: deeper than its surroundings."""
    weights = ndimage.gaussian_filter(seen.astype(np.float32), 4.0)
    around = ndimage.gaussian_filter(np.where(seen, depth, 0), 4.0) / np.maximum(weights, 1e-3)
    below = np.clip((depth - around) / _SULCUS, 0, 3)
    return np.asarray(np.exp(-0.45 * below), np.float32)
