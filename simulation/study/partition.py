# SPDX-License-Identifier: Apache-2.0
"""Who is at which site of a study: real sites, vendors, or sites made to differ in diagnoses or size.

All visits of a person are at one site. Sites that are made are called `site-1`, `site-2`, ...
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pasta_model.data.manifest import DIAGNOSES, Session
from pasta_model.data.partition import By, partition_sites
from pasta_model.data.splits import people
from pasta_model.errors import ConfigError, ManifestError, Problems
from pasta_model.seeding import numpy_generator
from simulation.study.settings import PartitionPart

VENDORS = ("Siemens", "GE", "Philips", "Canon", "Toshiba", "United Imaging", "CTI", "Hitachi")


def partitioned(sessions: Sequence[Session], part: PartitionPart, *, seed: int) -> tuple[Session, ...]:
    """Return the sessions with `site` renamed to the site of the study that they are at.

    Small sites are pooled, but none that is held out: nobody trains there, however few they are.

    Raises
    ------
    ConfigError
        When there are fewer persons than sites, or two sites would have one name.
    ManifestError
        With a line for every person whose vendor or phase is wanted and not known.
    """
    if part.by == "diagnosis":
        sessions = _renamed(sessions, by_diagnosis(sessions, part, seed=seed))
    elif part.by == "size":
        sessions = _renamed(sessions, by_size(sessions, part, seed=seed))
    elif part.by == "vendor":
        sessions = _renamed(sessions, by_vendor(sessions))
    else:
        return _pooled(sessions, part, by=part.by)
    return _pooled(sessions, part, by="site")


def by_diagnosis(sessions: Sequence[Session], part: PartitionPart, *, seed: int) -> Mapping[str, str]:
    """Draw each person's site: for each diagnosis, shares of the sites from a Dirichlet distribution.

    Hsu et al. 2019 (arXiv 1909.06335): the smaller alpha is, the more the sites differ. Every site gets a
    person at least.
    """
    persons = _worst_diagnoses(sessions)
    names = _names(part.sites, len(persons))
    rng = numpy_generator(seed, "partition", "diagnosis")
    places: dict[str, str] = {}
    for diagnosis in DIAGNOSES:
        group = [person for person, found in persons.items() if found == diagnosis]
        rng.shuffle(group)
        shares = rng.dirichlet(np.full(part.sites, part.alpha))
        ends = np.round(np.cumsum(shares) * len(group)).astype(int)
        for name, who in zip(names, np.split(np.asarray(group, dtype=object), ends[:-1]), strict=True):
            places |= dict.fromkeys(who.tolist(), name)
    return _none_empty(places, names)


def by_size(sessions: Sequence[Session], part: PartitionPart, *, seed: int) -> Mapping[str, str]:
    """Draw each person's site: alike in diagnoses, each site `ratio` times the next one."""
    persons = _worst_diagnoses(sessions)
    names = _names(part.sites, len(persons))
    rng = numpy_generator(seed, "partition", "size")
    weights = part.ratio ** -np.arange(part.sites, dtype=np.float64)
    room = weights / weights.sum() * len(persons)
    taken = np.zeros(part.sites)
    order = list(persons)
    rng.shuffle(order)
    places = {}
    for person in sorted(order, key=lambda p: DIAGNOSES.index(persons[p])):  # stable: shuffled within
        site = int(np.argmax((room - taken) / room))  # the one that is furthest from full
        taken[site] += 1
        places[person] = names[site]
    return _none_empty(places, names)


def by_vendor(sessions: Sequence[Session]) -> Mapping[str, str]:
    """Read each person's vendor in the sidecars (BIDS `Manufacturer`) of the first session's scans.

    Raises
    ------
    ManifestError
        With a line for every person whose scans do not say.
    """
    persons = people(sessions)
    problems = Problems("no partition by vendor")
    places: dict[str, str] = {}
    for session in sorted(sessions, key=lambda s: s.name):
        person = persons[session.subject]
        if person in places:
            continue
        said = _manufacturer(session.mri) or _manufacturer(session.pet)
        if not said:
            problems.add(f"{session.name}: no Manufacturer in the JSON beside the MRI or the PET; write it")
            continue
        known = next((v for v in VENDORS if re.search(rf"\b{v}", said, re.IGNORECASE)), said)
        places[person] = re.sub(r"[^\w.-]+", "-", known)
    problems.raise_if_any(ManifestError)
    return places


def _pooled(sessions: Sequence[Session], part: PartitionPart, *, by: By) -> tuple[Session, ...]:
    """Return the sessions at their sites, the small ones pooled that are not held out."""
    apart = partition_sites(sessions, by=by)
    held = [s.site in part.held_out for s in apart]
    rest = [s for s, out in zip(sessions, held, strict=True) if not out]
    pooled = partition_sites(rest, by=by, smallest=part.smallest)
    both = {s.site for s, out in zip(apart, held, strict=True) if out} & {s.site for s in pooled}
    if both:
        raise ConfigError(
            f"held-out {', '.join(sorted(both))}: small sites are pooled as that; rename the site"
        )
    others = iter(pooled)
    return tuple(s if out else next(others) for s, out in zip(apart, held, strict=True))


def _manufacturer(scan: Path) -> str:
    sidecar = scan.with_name(re.sub(r"\.nii(\.gz)?$", ".json", scan.name))
    try:
        return str(json.loads(sidecar.read_text(encoding="utf-8")).get("Manufacturer", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _worst_diagnoses(sessions: Sequence[Session]) -> dict[str, str]:
    persons = people(sessions)
    found: dict[str, str] = {}
    for session in sorted(sessions, key=lambda s: (DIAGNOSES.index(s.diagnosis), s.name)):
        found[persons[session.subject]] = session.diagnosis
    return dict(sorted(found.items()))


def _names(sites: int, persons: int) -> list[str]:
    if persons < sites:
        raise ConfigError(f"partition.sites = {sites}, and there are {persons} persons; wanted fewer sites")
    return [f"site-{number}" for number in range(1, sites + 1)]


def _none_empty(places: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    """Move a person of the largest site to each empty one."""
    for name in names:
        if name not in places.values():
            largest = max(names, key=lambda n: sum(site == n for site in places.values()))
            places[next(person for person, site in places.items() if site == largest)] = name
    return places


def _renamed(sessions: Sequence[Session], places: Mapping[str, str]) -> list[Session]:
    persons = people(sessions)
    return [replace(s, site=places[persons[s.subject]]) for s in sessions]
