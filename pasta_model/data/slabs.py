# SPDX-License-Identifier: Apache-2.0
"""Which slabs of which subjects make a batch.

Persons are drawn without replacement until all have been seen, then reshuffled; one of a person's
visits is drawn each time, and the place of a slab is uniform over the volume. The slabs of a batch lie in
one plane, drawn evenly where the model sees several.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pasta_model.data.clinical import ClinicalScheme, Standardisation
from pasta_model.data.planes import SLICE_AXIS, each_plane
from pasta_model.data.store import SiteStore
from pasta_model.errors import StoreError
from pasta_model.sections import Planes


@dataclass(frozen=True)
class Batch:
    """Slabs of B sessions.

    Attributes
    ----------
    mri, pet
        (B, S, H, W) in [-1, 1].
    metaroi
        (B, S, H, W) in [0, 1].
    clinical
        (B, K), or None where the model takes no clinical data.
    """

    mri: Tensor
    pet: Tensor
    metaroi: Tensor
    clinical: Tensor | None

    def to(self, device: str, *, channels_last: bool) -> Self:
        """Move to a device and memory layout; pinned memory moves while the device computes."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        slabs = (self.mri, self.pet, self.metaroi)
        moved = [t.to(device, memory_format=layout, non_blocking=True) for t in slabs]
        clinical = None if self.clinical is None else self.clinical.to(device, non_blocking=True)
        return type(self)(moved[0], moved[1], moved[2], clinical)

    def pinned(self) -> Self:
        """Copy into page-locked memory, from where a GPU fetches by itself."""
        clinical = None if self.clinical is None else self.clinical.pin_memory()
        return type(self)(self.mri.pin_memory(), self.pet.pin_memory(), self.metaroi.pin_memory(), clinical)


class SlabLoader:
    """Makes batches from one split of a store."""

    def __init__(
        self,
        store: SiteStore,
        *,
        split: str,
        slab_slices: int,
        scheme: ClinicalScheme,
        standardisation: Standardisation,
        planes: Planes = "axial",
    ) -> None:
        self.store = store
        self.slab_slices = slab_slices
        self.planes = each_plane(planes)
        self.indices = store.indices(split)
        if not self.indices:
            raise StoreError(f"site {store.site} has no session in split {split!r}; wanted at least one")
        for plane in self.planes:
            if store.depth(plane) < slab_slices:
                raise StoreError(
                    f"volumes of {store.depth(plane)} {plane} slices are thinner than a slab of {slab_slices}"
                )
        self._metaroi = {
            plane: np.ascontiguousarray(np.moveaxis(store.metaroi, SLICE_AXIS[plane], 0))
            for plane in self.planes
        }
        self._clinical = {i: standardisation.vector(store.entries[i].clinical, scheme) for i in self.indices}
        self._has_clinical = scheme.length > 0

    def at(self, places: Sequence[tuple[int, int]], *, plane: str | None = None) -> Batch:
        """Return the batch of these (session, first slice) places, in the first plane if none is named."""
        plane = plane or self.planes[0]
        pairs = [self.store.slab(index, start, self.slab_slices, plane=plane) for index, start in places]
        metaroi = [self._metaroi[plane][start : start + self.slab_slices] for _, start in places]
        clinical = torch.from_numpy(np.stack([self._clinical[index] for index, _ in places]))
        return Batch(
            _stack([mri for mri, _ in pairs]),
            _stack([pet for _, pet in pairs]),
            _stack(metaroi),
            clinical if self._has_clinical else None,
        )

    @cached_property
    def visits(self) -> dict[str, list[int]]:
        """The sessions of each person."""
        visits: dict[str, list[int]] = {}
        for index in self.indices:
            visits.setdefault(self.store.entries[index].person, []).append(index)
        return visits

    def of_person(self, person: str, count: int, *, rng: np.random.Generator) -> Batch:
        """Draw slabs of one person, each of any visit; all lie in one plane."""
        plane = str(rng.choice(self.planes)) if len(self.planes) > 1 else self.planes[0]
        sessions = rng.choice(self.visits[person], size=count)
        starts = rng.integers(0, self.store.depth(plane) - self.slab_slices + 1, size=count)
        return self.at(list(zip(sessions.tolist(), starts.tolist(), strict=True)), plane=plane)

    def batches(self, batch_size: int, *, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield batches without end."""
        visits = self.visits
        persons, queue = list(visits), list[str]()
        while True:
            while len(queue) < batch_size:
                queue += [persons[i] for i in rng.permutation(len(persons))]
            drawn, queue = queue[:batch_size], queue[batch_size:]
            chosen = [int(rng.choice(visits[person])) for person in drawn]
            plane = str(rng.choice(self.planes)) if len(self.planes) > 1 else self.planes[0]
            starts = rng.integers(0, self.store.depth(plane) - self.slab_slices + 1, size=batch_size)
            yield self.at(list(zip(chosen, starts.tolist(), strict=True)), plane=plane)


def read_ahead(batches: Iterator[Batch], *, pin: bool, depth: int = 2) -> Iterator[Batch]:
    """Yield the same batches in the same order, read in a thread while the device computes.

    Parameters
    ----------
    pin
        Whether they go to a GPU.
    depth
        Batches that wait at most.
    """

    def take() -> Batch:
        batch = next(batches)
        return batch.pinned() if pin else batch

    with ThreadPoolExecutor(1, thread_name_prefix="slabs") as reader:
        waiting = deque(reader.submit(take) for _ in range(depth))
        while True:
            batch = waiting.popleft().result()
            waiting.append(reader.submit(take))
            yield batch


def _stack(arrays: Sequence[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
