# SPDX-License-Identifier: Apache-2.0
"""The sessions that a report shows, chosen by rule, with all their layers read from disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pasta_model.assessment.abnormality import REAL, z_maps
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume
from pasta_model.derivatives import spread_path
from pasta_model.norms.model import Norms
from pasta_model.report.cases import Case, Chosen
from pasta_model.report.surfaces import surface_picture

SURFACES = 3  # pictures of surfaces: one a diagnosis
Key = tuple[str, str, str]
"""Site, subject and session: `SubjectScore.key`."""


def cases(
    chosen: Sequence[Chosen],
    sessions: Mapping[Key, Session],
    pets: Mapping[Key, Path],
    *,
    norms: Norms | None = None,
    spreads: Mapping[Key, Path] | None = None,
    masks: Mapping[str, Path] | None = None,
) -> Iterator[Case]:
    """Yield the chosen sessions with MRI, real and synthetic PET, z maps and uncertainty where there are.

    Parameters
    ----------
    sessions, pets
        By `SubjectScore.key`: the scans of a session, and its synthetic PET.
    norms
        For the z maps; a session without an age has none.
    spreads
        By key: a synthetic PET of several samples, beside which its spread lies.
    masks
        By session's name, its brain; without one that of its MRI.
    """
    for each in chosen:
        score, session = each.score, sessions[each.score.key]
        volumes: dict[str, Volume] = {
            "mri": read_volume(session.mri),
            "real": read_volume(session.pet, unit="SUVR"),
            "synthetic": read_volume(pets[score.key], unit="SUVR"),
        }
        if norms and session.clinical.get("age") is not None:
            mask = (masks or {}).get(session.name)
            maps = z_maps(session, {score.method: pets[score.key]}, norms=norms, mask=mask)
            volumes |= {"z_real": maps[REAL], "z_synthetic": maps[score.method]}
        if (own := (spreads or {}).get(score.key)) and spread_path(own).is_file():
            volumes["uncertainty"] = read_volume(spread_path(own), unit="SUVR")
        yield Case(score.subject, score.site, score.diagnosis, each.rule, volumes)


def surfaces(
    chosen: Sequence[Chosen],
    sessions: Mapping[Key, Session],
    pets: Mapping[str, Mapping[Key, Path]],
    *,
    norms: Norms,
    masks: Mapping[str, Path] | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield the eight views of the first chosen session of each diagnosis: real PET, then each method's.

    Parameters
    ----------
    pets
        By method and key.
    masks
        By session's name, its brain; without one that of its MRI.

    Yields
    ------
    tuple
        Caption and PNG.
    """
    seen: set[str] = set()
    for each in chosen:
        score, session = each.score, sessions[each.score.key]
        if score.diagnosis in seen or session.clinical.get("age") is None or len(seen) == SURFACES:
            continue
        seen.add(score.diagnosis)
        own = {method: paths[score.key] for method, paths in pets.items()}
        maps = z_maps(session, own, norms=norms, mask=(masks or {}).get(session.name))
        title = f"{score.diagnosis}: subject {score.subject}, site {score.site}"
        named = {"Real PET": maps.pop(REAL), **maps}
        yield f"{title}. Chosen by rule: {each.rule}.", surface_picture(named, title=title)
