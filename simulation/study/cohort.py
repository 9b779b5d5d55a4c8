# SPDX-License-Identifier: Apache-2.0
"""The people of a study: read or grown, put at sites, split, and prepared as stores.

A folder of a study holds `cohort/` (twins only), `splits.tsv`, `sites/` (a store a training site) and
`pool/pooled` (the same persons in one place). A held-out site has no store: nobody trains on it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pasta_model.data.manifest import Session, write_splits
from pasta_model.data.splits import apply_splits, assign_splits, people, refuse_leakage
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.errors import ConfigError, Problems
from simulation.study.partition import partitioned
from simulation.study.settings import StudySettings
from simulation.study.tables import read_tables
from simulation.twins.cohort import build_cohort

POOL = "pooled"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class People:
    """Who is where in a study.

    Attributes
    ----------
    sessions
        All of them, with site and split; those of held-out sites are in split "test".
    training, held_out
        Names of the sites.
    """

    sessions: tuple[Session, ...]
    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, site: str, *splits: str) -> list[Session]:
        """Return the sessions of a site in these splits; of all, where none is named."""
        return [s for s in self.sessions if s.site == site and (not splits or s.split in splits)]

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, those that train first."""
        return (*self.training, *self.held_out)

    @property
    def measured(self) -> list[Session]:
        """The sessions that no training has seen."""
        return [s for s in self.sessions if s.split == "test"]

    @property
    def seen(self) -> set[str]:
        """The persons that trained or validated anywhere."""
        persons = people(self.sessions)
        return {persons[s.subject] for s in self.sessions if s.split != "test"}


def gather(study: StudySettings, folder: Path, *, workers: int, progress: Progress) -> People:
    """Read the cohort, or grow it once; place and split its persons.

    Raises
    ------
    ManifestError, SplitError, ConfigError
        When a table cannot be used, two tables may call two people by one name, a person would leak, or a
        site cannot be held out or trained on.
    """
    if study.cohort.twins:
        root = folder / "cohort"
        if not (root / "dataset_description.json").is_file():
            build_cohort(study.cohort.twins, root, workers=workers, progress=progress)
        tables: Sequence[Path] = sorted(root.glob("*/participants.tsv"))
    else:
        tables = study.cohort.manifests
    sessions = read_tables(tables)
    seed = study.seeds[0]
    placed = partitioned(sessions, study.partition, seed=seed)
    held_out = study.partition.held_out
    _refuse_sites(placed, held_out)
    open_ones = [s for s in placed if s.site not in held_out]
    given = {s.subject: s.split for s in open_ones if s.split}
    splits = assign_splits(open_ones, valid=study.split.valid, test=study.split.test, seed=seed, given=given)
    write_splits(folder / "splits.tsv", splits)
    closed = [replace(s, split="test") for s in placed if s.site in held_out]
    everybody = (*apply_splits(open_ones, splits), *closed)
    refuse_leakage(everybody, where="the study")
    training = tuple(sorted({s.site for s in open_ones}))
    _refuse_empty(everybody, training)
    return People(everybody, training, tuple(sorted(held_out)))


def prepare(study: StudySettings, found: People, folder: Path, *, progress: Progress) -> None:
    """Prepare a store a training site, and one of all of them; those that are there stay."""
    spacing = study.at_spacing(found.sessions[0]).common["data.spacing"]
    for site in found.training:
        _store(folder / "sites" / site, found.of(site), float(spacing), progress)
    pooled = [replace(s, site=POOL) for site in found.training for s in found.of(site)]
    _store(folder / "pool" / POOL, pooled, float(spacing), progress)


def stores(found: People, folder: Path) -> dict[str, SiteStore]:
    """Open the training sites' stores."""
    return {site: SiteStore(folder / "sites" / site) for site in found.training}


def _store(path: Path, sessions: Sequence[Session], spacing: float, progress: Progress) -> None:
    if not (path / "index.json").is_file():
        prepare_store(path, sessions, spacing=spacing, progress=progress)


def _refuse_sites(sessions: Sequence[Session], held_out: Sequence[str]) -> None:
    found = {s.site for s in sessions}
    problems = Problems("the study's sites cannot be used")
    for name in held_out:
        if name not in found:
            problems.add(f"partition.held-out names {name!r}; there are {', '.join(sorted(found))}")
    if not found - set(held_out):
        problems.add("every site is held out, so nobody trains; hold out fewer")
    problems.raise_if_any(ConfigError)


def _refuse_empty(sessions: Sequence[Session], training: Sequence[str]) -> None:
    """Refuse a training site without a training person, and a study with nobody to measure on."""
    problems = Problems("the study's sites cannot be used")
    counts: Mapping[tuple[str, str | None], int] = Counter((s.site, s.split) for s in sessions)
    for site in training:
        if not counts.get((site, "train")):
            problems.add(f"{site}: nobody trains; change split, or pool it by partition.smallest")
    if not any(split == "test" for _, split in counts):
        problems.add("nobody is left to measure on; wanted persons in split test")
    problems.raise_if_any(ConfigError)
