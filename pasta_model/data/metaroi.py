# SPDX-License-Identifier: Apache-2.0
"""The MetaROI map m in [0, 1]: where Alzheimer's disease lowers the metabolism; and SUVR's reference.

Five regions after Landau et al. 2011 (doi:10.1016/j.neurobiolaging.2009.07.002): each is the cortex of its
gyri, from the atlas that ships with this package, within 14 mm of the centre that Landau's meta-analysis
found; so atlas and meta-analysis agree. A user's own map is read by `read_metaroi`.

Shapes: (x, y, z) on the grid that is asked for. Results are copies: change them as you like.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from pasta_model.data.atlas import load_atlas
from pasta_model.data.grid import Grid
from pasta_model.data.volume import read_volume
from pasta_model.errors import ConfigError, VolumeError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

NEIGHBOURHOOD = 14.0  # mm around Landau's centre
SMOOTHING = 1.0  # mm, sigma: a region's border is the same on a coarse grid and a fine one
PLATEAU, BORDER = 1.0, 5.0  # mm outside a region: m is 1 up to the first, 0 from the second on


@dataclass(frozen=True)
class Region:
    """An ellipsoid: centre and half-axes in MNI mm."""

    name: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


@dataclass(frozen=True)
class MetaRegion:
    """A MetaROI region: the published centre in MNI mm, and the atlas parcels that it is a part of."""

    name: str
    centre: tuple[float, float, float]
    parcels: tuple[str, ...]


def _sided(side: str, *gyri: str) -> tuple[str, ...]:
    return tuple(f"{gyrus}_{side}" for gyrus in gyri)


# Desikan and Killiany draw no angular gyrus: its front lies in their supramarginal one.
_ANGULAR = ("inferiorparietal", "supramarginal")
_TEMPORAL = ("inferiortemporal", "middletemporal")
_MEDIAL = ("isthmuscingulate", "posteriorcingulate", "precuneus")
METAROI_REGIONS = (
    MetaRegion("angular_left", (-47.0, -63.0, 37.0), _sided("left", *_ANGULAR)),
    MetaRegion("angular_right", (52.0, -58.0, 34.0), _sided("right", *_ANGULAR)),
    MetaRegion(
        "posterior_cingulate", (3.0, -43.0, 29.0), _sided("left", *_MEDIAL) + _sided("right", *_MEDIAL)
    ),
    MetaRegion("temporal_left", (-61.0, -43.0, -13.0), _sided("left", *_TEMPORAL)),
    MetaRegion("temporal_right", (64.0, -52.0, -6.0), _sided("right", *_TEMPORAL)),
)
PONS = Region("pons", (0.0, -27.0, -33.0), (11.0, 9.0, 12.0))
VERMIS = Region("vermis", (0.0, -62.0, -22.0), (6.0, 12.0, 12.0))
_ROUNDING = 1e-4  # of a map that a file keeps as scaled integers
REFERENCES = ("pons-vermis", "pons", "vermis", "cerebellum")


class _Field(NamedTuple):
    """Values on 1 mm voxels, MNI mm of the first one, and the value everywhere outside."""

    values: Floats
    origin: NDArray[np.float64]
    outside: float

    def on(self, grid: Grid) -> Floats:
        """Interpolate linearly at the voxel centres of a grid."""
        index = np.moveaxis(grid.coordinates() - self.origin.astype(np.float32), -1, 0)
        found: Floats = ndimage.map_coordinates(
            self.values, index, order=1, mode="constant", cval=self.outside, output=np.float32
        )
        return found


def region_map(grid: Grid, region: Region, *, edge: float = 1.0) -> Floats:
    """Soft membership of an ellipsoid, (x, y, z) in [0, 1]; 0.5 on its surface.

    Parameters
    ----------
    edge
        Width of the border in mm: the logistic scale of the signed distance.
    """
    offset = (grid.coordinates() - np.asarray(region.centre, np.float32)) / np.asarray(
        region.radii, np.float32
    )
    distance = (np.linalg.norm(offset, axis=-1) - 1.0) * float(np.mean(region.radii))
    soft: Floats = np.asarray(expit(-distance / edge), np.float32)
    return soft


def region_masks(grid: Grid) -> dict[str, Mask]:
    """Return the five MetaROI regions as masks, by name."""
    return {name: mask.copy() for name, mask in _region_masks(grid).items()}


def metaroi_map(grid: Grid) -> Floats:
    """Return the map m of the loss weight W = 1 + 9 m, (x, y, z) in [0, 1] (Li et al. 2026).

    The regions enlarged: 1 inside them and 1 mm around, falling with the distance to 0 at 5 mm.
    """
    return _metaroi_map(grid).copy()


def reference_mask(grid: Grid, name: str = "pons-vermis") -> Mask:
    """Return a reference region of SUVR, which the disease spares.

    Parameters
    ----------
    name
        "pons-vermis": two ellipsoids, in pons and cerebellar vermis, as in ADNI's FDG index.
        "vermis": the second of them.
        "pons", "cerebellum": from the atlas, 3 mm inside the organ, so that little spills in.

    Raises
    ------
    ConfigError
        When there is no region of that name.
    """
    if name not in REFERENCES:
        raise ConfigError(f"reference region {name!r}, wanted one of {', '.join(REFERENCES)}")
    return _reference_mask(grid, name).copy()


def read_metaroi(path: Path, grid: Grid) -> Floats:
    """Read a user's own map m from a NIfTI in MNI space and resample it linearly onto a grid.

    Raises
    ------
    VolumeError
        When the file cannot be read, its values are not in [0, 1], or it is 0 on the whole grid.
    """
    volume = read_volume(path)
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise VolumeError(f"{path}: a MetaROI map from {low:g} to {high:g}, wanted values from 0 to 1")
    to_index = np.linalg.inv(volume.affine)
    index = grid.coordinates() @ to_index[:3, :3].T + to_index[:3, 3]
    found: Floats = ndimage.map_coordinates(
        volume.data, np.moveaxis(index, -1, 0), order=1, mode="constant", cval=0.0, output=np.float32
    )
    if not found.any():
        raise VolumeError(f"{path}: the MetaROI map is 0 everywhere in the head; is it in MNI space?")
    return np.clip(found, 0.0, 1.0)


@lru_cache(maxsize=8)
def _region_masks(grid: Grid) -> dict[str, Mask]:
    return {name: np.asarray(field.on(grid) >= 0.5) for name, field in _occupancy().items()}


@lru_cache(maxsize=8)
def _metaroi_map(grid: Grid) -> Floats:
    fields = list(_occupancy().values())
    inside = np.any([field.values >= 0.5 for field in fields], axis=0)
    distance = ndimage.distance_transform_edt(~inside).astype(np.float32)
    beyond = (_Field(distance, fields[0].origin, np.inf).on(grid) - PLATEAU) / (BORDER - PLATEAU)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0.0, 1.0)), np.float32)


@lru_cache(maxsize=1)
def _occupancy() -> dict[str, _Field]:
    """Draw the regions on the atlas's voxels, with room for the map's border around them."""
    atlas, room = load_atlas(), int(BORDER + 2)
    axes = atlas.coordinates()
    masks = {}
    for region in METAROI_REGIONS:
        squared = sum((x - c) ** 2 for x, c in zip(axes, region.centre, strict=True))
        masks[region.name] = np.pad(atlas.mask(*region.parcels) & (squared < NEIGHBOURHOOD**2), room)
    box = ndimage.find_objects(np.any(list(masks.values()), axis=0).astype(np.uint8))[0]
    wide = tuple(slice(side.start - room, side.stop + room) for side in box)
    origin = atlas.origin + [side.start - room for side in wide]
    return {
        name: _Field(ndimage.gaussian_filter(mask[wide].astype(np.float32), SMOOTHING), origin, 0.0)
        for name, mask in masks.items()
    }


@lru_cache(maxsize=8)
def _reference_mask(grid: Grid, name: str) -> Mask:
    ellipsoids = {"pons-vermis": (PONS, VERMIS), "vermis": (VERMIS,)}
    if name in ellipsoids:
        parts = [region_map(grid, region) > 0.5 for region in ellipsoids[name]]
        return np.asarray(np.any(parts, axis=0))
    atlas = load_atlas()
    organ = _Field(atlas.mask(name).astype(np.float32), atlas.origin, 0.0)
    return np.asarray(organ.on(grid) >= 0.5)
