# SPDX-License-Identifier: Apache-2.0
"""Slabs of one or several prepared sites, as if they were one.

Persons of all sites are drawn as `SlabLoader` draws those of one: of a single store, the very same slabs in
the same order as PASTA trains on.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Moments, Standardisation, clinical_table
from pasta_model.data.planes import each_plane
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.data.store import SiteStore
from pasta_model.errors import Problems, StoreError


class Pool:
    """The stores that a rival is trained on.

    Parameters
    ----------
    stores
        Prepared sites; their names must differ.
    settings
        Of the run: spacing, planes, clinical scheme and slab.

    Raises
    ------
    StoreError
        With a line for every store that cannot be used.
    """

    def __init__(self, stores: Sequence[Path], settings: Settings) -> None:
        self.settings = settings
        self.stores = sorted((SiteStore(path) for path in stores), key=lambda store: store.site)
        self.scheme = SCHEMES[settings.data.clinical]
        problems = Problems("the stores cannot be pooled")
        for reason in self._misfits():
            problems.add(reason)
        problems.raise_if_any(StoreError)

    def _misfits(self) -> Iterator[str]:
        wanted = self.settings.data.spacing
        names = [store.site for store in self.stores]
        if not names:
            yield "found no store, wanted at least one"
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield f"{names.count(name)} stores are of site {name!r}; leave out all but one"
        for store in self.stores:
            if store.template.head.spacing != wanted:
                yield (
                    f"site {store.site} is prepared at {store.template.head.spacing} mm, wanted {wanted} mm;"
                    " prepare it again or set data.spacing"
                )
            if not store.indices("train"):
                yield f"site {store.site} has no training session; leave it out"

    @property
    def name(self) -> str:
        """The sites together; of one store, its site."""
        return "+".join(store.site for store in self.stores)

    @cached_property
    def standardisation(self) -> Standardisation:
        """Clinical mean and spread over all training sessions."""
        rows = [store.entries[i].clinical for store in self.stores for i in store.indices("train")]
        return Moments.of(clinical_table(rows, self.scheme)).standardisation()

    def shares(self) -> dict[str, float]:
        """Return the share of each site in the training persons."""
        persons = {store.site: len(store.persons("train")) for store in self.stores}
        return {site: number / sum(persons.values()) for site, number in persons.items()}

    def validating(self) -> list[SlabLoader]:
        """Return the loaders that the compass reads: valid splits, or training ones where there is none."""
        having = [store for store in self.stores if store.indices("valid")]
        return [self._loader(store, "valid") for store in having] or self.training()

    def training(self) -> list[SlabLoader]:
        """Return the loader of every site's training split."""
        return [self._loader(store, "train") for store in self.stores]

    def _loader(self, store: SiteStore, split: str) -> SlabLoader:
        return SlabLoader(
            store,
            split=split,
            slab_slices=self.settings.network.slab_slices,
            scheme=self.scheme,
            standardisation=self.standardisation,
            planes=self.settings.data.planes,
        )

    def batches(self, batch_size: int, *, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield training batches without end; persons come again when all of all sites have been seen."""
        loaders = self.training()
        planes, length = each_plane(self.settings.data.planes), self.settings.network.slab_slices
        persons = [(loader, person) for loader in loaders for person in loader.visits]
        queue = list[tuple[SlabLoader, str]]()
        while True:
            while len(queue) < batch_size:
                queue += [persons[i] for i in rng.permutation(len(persons))]
            drawn, queue = queue[:batch_size], queue[batch_size:]
            chosen = [int(rng.choice(loader.visits[person])) for loader, person in drawn]
            plane = str(rng.choice(planes)) if len(planes) > 1 else planes[0]
            depth = loaders[0].store.depth(plane)
            starts = rng.integers(0, depth - length + 1, size=batch_size).tolist()
            places = zip(drawn, chosen, starts, strict=True)
            yield joined([one.at([(index, start)], plane=plane) for (one, _), index, start in places])


def joined(parts: Sequence[Batch]) -> Batch:
    """Put batches one after the other."""
    clinical = [part.clinical for part in parts if part.clinical is not None]
    return Batch(
        torch.cat([part.mri for part in parts]),
        torch.cat([part.pet for part in parts]),
        torch.cat([part.metaroi for part in parts]),
        torch.cat(clinical) if clinical else None,
    )
