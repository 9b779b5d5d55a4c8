# SPDX-License-Identifier: Apache-2.0
"""Between our volumes and ANTs: images, transforms in files, resampling.

A transform is kept as ITK writes it, so that ANTs, 3D Slicer and ITK-SNAP read it. Like all of ITK it
pulls: the transform "MNI to MRI" says for each point of MNI space where the MRI has its value.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.volume import Volume

# Sums over several threads are added in the order of the threads: one thread gives the same bytes each time.
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's x and y run to the left and to the back
AFFINE, INVERSE_AFFINE = "from-MNI152_to-T1w_xfm.txt", "from-T1w_to-MNI152_xfm.txt"
WARP, INVERSE_WARP = "from-MNI152_to-T1w_warp.nii.gz", "from-T1w_to-MNI152_warp.nii.gz"
RIGID = "from-T1w_to-PET_xfm.txt"
Interpolator = Literal["linear", "bSpline", "nearestNeighbor"]


@dataclass(frozen=True)
class Alignment:
    """How an MRI, and its PET, lie to MNI space: files in a folder.

    Attributes
    ----------
    folder
        Holds `AFFINE` and `INVERSE_AFFINE`, with a PET `RIGID`, and, unless the scans came registered, the
        deformation `WARP` and `INVERSE_WARP` that fits the atlas to the head.
    bent
        Whether the scans themselves go through the deformation (a deformable registration), and not only
        the atlas's mask and regions.
    """

    folder: Path
    bent: bool = False

    @property
    def to_mri(self) -> list[str]:
        """Transforms that bring the MRI to MNI space, in ANTs' order."""
        return self.atlas_to_mri if self.bent else [str(self.folder / AFFINE)]

    @property
    def atlas_to_mri(self) -> list[str]:
        """Transforms that bring the MRI onto the atlas, structure on structure."""
        return [*self._if_there(WARP), str(self.folder / AFFINE)]

    @property
    def to_pet(self) -> list[str]:
        """Transforms that bring the PET to MNI space."""
        return [*self.to_mri, *self._if_there(RIGID)]

    @property
    def atlas_to_pet(self) -> list[str]:
        """Transforms that bring the PET onto the atlas."""
        return [*self.atlas_to_mri, *self._if_there(RIGID)]

    @property
    def from_mri(self) -> list[str]:
        """Transforms that bring a volume in MNI space to the MRI."""
        return self.atlas_from_mri if self.bent else [str(self.folder / INVERSE_AFFINE)]

    @property
    def atlas_from_mri(self) -> list[str]:
        """Transforms that bring the atlas to the MRI."""
        return [str(self.folder / INVERSE_AFFINE), *self._if_there(INVERSE_WARP)]

    def _if_there(self, name: str) -> list[str]:
        path = self.folder / name
        return [str(path)] if path.is_file() else []


def to_ants(volume: Volume) -> Any:
    """Return an ANTs image of a volume; oblique axes are kept."""
    import ants

    affine = LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(volume.data, dtype=np.float32),
        origin=tuple(affine[:3, 3].tolist()),
        spacing=tuple(spacing.tolist()),
        direction=affine[:3, :3] / spacing,
    )


def grid_volume(grid: Grid, data: NDArray[Any] | None = None) -> Volume:
    """Return `data` (by default zeros) as a volume on a grid."""
    values = np.zeros(grid.shape, np.float32) if data is None else np.asarray(data, np.float32)
    return Volume(values, grid.affine)


def resample(
    moving: Volume,
    *,
    onto: Volume,
    transforms: Sequence[str],
    interpolator: Interpolator = "linear",
) -> Volume:
    """Bring a volume onto another one's voxels, through transforms, in one interpolation; 0 outside.

    A cubic spline rings at edges: what falls below 0 is set to 0.
    """
    import ants

    found = ants.apply_transforms(
        to_ants(onto), to_ants(moving), list(transforms), interpolator=interpolator,
        whichtoinvert=[False] * len(transforms), singleprecision=False,
    )  # fmt: skip
    data = np.asarray(found.numpy(), dtype=np.float32)
    return Volume(np.clip(data, 0, None), onto.affine, moving.unit, onto.stored)


def matrix_of(path: Path) -> NDArray[np.float64]:
    """Read an affine transform file as a matrix (4, 4) of RAS+ mm."""
    import ants

    transform = ants.read_transform(str(path))
    parameters = np.asarray(transform.parameters, dtype=np.float64)
    linear, shift = parameters[:9].reshape(3, 3), parameters[9:12]
    centre = np.asarray(transform.fixed_parameters, dtype=np.float64)[:3]
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = shift + centre - linear @ centre  # y = A (x - c) + t + c
    ras: NDArray[np.float64] = LPS @ matrix @ LPS
    return ras


def write_matrix(path: Path, matrix: NDArray[np.float64]) -> None:
    """Write a matrix (4, 4) of RAS+ mm as an affine transform file."""
    import ants

    itk = LPS @ matrix @ LPS
    transform = ants.create_ants_transform(
        transform_type="AffineTransform", dimension=3, matrix=itk[:3, :3], offset=tuple(itk[:3, 3].tolist())
    )
    ants.write_transform(transform, str(path))


def write_both(folder: Path, matrix: NDArray[np.float64]) -> None:
    """Write "MNI to MRI" (4, 4) and its inverse to an alignment's folder."""
    write_matrix(folder / AFFINE, matrix)
    write_matrix(folder / INVERSE_AFFINE, np.asarray(np.linalg.inv(matrix), np.float64))
