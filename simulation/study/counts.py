# SPDX-License-Identifier: Apache-2.0
"""How many persons a study tells of: no number of too few, nor one that would tell it by difference."""

import re
from collections import Counter
from collections.abc import Mapping

from pasta_model.data.manifest import DIAGNOSES, SPLITS
from pasta_model.data.splits import people
from pasta_model.evaluation.groups import NOT_SHOWN, few, suppressed, told
from simulation.study.cohort import People

Sizes = Mapping[str, Mapping[str, int]]


def counted(number: int, *, smallest: int) -> str:
    """Return a number of persons or sessions that stands alone; of too few "fewer than 5"."""
    return told(number, few(smallest) if number < smallest else "")


def without_few(reason: str, *, smallest: int) -> str:
    """Return a reason as the report may tell it: without numbers of too few persons."""
    number = r"\b\d+(?= (person|subject|session)(s|\(s\))?)"
    return re.sub(number, lambda found: counted(int(found[0]), smallest=smallest), reason)


def in_all(found: People, *, smallest: int) -> str:
    """Return how many persons there are; "not shown" where that would tell of a split of too few."""
    persons = people(found.sessions)
    splits = Counter(split for _, split in {(persons[s.subject], str(s.split)) for s in found.sessions})
    if splits.total() >= smallest and suppressed(splits, smallest=smallest):
        return NOT_SHOWN
    return counted(splits.total(), smallest=smallest)


def table_of_sites(found: People, *, smallest: int = 0) -> list[tuple[str, ...]]:
    """Return a row a site: persons in train, valid and test, and sessions of each diagnosis.

    Parameters
    ----------
    smallest
        Of fewer persons no number is told, nor what would tell it: the sites of a split add up to what other
        tables tell, and the splits of a site to its diagnoses. That nobody is there (0) is told, except of
        a site that is too small itself.
    """
    sizes = {site: _sizes(found, site) for site in found.sites}
    hidden = _untold(sizes, smallest)
    rows = []
    for site, own in sizes.items():
        visits = Counter(s.diagnosis for s in found.of(site))
        numbers = {name: own[name] for name in SPLITS} | {name: visits[name] for name in DIAGNOSES}
        cells = [told(number, hidden[site].get(name, "")) for name, number in numbers.items()]
        rows.append((site, *cells, "held out" if site in found.held_out else ""))
    return rows


def _sizes(found: People, site: str) -> dict[str, int]:
    """Return the persons of a site in each split and with each diagnosis."""
    persons = people(found.sessions)
    own = found.of(site)
    who = {name: {persons[s.subject] for s in own if name in (s.split, s.diagnosis)} for name in _COLUMNS}
    return {name: len(group) for name, group in who.items()}


def _untold(sizes: Sizes, smallest: int) -> dict[str, dict[str, str]]:
    """Return by site which of its numbers are not told, and why."""
    hidden: dict[str, dict[str, str]] = {site: {} for site in sizes}
    for split in SPLITS:
        there = {site: own[split] for site, own in sizes.items() if own[split]}
        for site, why in suppressed(there, smallest=smallest).items():
            hidden[site][split] = why
    for site, own in sizes.items():
        if sum(own[split] for split in SPLITS) < smallest:
            hidden[site] = dict.fromkeys(_COLUMNS, few(smallest))
            continue
        parts = {name: own[name] for name in DIAGNOSES if own[name]}
        if hidden[site]:  # as one part that is hidden, however large
            parts["splits"] = min(sum(own[split] for split in hidden[site]), smallest - 1)
        untold = suppressed(parts, smallest=smallest)
        hidden[site] |= {name: untold[name] for name in DIAGNOSES if name in untold}
    return hidden


_COLUMNS = (*SPLITS, *DIAGNOSES)
