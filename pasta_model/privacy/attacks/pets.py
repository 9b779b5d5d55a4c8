# SPDX-License-Identifier: Apache-2.0
"""PETs as `memorisation` compares them: voxels inside the brain, in SUVR, in portions where they are many."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.manifest import Session
from pasta_model.data.scaling import PET_SCALE
from pasta_model.data.store import Entry, SiteStore
from pasta_model.data.volume import read_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.errors import Problems, VolumeError

PORTION = 16  # PETs in memory at once


@dataclass(frozen=True)
class Ground:
    """What real PETs have in common.

    Attributes
    ----------
    brain
        (D, H, W): voxels that lie in the brain of at least half of them.
    mean
        Their mean, (voxels of the brain,) in SUVR.
    """

    brain: NDArray[np.bool_]
    mean: NDArray[np.float32]


def ground_of(sides: Iterable[tuple[SiteStore, Sequence[int]]], on_pet: Callable[[], None]) -> Ground:
    """Read all these scans once."""
    inside, total, count = np.zeros(1), np.zeros(1), 0
    for store, indices in sides:
        for index in indices:
            mri, pet = store.slab(index, 0, store.slices)
            inside, total, count = inside + (mri > -1), total + pet, count + 1
            on_pet()
    brain = inside >= count / 2
    return Ground(brain, PET_SCALE.to_file((total / count).astype(np.float32))[brain])


def stored_pets(
    store: SiteStore, indices: Sequence[int], ground: Ground, on_pet: Callable[[], None] = lambda: None
) -> Iterator[NDArray[np.float32]]:
    """Yield the real PETs of a store, (PETs, voxels), in portions."""
    for start in range(0, len(indices), PORTION):
        portion = []
        for index in indices[start : start + PORTION]:
            portion.append(PET_SCALE.to_file(store.slab(index, 0, store.slices)[1])[ground.brain])
            on_pet()
        yield np.stack(portion)


def synthetic_pets(
    folder: Path, store: SiteStore, indices: Sequence[int], ground: Ground
) -> NDArray[np.float32]:
    """Read the synthetic PETs of a store's sessions, (PETs, voxels).

    Raises
    ------
    VolumeError
        With a line for every session without a usable one.
    """
    problems = Problems(f"{folder}: synthetic PETs that cannot be compared")
    found = []
    for index in indices:
        session = _session(store.entries[index], store.site)
        path = synthetic_path(folder, session)
        if not path.is_file():
            problems.add(f"{session.name}: no synthetic PET here; run 'pasta synthesize' first")
            continue
        try:
            found.append(_on_the_grid(path, store)[ground.brain])
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
    problems.raise_if_any(VolumeError)
    return np.stack(found)


def _on_the_grid(path: Path, store: SiteStore) -> NDArray[np.float32]:
    volume, head = read_volume(path, unit="SUVR"), store.template.head
    if volume.data.shape != head.shape or not np.allclose(volume.affine, head.affine, atol=1e-2):
        raise VolumeError(f"found {volume.data.shape} voxels, wanted {store.template.name}, as in the store")
    return np.asarray(store.template.to_network(volume.data), np.float32)


def _session(entry: Entry, site: str) -> Session:
    return Session(
        subject=entry.subject,
        session=entry.session,
        site=site,
        diagnosis=entry.diagnosis,
        mri=Path(entry.mri),
        pet=Path(entry.pet),
    )
