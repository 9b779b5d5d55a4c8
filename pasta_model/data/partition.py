# SPDX-License-Identifier: Apache-2.0
"""Who is at which client when one cohort, such as ADNI, plays a federation.

A person is in one place: at two sites or in two phases, the place of the first visit counts for all visits,
so that nobody's scans are at two clients. Make splits afterwards.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from pasta_model.data.manifest import Session
from pasta_model.data.splits import people
from pasta_model.errors import ConfigError, ManifestError, Problems

By = Literal["site", "phase", "site-phase", "one"]
PHASES = ("ADNI1", "ADNIGO", "ADNI2", "ADNI3", "ADNI4")  # in the order of time
POOLED = "pooled"
Place = tuple[str, ...]  # what a client is made of: a site, a phase, or both


def partition_sites(sessions: Sequence[Session], *, by: By, smallest: int = 0) -> tuple[Session, ...]:
    """Return the sessions, in their order, with `site` renamed to the client that they are at.

    Parameters
    ----------
    by
        "site": as they are; "phase": the study's phases; "site-phase": each site in each phase; "one": all
        at the client "all".
    smallest
        Clients of fewer persons are pooled as "pooled", or by phase as "pooled-ADNI2" with "site-phase". A
        pool keeps even fewer when there are no more.

    Raises
    ------
    ConfigError
        When two clients would have one name, or `by` is unknown.
    ManifestError
        With a line for every person whose phase is wanted and not known.
    """
    if by not in get_args(By):
        raise ConfigError(f"partition by {by!r}, wanted one of {', '.join(get_args(By))}")
    persons = people(sessions)
    places = _places(sessions, persons, by)
    sizes: dict[Place, int] = defaultdict(int)
    for place in places.values():
        sizes[place] += 1
    pooled = {place for place, size in sizes.items() if size < smallest and by != "one"}
    names = {place: "-".join((POOLED, *place[1:])) if place in pooled else "-".join(place) for place in sizes}
    _refuse_one_name_for_two(names, pooled)
    return tuple(replace(s, site=names[places[persons[s.subject]]]) for s in sessions)


def _visit_order(session: Session) -> tuple[int, str, float, str]:
    """Return what visits are sorted by: the phase, then the months in the session's name ("bl", "m06")."""
    known = session.phase.upper() in PHASES
    month = re.fullmatch(r"(?:ses-)?[A-Za-z]*(\d+)", session.session)
    return (
        PHASES.index(session.phase.upper()) if known else len(PHASES),
        session.phase,
        float(month[1]) if month else 0.0,
        session.session,
    )


def _places(sessions: Sequence[Session], persons: dict[str, str], by: By) -> dict[str, Place]:
    """Return each person's place: that of the first visit of which it is known."""
    visits: dict[str, list[Session]] = defaultdict(list)
    for session in sorted(sessions, key=lambda s: (_visit_order(s), s.name, s.site)):
        visits[persons[session.subject]].append(session)
    problems = Problems(f"no partition by {by}")
    places: dict[str, Place] = {}
    for person, theirs in sorted(visits.items()):
        phase = next((s.phase for s in theirs if s.phase), "")
        if "phase" in by and not phase:
            problems.add(f"{person}: no visit has a phase; fill the column 'phase'")
        site = theirs[0].site
        found: dict[By, Place] = {"site": (site,), "phase": (phase,), "one": ("all",)}
        places[person] = found.get(by, (site, phase))
    problems.raise_if_any(ManifestError)
    return places


def _refuse_one_name_for_two(names: dict[Place, str], pooled: set[Place]) -> None:
    makers: dict[str, set[Place]] = defaultdict(set)
    for place, name in names.items():
        makers[name].add(() if place in pooled else place)
    for name, found in makers.items():
        if len(found) > 1:
            raise ConfigError(f"two clients would be called {name!r}; rename a site or phase of that name")
