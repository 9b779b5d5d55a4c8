# SPDX-License-Identifier: Apache-2.0
"""All scans of an input, read once: float16 voxels for the network, regional measures beside them.

Shapes: N cases, in their order; a scan is (z, x, y), the crop of its template; F measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from pasta_model.data.grid import Template, template_of
from pasta_model.data.scaling import mri_scale
from pasta_model.data.volume import read_volume
from pasta_model.diagnosis.inputs import MRI
from pasta_model.diagnosis.regions import regional_measures
from pasta_model.errors import VolumeError
from pasta_model.files import atomic_path


@dataclass(frozen=True)
class Reading:
    """Scans of one kind to read, and where they go.

    Attributes
    ----------
    kind
        "MRI", or the name of a PET.
    cases
        Name and file of each, for messages.
    """

    kind: str
    cases: tuple[tuple[str, Path], ...]
    target: Path


@dataclass(frozen=True)
class Read:
    """The spacing of the scans in mm (None where none could be read), and what was wrong, a line a scan."""

    spacing: float | None
    problems: tuple[str, ...]


def gather(reading: Reading) -> Read:
    """Read every scan of a kind into one file; nothing is written where a scan is wrong."""
    voxels: list[NDArray[np.float16]] = []
    measures: list[list[float]] = []
    problems: list[str] = []
    first: Template | None = None
    for name, path in reading.cases:
        try:
            scan, found = _scan(path, reading.kind)
            first = first or found
            if found is not first:
                raise VolumeError(
                    f"{path}: lies on the grid {found.name}, others on {first.name}; resample it"
                )
            of_regions = regional_measures(scan, kind=reading.kind, grid=found.crop)
        except VolumeError as error:
            problems.append(f"{name}: {reading.kind}: {error}")
            continue
        voxels.append(scan.astype(np.float16))
        measures.append(list(of_regions.values()))
    if not problems:
        with atomic_path(reading.target) as temporary:
            save_file({"voxels": np.stack(voxels), "measures": np.array(measures)}, temporary)
    return Read(first.head.spacing if first else None, tuple(problems))


def voxels_of(path: Path, rows: Sequence[int]) -> NDArray[np.float16]:
    """Return some of the scans that were gathered, (rows, z, x, y); the others are not read."""
    with safe_open(path, framework="numpy") as content:
        scans = content.get_slice("voxels")
        return np.stack([scans[row] for row in rows])


def measures_of(path: Path, rows: Sequence[int]) -> NDArray[np.float64]:
    """Return the regional measures of some of the scans, (rows, F)."""
    with safe_open(path, framework="numpy") as content:
        return np.asarray(content.get_tensor("measures")[list(rows)], np.float64)


def _scan(path: Path, kind: str) -> tuple[NDArray[np.float32], Template]:
    """Return a scan's crop, and its template: a PET in SUVR, an MRI as a share of its robust maximum."""
    volume = read_volume(path, unit="arbitrary" if kind == MRI else "SUVR")
    try:
        template = template_of(volume.data.shape, volume.affine)
        full = mri_scale(volume.data).full if kind == MRI else 1.0
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    return np.asarray(template.to_network(volume.data) / np.float32(full), np.float32), template
