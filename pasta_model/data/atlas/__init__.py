# SPDX-License-Identifier: Apache-2.0
"""The brain regions that ship with the package, as labels of 1 mm voxels in MNI152 space.

`regions.npz` holds the gyri around Landau's centres, the cores of pons and cerebellum, and nothing else.
README.md says where they come from and under which licences; `build.py` makes the file again.
"""

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ConfigError

FILE = "regions.npz"


@dataclass(frozen=True, eq=False)
class Atlas:
    """Labelled voxels.

    Attributes
    ----------
    labels
        (x, y, z) uint8: 0 elsewhere, k for the region `names[k - 1]`. Read-only.
    origin
        MNI mm of the first voxel; voxels are 1 mm, RAS+.
    """

    labels: NDArray[np.uint8]
    origin: NDArray[np.float64]
    names: tuple[str, ...]

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """Return where any of these regions is, (x, y, z)."""
        codes = [self.names.index(name) + 1 for name in names]
        inside: NDArray[np.bool_] = np.isin(self.labels, codes)
        return inside

    def coordinates(self) -> tuple[NDArray[np.float64], ...]:
        """MNI mm of the voxels along x, y and z, ready to broadcast against each other."""
        axes = [start + np.arange(size) for start, size in zip(self.origin, self.labels.shape, strict=True)]
        return tuple(np.meshgrid(*axes, indexing="ij", sparse=True))


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the regions, once a process.

    Raises
    ------
    ConfigError
        When the file is not where the package is installed.
    """
    with np.load(_file(), allow_pickle=False) as content:
        labels, origin = content["labels"], content["origin"]
        names = tuple(str(name) for name in content["names"])
    labels.setflags(write=False)
    return Atlas(labels, origin, names)


def _file() -> Path:
    """Find the file: here, or in the installed package when this code came in one of Flower's bundles."""
    installed = (Path(folder) / "pasta_model" / "data" / "atlas" for folder in sys.path)
    for folder in (Path(__file__).parent, *installed):
        if (folder / FILE).is_file():
            return folder / FILE
    raise ConfigError(f"{Path(__file__).parent / FILE}: no such file; install the package again")
