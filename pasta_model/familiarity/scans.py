# SPDX-License-Identifier: Apache-2.0
"""Features of many MRIs, from prepared sites or manifests; one row a person where they are to be summed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.manifest import Session, read_manifest
from pasta_model.data.splits import people
from pasta_model.data.store import SiteStore, spacing_of
from pasta_model.data.volume import read_volume
from pasta_model.errors import ManifestError, Problems, VolumeError
from pasta_model.familiarity.features import COUNT, features_of, features_of_crop

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scan:
    """One MRI of a site.

    Attributes
    ----------
    split
        "train", "valid" or "test"; empty where nothing is split.
    features, spacing
        Functions that read it: its features (k,), and its voxel size in mm.
    """

    name: str
    person: str
    split: str
    features: Callable[[], NDArray[np.float64]]
    spacing: Callable[[], float]


def scans_of(place: Path) -> list[Scan]:
    """List the MRIs of a prepared site (a folder) or of a manifest.

    Raises
    ------
    StoreError, ManifestError
        When it cannot be read.
    """
    if place.is_dir():
        return list(_stored(SiteStore(place)))
    if place.suffix not in {".tsv", ".csv"}:
        raise ManifestError(f"{place}: wanted a prepared site (a folder) or a manifest (.tsv, .csv)")
    return list(_listed(read_manifest(place, needs_pet=False)))


def first_scans(scans: Sequence[Scan], split: str) -> list[Scan]:
    """Keep the first MRI of each person of a split; where nothing is split, everybody trains."""
    split = split if any(scan.split for scan in scans) or split != "train" else ""
    chosen: dict[str, Scan] = {}
    for scan in scans:
        if scan.split == split:
            chosen.setdefault(scan.person, scan)
    return list(chosen.values())


def one_spacing(scans: Sequence[Scan]) -> float:
    """Return the voxel size of all scans in mm: sharpness and noise of two sizes are not the same thing.

    Raises
    ------
    ManifestError
        When there is no scan, or there are two sizes.
    """
    found = sorted({scan.spacing() for scan in scans})
    if len(found) != 1:
        raise ManifestError(f"found MRIs of {found} mm, wanted one voxel size; prepare all sites alike")
    return found[0]


def feature_table(
    scans: Sequence[Scan], *, progress: Progress = lambda done, total: None
) -> NDArray[np.float64]:
    """Return the features of each scan, (scans, k).

    Raises
    ------
    VolumeError
        With a line for every scan that cannot be used.
    """
    problems, rows = Problems("MRIs that cannot be used"), []
    for done, scan in enumerate(scans, start=1):
        try:
            rows.append(scan.features())
        except VolumeError as error:
            problems.add(f"{scan.name}: {error}")
        progress(done, len(scans))
    problems.raise_if_any(VolumeError)
    return np.asarray(rows, np.float64).reshape(len(rows), COUNT)


def _stored(store: SiteStore) -> Iterator[Scan]:
    def features(row: int) -> NDArray[np.float64]:
        mri, _ = store.slab(row, 0, store.slices)
        return features_of_crop(mri, store.template)

    for row, entry in enumerate(store.entries):
        name = f"{store.site}: {entry.subject}_{entry.session}"
        yield Scan(
            name, entry.person, entry.split, partial(features, row), lambda: store.template.head.spacing
        )


def _listed(sessions: Sequence[Session]) -> Iterator[Scan]:
    who = people(sessions)
    for session in sessions:
        yield Scan(
            session.name,
            who[session.subject],
            session.split or "",
            partial(_features_of_file, session.mri),
            partial(spacing_of, session),
        )


def _features_of_file(mri: Path) -> NDArray[np.float64]:
    return features_of(read_volume(mri))
