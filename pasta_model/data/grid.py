# SPDX-License-Identifier: Apache-2.0
"""The voxel grids of the project, all in MNI152 space, RAS+.

Two spacings: 1.5 mm (published: 113 x 137 x 113, network crop 96 x 112 x 96) and 3 mm (tests and
demo). The 3 mm crop covers exactly the same box of the head as the 1.5 mm crop.
Arrays of files are indexed (x, y, z); arrays of the network (z, x, y): axial slices first.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ConfigError, VolumeError

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """A box of voxels: `shape` in voxels (x, y, z), `origin` and `spacing` in mm (RAS+)."""

    shape: tuple[int, int, int]
    origin: tuple[float, float, float]
    spacing: float

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """Voxel index to MNI mm, (4, 4)."""
        matrix = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        matrix[:3, 3] = self.origin
        return matrix

    def coordinates(self) -> NDArray[np.float32]:
        """MNI mm of every voxel centre, (x, y, z, 3)."""
        axes = [
            start + self.spacing * np.arange(size)
            for start, size in zip(self.origin, self.shape, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Template:
    """A whole-head grid with the crop that the network sees."""

    name: str
    head: Grid
    start: tuple[int, int, int]
    size: tuple[int, int, int]

    @cached_property
    def crop(self) -> Grid:
        """The grid of the crop."""
        origin = [o + self.head.spacing * s for o, s in zip(self.head.origin, self.start, strict=True)]
        return Grid(self.size, (origin[0], origin[1], origin[2]), self.head.spacing)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the crop lies in the head grid."""
        a, b, c = (slice(s, s + n) for s, n in zip(self.start, self.size, strict=True))
        return a, b, c

    def to_network(self, data: Array) -> Array:
        """Head array (x, y, z) to the cropped network array (z, x, y)."""
        return np.ascontiguousarray(np.moveaxis(data[self.slices], 2, 0))

    def to_head(self, data: Array, *, fill: float = 0.0) -> Array:
        """Network array (z, x, y) back into a head array (x, y, z), `fill` outside the crop."""
        head = np.full(self.head.shape, fill, dtype=data.dtype)
        head[self.slices] = np.moveaxis(data, 0, 2)
        return head


# TorchIO's CropOrPad keeps from index (9, 13, 9) when it crops 113 x 137 x 113 to 96 x 112 x 96.
_PUBLISHED = Template(
    name="MNI152 1.5 mm",
    head=Grid((113, 137, 113), (-84.0, -120.0, -72.0), 1.5),
    start=(9, 13, 9),
    size=(96, 112, 96),
)
_COARSE = Template(
    name="MNI152 3 mm",
    head=Grid((56, 68, 56), (-81.75, -117.75, -69.75), 3.0),
    start=(4, 6, 4),
    size=(48, 56, 48),
)
_TEMPLATES = {1.5: _PUBLISHED, 3.0: _COARSE}


def template(spacing: float) -> Template:
    """Return the template of a spacing in mm.

    Raises
    ------
    ConfigError
        When there is no template of that spacing.
    """
    if spacing not in _TEMPLATES:
        raise ConfigError(f"no template of spacing {spacing} mm; choose one of {sorted(_TEMPLATES)}")
    return _TEMPLATES[spacing]


def template_of(shape: tuple[int, ...], affine: Array, *, tolerance: float = 1e-2) -> Template:
    """Return the template whose head grid this is.

    Parameters
    ----------
    shape, affine
        Of a volume in RAS+ orientation.
    tolerance
        Largest allowed difference of an affine's entry, in mm.

    Raises
    ------
    VolumeError
        When the volume lies on no known grid; the message names the known ones.
    """
    for known in _TEMPLATES.values():
        same = np.allclose(affine, known.head.affine, rtol=0, atol=tolerance)
        if tuple(shape) == known.head.shape and same:
            return known
    wanted = "; ".join(
        f"{t.head.shape} voxels of {t.head.spacing} mm from {t.head.origin}" for t in _TEMPLATES.values()
    )
    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0).round(3).tolist()
    origin = np.asarray(affine)[:3, 3].round(3).tolist()
    raise VolumeError(
        f"lies on no grid that the network knows: found {tuple(shape)} voxels of {spacing} mm"
        f" from {origin}; wanted MNI152 RAS+ with {wanted}; register and resample the scan first"
    )
