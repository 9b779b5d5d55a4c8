# SPDX-License-Identifier: Apache-2.0
"""Whose PETs make norms: people who are cognitively normal at every visit, with their first visit."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pasta_model.data.manifest import Session
from pasta_model.data.scaling import PET_SCALE
from pasta_model.data.splits import people
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import Volume, read_volume
from pasta_model.errors import VolumeError
from pasta_model.metrics.similarity import brain_mask
from pasta_model.norms.resolution import Mask
from pasta_model.norms.sums import NormPerson

NORMAL = "CN"


class _Clinical(Protocol):
    def get(self, name: str, /) -> float | None: ...


class _Visit(NamedTuple):
    """A row of a manifest or a store: its position, who it is of, and what is known."""

    row: int
    person: str
    diagnosis: str
    split: str | None
    clinical: _Clinical


class Chosen(NamedTuple):
    """Rows whose PETs make norms, and how many people were left out for want of an age."""

    rows: list[int]
    ageless: int


def choose_sessions(sessions: Sequence[Session], *, split: str | None = None) -> Chosen:
    """Choose a row a person: cognitively normal at every visit of the table, the first visit with an age.

    Parameters
    ----------
    split
        Only people of that split. Norms that contain a person find too little abnormal in that person's
        own PET: keep those out who are to be looked at.
    """
    persons = people(sessions)
    return _choose(
        [_Visit(row, persons[s.subject], s.diagnosis, s.split, s.clinical) for row, s in enumerate(sessions)],
        split,
    )


def choose_entries(store: SiteStore, *, split: str | None = "train") -> Chosen:
    """Choose among the entries of a prepared site, as `choose_sessions` does."""
    visits = [_Visit(i, e.person, e.diagnosis, e.split, e.clinical) for i, e in enumerate(store.entries)]
    return _choose(visits, split)


def people_of_sessions(sessions: Sequence[Session], *, split: str | None = None) -> Iterator[NormPerson]:
    """Read the people of a manifest who make norms, one at a time.

    Raises
    ------
    VolumeError
        Naming the session, when a scan cannot be read.
    """
    persons = people(sessions)
    for row in choose_sessions(sessions, split=split).rows:
        session = sessions[row]
        try:
            pet = read_volume(session.pet, unit="SUVR")
            brain = brain_mask(read_volume(session.mri).data)
        except VolumeError as error:
            raise VolumeError(f"{session.name}: {error}") from error
        yield NormPerson(persons[session.subject], session.clinical.get("age"), pet, brain)


def people_of_store(store: SiteStore, *, split: str | None = "train") -> Iterator[NormPerson]:
    """Read the people of a prepared site who make norms, one at a time."""
    for row in choose_entries(store, split=split).rows:
        entry = store.entries[row]
        mri, pet = (np.moveaxis(part, 0, 2) for part in store.slab(row, 0, store.slices))  # (x, y, z)
        suvr = Volume(PET_SCALE.to_file(pet), store.template.crop.affine, "SUVR")
        yield NormPerson(entry.person, entry.clinical.get("age"), suvr, _brain(mri))


def _brain(mri: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Mask:
    return brain_mask(mri + 1.0)  # in network units, the empty space around the brain is -1


def _choose(visits: Sequence[_Visit], split: str | None) -> Chosen:
    by_person: dict[str, list[_Visit]] = defaultdict(list)
    for visit in visits:
        by_person[visit.person].append(visit)
    rows, ageless = list[int](), 0
    for own in by_person.values():
        wanted = [v for v in own if split is None or v.split == split]
        if not wanted or any(v.diagnosis != NORMAL for v in own):
            continue
        aged = {v.row: age for v in wanted if (age := v.clinical.get("age")) is not None}
        ageless += not aged
        rows += [min(aged, key=lambda row: (aged[row], row))] if aged else []
    return Chosen(sorted(rows), ageless)
