# SPDX-License-Identifier: Apache-2.0
"""Which MRI goes with which PET: the nearest in time, and why each session was taken or left."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pasta_model.prepare.records import Decision, Outcome, Pair, RawScan, Visit


def match(
    visits: Sequence[Visit], *, limit_days: float = 180.0, require_pet: bool = True
) -> tuple[tuple[Pair, ...], tuple[Decision, ...]]:
    """Give each MRI the PET of the same subject that is nearest in time.

    A PET serves one MRI: the pair that is nearer in time goes first, the same session before another one.
    Where a day is not known, only a PET of the same session is a match.

    Parameters
    ----------
    limit_days
        Largest distance in time.
    require_pet
        Whether a subject without any PET is a mistake to be mended (refused) or merely left.

    Returns
    -------
    pairs, decisions
        One decision for every visit; both in the order of subjects and sessions.
    """
    visits = sorted(visits, key=lambda v: (v.name, str(v.mri and v.mri.path), str(v.pet and v.pet.path)))
    counts = Counter(v.name for v in visits)
    with_pet = {v.subject for v in visits if v.pet}
    by_subject = defaultdict(list)
    owners = _owners(visits)
    decisions: list[Decision] = []
    for visit in visits:
        problems = [*_problems(visit, counts[visit.name]), *_shared(visit, owners)]
        if problems:
            decisions.append(_decision(visit, "refused", "; ".join(problems)))
        else:
            by_subject[visit.subject].append(visit)
    pairs: list[Pair] = []
    for subject, members in by_subject.items():
        chosen = _pairs(members, limit_days)
        pairs.extend(chosen.values())
        lonely: Outcome = "refused" if require_pet and subject not in with_pet else "left"
        decisions += [_outcome(v, members, chosen, limit_days, lonely=lonely) for v in members]
    return (
        tuple(sorted(pairs, key=lambda p: p.name)),
        tuple(sorted(decisions, key=lambda d: (d.subject, d.session, d.mri, d.pet, d.reason))),
    )


def _owners(visits: Sequence[Visit]) -> dict[tuple[Path, str], set[str]]:
    """Collect the subjects of each scan."""
    owners = defaultdict(set)
    for visit in visits:
        for scan in (visit.mri, visit.pet):
            if scan:
                owners[scan.path, scan.inside].add(visit.subject)
    return owners


def _shared(visit: Visit, owners: Mapping[tuple[Path, str], set[str]]) -> list[str]:
    """Name the visit's scans that are another subject's too: one of them would be somebody else's."""
    return [
        f"{scan.label or scan.path} is given to {' and '.join(sorted(owners[scan.path, scan.inside]))},"
        " wanted of one subject: find out whose it is"
        for scan in (visit.mri, visit.pet)
        if scan and len(owners[scan.path, scan.inside]) > 1
    ]


def _problems(visit: Visit, count: int) -> list[str]:
    problems = list(visit.problems)
    if count > 1:
        problems.append(f"found {count} times, wanted once: keep one of them")
    if visit.mri and not visit.diagnosis and not any("diagnosis" in p for p in problems):
        problems.append("no diagnosis, wanted CN, MCI or Dementia")
    return problems


def _outcome(
    visit: Visit, members: Sequence[Visit], chosen: dict[str, Pair], limit_days: float, *, lonely: Outcome
) -> Decision:
    if visit.session in chosen:
        return _taken(chosen[visit.session])
    if visit.mri and lonely == "refused":
        reason = "the subject has no FDG-PET; give one, or allow unpaired subjects"
    else:
        lonely, reason = "left", _why(visit, members, chosen, limit_days)
    return _decision(visit, lonely, "; ".join([reason, *visit.notes]))


def days_apart(mri: RawScan, pet: RawScan) -> float | None:
    """Return the days between two scans, None where a day is not known."""
    return None if mri.day is None or pet.day is None else abs(mri.day - pet.day)


def _pairs(members: Sequence[Visit], limit_days: float) -> dict[str, Pair]:
    """Pair the visits of a subject, nearest first; by the MRI's session."""
    candidates = []
    for visit in members:
        for other in members:
            if visit.mri and other.pet:
                days = days_apart(visit.mri, other.pet)
                same = visit.session == other.session
                if (days is None and same) or (days is not None and days <= limit_days):
                    order = (0.0 if days is None else days, not same, visit.session, other.session)
                    candidates.append((order, Pair(visit, visit.mri, other.pet, days)))
    pairs: dict[str, Pair] = {}
    used: set[tuple[object, str]] = set()
    for _, pair in sorted(candidates, key=lambda c: c[0]):
        key = (pair.pet.path, pair.pet.inside)
        if pair.visit.session not in pairs and key not in used:
            pairs[pair.visit.session] = pair
            used.add(key)
    return pairs


def _why(visit: Visit, members: Sequence[Visit], chosen: dict[str, Pair], limit_days: float) -> str:
    """Say why a session has no pair."""
    if visit.mri is None:
        user = next((p.name for p in chosen.values() if visit.pet and p.pet == visit.pet), None)
        return f"no MRI in this session; its PET goes with {user}" if user else "no T1 MRI in this session"
    distances = [(days_apart(visit.mri, v.pet), v) for v in members if v.pet]
    known = [(d, v.session) for d, v in distances if d is not None]
    if known:
        days, session = min(known)
        if days <= limit_days:
            return f"the PET nearest in time, of {session}, goes with an MRI nearer to it"
        return (
            f"the PET nearest in time, of {session}, is {days:.0f} days away, wanted at most {limit_days:.0f}"
        )
    if not distances:
        return "no FDG-PET of this subject that can be used"
    return "no PET in this session, and no dates that would tell how near the others are"


def _taken(pair: Pair) -> Decision:
    if pair.days_apart is None:
        reason = "MRI and PET of one session; days not known"
    else:
        where = "same session" if pair.pet.session == pair.visit.session else f"PET of {pair.pet.session}"
        reason = f"{where}, {pair.days_apart:.0f} days apart"
    return Decision(
        pair.visit.subject,
        pair.visit.session,
        "taken",
        reason,
        pair.mri.label,
        pair.pet.label,
        pair.days_apart,
    )


def _decision(visit: Visit, outcome: Outcome, reason: str) -> Decision:
    mri, pet = (scan.label if scan else "" for scan in (visit.mri, visit.pet))
    return Decision(visit.subject, visit.session, outcome, reason, mri, pet)
