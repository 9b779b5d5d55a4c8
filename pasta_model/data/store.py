# SPDX-License-Identifier: Apache-2.0
"""A prepared site on disk: reads a random slab without loading the volume.

A store is a directory with `index.json` (who, which split, clinical values, scales) and two arrays,
`mri.npy` and `pet.npy`: (N sessions, D slices, H, W) float16 in network units, memory-mapped. An axial
slab is one contiguous read. `metaroi.npy` is the MetaROI map that the site trains with: (D, H, W) float32
in [0, 1]; the index says whether it came from the atlas or from which file.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Template, template, template_of
from pasta_model.data.manifest import Session
from pasta_model.data.metaroi import metaroi_map, read_metaroi
from pasta_model.data.planes import SLICE_AXIS
from pasta_model.data.scaling import PET_SCALE, Scale, mri_scale
from pasta_model.data.splits import people, refuse_leakage
from pasta_model.data.volume import read_volume
from pasta_model.errors import Problems, StoreError, VolumeError
from pasta_model.files import atomic_directory, write_json

FORMAT = 1
MIN_SUVR, MAX_SUVR = 0.1, 20.0  # what a PET in SUVR can have as its 99th percentile


@dataclass(frozen=True)
class Entry:
    """A stored session.

    Attributes
    ----------
    mri_full
        MRI units that land on +1 (see `data.scaling`).
    person
        Who the subject is (see `data.splits.people`); as the subject where nothing else is said.
    """

    subject: str
    session: str
    diagnosis: str
    split: str
    clinical: dict[str, float | None]
    mri_full: float
    mri: str
    pet: str
    person: str = ""

    def __post_init__(self) -> None:
        if not self.person:  # a store of version 0.1
            object.__setattr__(self, "person", self.subject)


class SiteStore:
    """An open store; cheap to open, reads only what is asked for."""

    def __init__(self, path: Path) -> None:
        index = _read_index(path)
        self.path = path
        self._has_map = "metaroi" in index  # stores of version 0.1 have none
        self.site: str = index["site"]
        self.template: Template = template(index["spacing"])
        self.entries = tuple(Entry(**entry) for entry in index["entries"])
        try:
            self._mri = np.load(path / "mri.npy", mmap_mode="r", allow_pickle=False)
            self._pet = np.load(path / "pet.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"{path}: the arrays cannot be read ({error}); prepare the site again"
            ) from error
        wanted = (len(self.entries), *_network_shape(self.template))
        if self._mri.shape != wanted or self._pet.shape != wanted:
            raise StoreError(
                f"{path}: found arrays {self._mri.shape}, wanted {wanted}; prepare the site again"
            )

    @cached_property
    def metaroi(self) -> NDArray[np.float32]:
        """The MetaROI map m, (D, H, W) in [0, 1]; the atlas's where the store is from before it was kept."""
        if not self._has_map:
            return _network_map(metaroi_map(self.template.crop))
        try:
            kept = np.load(self.path / "metaroi.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"{self.path}: metaroi.npy cannot be read ({error}); prepare the site again"
            ) from error
        wanted = _network_shape(self.template)
        if kept.shape != wanted:
            raise StoreError(
                f"{self.path}: found a MetaROI map {kept.shape}, wanted {wanted}; prepare the site again"
            )
        return np.asarray(kept, np.float32)

    @property
    def slices(self) -> int:
        """Axial slices of a volume, D."""
        return int(self._mri.shape[1])

    def indices(self, split: str) -> list[int]:
        """Positions of the sessions of a split."""
        return [i for i, entry in enumerate(self.entries) if entry.split == split]

    def persons(self, split: str) -> list[str]:
        """Return the persons of a split."""
        return sorted({self.entries[i].person for i in self.indices(split)})

    def depth(self, plane: str) -> int:
        """Slices of a volume in a plane."""
        return int(self._mri.shape[1 + SLICE_AXIS[plane]])

    def slab(
        self, index: int, start: int, length: int, *, plane: str = "axial"
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """MRI and PET of `length` slices from `start`, each (length, H, W) float32 in [-1, 1].

        An axial slab is one contiguous read; of another plane, many short ones.
        """
        part = slice(start, start + length)
        axis = SLICE_AXIS[plane]
        turned = (np.moveaxis(volumes[index], axis, 0)[part] for volumes in (self._mri, self._pet))
        mri, pet = (np.ascontiguousarray(slab, dtype=np.float32) for slab in turned)
        return mri, pet


def prepare_store(
    path: Path,
    sessions: Sequence[Session],
    *,
    spacing: float,
    metaroi: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SiteStore:
    """Read every scan of a site once and write its store, whole or not at all.

    Parameters
    ----------
    metaroi
        The user's own MetaROI map, a NIfTI in MNI space; without it, the atlas's.

    Raises
    ------
    StoreError
        When there is no session, or a session has no split.
    SplitError
        When a subject is in two splits.
    VolumeError
        With a line for every scan that cannot be used, or when the map cannot.
    """
    grid = template(spacing)
    site = _one_site(path, sessions)
    weights = metaroi_map(grid.crop) if metaroi is None else read_metaroi(metaroi, grid.crop)
    problems = Problems(f"site {site}: scans that cannot be used")
    shape = (len(sessions), *_network_shape(grid))
    with atomic_directory(path) as work:
        mri, pet = (
            np.lib.format.open_memmap(work / name, mode="w+", dtype=np.float16, shape=shape)
            for name in ("mri.npy", "pet.npy")
        )
        entries, persons = [], people(sessions)
        for i, session in enumerate(sessions):
            try:
                mri[i], pet[i], scale = _load_pair(session, grid)
                entries.append(asdict(_entry(session, persons[session.subject], scale)))
            except VolumeError as error:
                problems.add(f"{session.name}: {error}")
            progress(i + 1, len(sessions))
        problems.raise_if_any(VolumeError)
        mri.flush()
        pet.flush()
        np.save(work / "metaroi.npy", _network_map(weights), allow_pickle=False)
        index = {"format": FORMAT, "site": site, "spacing": spacing, "entries": entries}
        index["metaroi"] = "atlas" if metaroi is None else _provenance(metaroi)
        write_json(work / "index.json", index)
        _keep_witness(path, work)
    return SiteStore(path)


def _keep_witness(before: Path, work: Path) -> None:
    """Take over what the site's privacy ledger is known by: these are the same people."""
    witness = before / "state" / "ledger.json"
    if witness.is_file():
        (work / "state").mkdir(mode=0o700)
        shutil.copyfile(witness, work / "state" / "ledger.json")


def _one_site(path: Path, sessions: Sequence[Session]) -> str:
    """Return the name of the one site that these sessions are of; refuse what makes no store."""
    if not sessions:
        raise StoreError(f"{path}: the site has no session; wanted at least one")
    if path.is_dir() and any(path.iterdir()) and not (path / "index.json").is_file():
        raise StoreError(f"{path}: holds other files; choose an empty or new folder")
    if any(s.split is None for s in sessions):
        raise StoreError(f"{path}: sessions without a split; make splits first")
    refuse_leakage(sessions)
    sites = sorted({s.site for s in sessions})
    if len(sites) > 1:
        raise StoreError(f"{path}: sessions of sites {', '.join(sites)}; wanted one site a store")
    return sites[0]


def spacing_of(session: Session) -> float:
    """Return the spacing in mm of a session's MRI, which must lie on a known grid."""
    mri = read_volume(session.mri)
    return template_of(mri.data.shape, mri.affine).head.spacing


def check_scans(sessions: Sequence[Session], *, spacing: float) -> None:
    """Open every pair of scans and check it as `prepare_store` would, writing nothing.

    Raises
    ------
    VolumeError
        With a line for every scan that cannot be used.
    """
    problems = Problems("scans that cannot be used")
    for session in sessions:
        try:
            _load_pair(session, template(spacing))
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
    problems.raise_if_any(VolumeError)


def _load_pair(session: Session, grid: Template) -> tuple[NDArray[np.float32], NDArray[np.float32], Scale]:
    mri, pet = read_volume(session.mri), read_volume(session.pet, unit="SUVR")
    if mri.data.shape != pet.data.shape or not np.allclose(mri.affine, pet.affine, atol=1e-3):
        raise VolumeError(
            f"MRI {mri.data.shape} and PET {pet.data.shape} lie on different grids;"
            " wanted both on the template's grid: register and resample them first"
        )
    found = template_of(mri.data.shape, mri.affine)
    if found != grid:
        raise VolumeError(f"found {found.name}, wanted {grid.name}; resample, or set data.spacing")
    scale = mri_scale(mri.data)
    if not pet.data.any():
        raise VolumeError("the PET is empty (all zero); leave the session out")
    top = float(np.quantile(pet.data[mri.data > 0], 0.99))
    if not MIN_SUVR < top < MAX_SUVR:
        raise VolumeError(
            f"the PET's 99th percentile in the brain is {top:g}, wanted {MIN_SUVR:g} to {MAX_SUVR:g};"
            " it must be in SUVR"
        )
    return (
        grid.to_network(scale.to_network(mri.data)),
        grid.to_network(PET_SCALE.to_network(pet.data)),
        scale,
    )


def _entry(session: Session, person: str, scale: Scale) -> Entry:
    return Entry(
        subject=session.subject,
        session=session.session,
        diagnosis=session.diagnosis,
        split=str(session.split),
        clinical=dict(session.clinical),
        mri_full=scale.full,
        mri=str(session.mri.resolve()),
        pet=str(session.pet.resolve()),
        person=person,
    )


def _network_shape(grid: Template) -> tuple[int, int, int]:
    x, y, z = grid.size
    return z, x, y


def _network_map(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn a map on the crop, (x, y, z), as the network's volumes lie, (z, x, y)."""
    return np.ascontiguousarray(np.moveaxis(weights, 2, 0))


def _provenance(file: Path) -> dict[str, str]:
    return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((path / "index.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: no prepared site here; make one with 'pasta store'") from error
    except ValueError as error:
        raise StoreError(f"{path}: index.json is damaged; prepare the site again") from error
    if index.get("format") != FORMAT:
        raise StoreError(f"{path}: format {index.get('format')}, wanted {FORMAT}; prepare the site again")
    return index
