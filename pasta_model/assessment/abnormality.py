# SPDX-License-Identifier: Apache-2.0
"""z maps of many sessions, real and synthetic, and how their hypometabolism overlaps; over processes.

Shapes: volumes are (x, y, z) on the PETs' grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from pasta_model.data.grid import template_of
from pasta_model.data.manifest import Session
from pasta_model.data.splits import people
from pasta_model.data.tables import write_table
from pasta_model.data.volume import Volume, read_volume
from pasta_model.errors import Problems, VolumeError
from pasta_model.evaluation.brains import brain_of
from pasta_model.norms.anatomy import grey_matter
from pasta_model.norms.hypometabolism import SubjectOverlap, overlap_of
from pasta_model.norms.model import Norms
from pasta_model.workers import process_pool

REAL = "real PET"


@dataclass(frozen=True)
class Abnormality:
    """What was found, and which sessions could not be looked at.

    Attributes
    ----------
    ageless
        Names of sessions without an age, to which no norm applies.
    """

    overlaps: tuple[SubjectOverlap, ...]
    ageless: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    session: Session
    person: str
    pets: Mapping[str, Path]
    norms: Path
    mask: Path | None


def abnormality(
    sessions: Sequence[Session],
    pets: Mapping[str, Callable[[Session], Path]],
    *,
    norms: Path,
    masks: Mapping[str, Path] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Abnormality:
    """Compare the hypometabolism of synthetic PETs with that of the real ones, in the grey matter.

    Parameters
    ----------
    pets
        Method to where a session's synthetic PET lies.
    norms
        File of `norms.model.Norms`; of people who are not among the sessions.
    masks
        By session's name, its brain; without one that of its MRI.

    Raises
    ------
    VolumeError
        With a line for every session that cannot be compared.
    """
    persons = people(sessions)
    aged = [s for s in sessions if s.clinical.get("age") is not None]
    brains = masks or {}
    jobs = [
        _Job(
            s,
            persons[s.subject],
            {method: place(s) for method, place in pets.items()},
            norms,
            brains.get(s.name),
        )
        for s in aged
    ]
    problems, found = Problems("PETs that cannot be compared with norms"), list[SubjectOverlap]()
    with process_pool(workers) as pool:
        for done, (overlaps, problem) in enumerate(pool.map(_overlaps, jobs, chunksize=4), start=1):
            found += overlaps
            if problem:
                problems.add(problem)
            progress(done, len(jobs))
    problems.raise_if_any(VolumeError)
    return Abnormality(tuple(found), tuple(s.name for s in sessions if s not in aged))


def z_maps(
    session: Session, pets: Mapping[str, Path], *, norms: Norms, mask: Path | None = None
) -> dict[str, Volume]:
    """Return the z maps of a session's real PET, as "real PET", and of its synthetic ones, by method.

    Parameters
    ----------
    mask
        A NIfTI of the session's brain; None: that of its MRI.

    Raises
    ------
    ManifestError
        When the session has no age.
    VolumeError
        When a PET cannot be read or compared.
    """
    brain = brain_of(session, mask)
    paths = {REAL: session.pet, **pets}
    age = session.clinical.get("age")
    return {
        name: norms.z_map(read_volume(path, unit="SUVR"), age, brain=brain) for name, path in paths.items()
    }


def write_overlaps(path: Path, overlaps: Sequence[SubjectOverlap]) -> None:
    """Write one row a session, method and threshold: volumes in ml, clusters; then what is lost, invented."""
    names = [*(field.name for field in fields(SubjectOverlap)), "lost_ml", "invented_ml"]
    write_table(path, names, [[_cell(getattr(row, name)) for name in names] for row in overlaps])


def _overlaps(job: _Job) -> tuple[list[SubjectOverlap], str]:
    norms = _norms(job.norms)
    try:
        maps = z_maps(job.session, job.pets, norms=norms, mask=job.mask)
    except VolumeError as error:
        where = f"; its brain is {job.mask}, and norms want the whole brain" if job.mask else ""
        return [], f"{job.session.name}: {error}{where}"
    real = maps.pop(REAL)
    known = template_of(real.data.shape, real.affine)
    look = norms.brain_on(real) & grey_matter(known.head)
    about: dict[str, Any] = {"brain": look, "spacing": known.head.spacing, "person": job.person}
    found = []
    for method, z in maps.items():
        found += overlap_of(
            real.data, z.data, **about, diagnosis=job.session.diagnosis, method=method
        )  # fmt: skip
    return found, ""


@lru_cache(maxsize=1)
def _norms(path: Path) -> Norms:
    return Norms.load(path)


def _cell(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)
