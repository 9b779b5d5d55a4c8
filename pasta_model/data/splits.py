# SPDX-License-Identifier: Apache-2.0
"""Who trains, who validates, who is held out: by person, within each site and diagnosis.

All sessions of a person fall on one side, also where one RID goes under several participant_ids; a person
who turns up in two splits, or at two sites, is refused. A table of splits says it by participant_id.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from numpy.random import Generator

from pasta_model.data.manifest import DIAGNOSES, SPLITS, Session
from pasta_model.errors import ConfigError, Problems, SplitError
from pasta_model.seeding import numpy_generator


def assign_splits(
    sessions: Sequence[Session],
    *,
    valid: float = 0.1,
    test: float = 0.2,
    seed: int,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Assign every subject to train, valid or test.

    Parameters
    ----------
    valid, test
        Fractions of the persons of each site; the rest trains. Persons are spread over the diagnoses, each
        with the worst of all visits, and each site gets at least one of either where it has three or more.
    seed
        The same seed gives the same split, whatever the order of the sessions.
    given
        Splits by participant_id that stay as they are, of people who are no longer here too. Only who is
        new is drawn, so that the fractions come as near as they can.

    Raises
    ------
    SplitError
        When one person appears at two sites, or is in two of the given splits.
    """
    if not 0 <= valid < 1 or not 0 <= test < 1 or valid + test >= 1:
        raise ConfigError(f"split fractions valid {valid} and test {test} leave nothing to train on")
    refuse_leakage([replace(s, split=None) for s in sessions])
    persons = people(sessions)
    kept = _kept(persons, given or {})
    sites: dict[str, dict[str, str]] = defaultdict(dict)
    for session in sorted(sessions, key=lambda s: DIAGNOSES.index(s.diagnosis)):  # the worst comes last
        sites[session.site][persons[session.subject]] = session.diagnosis
    found: dict[str, str] = dict(kept)
    for site, diagnoses in sorted(sites.items()):
        new = {person: d for person, d in diagnoses.items() if person not in kept}
        there = Counter(kept[person] for person in diagnoses if person in kept)
        rng = numpy_generator(seed, "split", site)
        found |= _draw(_spread_by_diagnosis(new, rng), there, valid=valid, test=test)
    return {**(given or {}), **{subject: found[person] for subject, person in persons.items()}}


def apply_splits(sessions: Sequence[Session], splits: Mapping[str, str]) -> tuple[Session, ...]:
    """Return the sessions with their subject's split.

    Raises
    ------
    SplitError
        When a subject has no split, or its manifest row says another one.
    """
    problems = Problems("the splits do not fit the manifest")
    for session in sessions:
        if session.subject not in splits:
            problems.add(f"{session.subject}: has no split")
        elif session.split not in (None, splits[session.subject]):
            problems.add(
                f"{session.subject}: manifest says {session.split}, splits say {splits[session.subject]}"
            )
    problems.raise_if_any(SplitError)
    done = tuple(replace(s, split=splits[s.subject]) for s in sessions)
    refuse_leakage(done)
    return done


def refuse_leakage(sessions: Iterable[Session], *, where: str = "") -> None:
    """Refuse a person in two splits or at two sites, naming each one.

    Raises
    ------
    SplitError
        With a line a person and kind.
    """
    sessions = list(sessions)
    persons = people(sessions)
    subjects, splits, sites = (defaultdict[str, set[str]](set) for _ in range(3))
    for session in sessions:
        person = persons[session.subject]
        subjects[person].add(session.subject)
        splits[person].add(str(session.split))
        sites[person].add(session.site)
    problems = Problems(f"{where + ': ' if where else ''}subjects would leak between splits")
    for person in sorted(subjects):
        who = _who(person, subjects[person])
        if len(splits[person]) > 1:
            problems.add(f"{who}: in splits {', '.join(sorted(splits[person]))}; wanted one")
        if len(sites[person]) > 1:
            problems.add(f"{who}: at sites {', '.join(sorted(sites[person]))}; wanted one")
    problems.raise_if_any(SplitError)


def people(sessions: Iterable[Session]) -> dict[str, str]:
    """Return who each subject is: subjects of one RID are one person, even where some rows lack the RID.

    Returns
    -------
    dict
        Subject -> the person's name, the first of all its RIDs and subjects that are linked.
    """
    first: dict[str, str] = {}  # a forest: each name points towards the first of its person

    def root(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    subjects = set()
    for session in sessions:
        subjects.add(session.subject)
        low, high = sorted((root(session.subject), root(session.person)), key=_rids_first)
        first[high] = low
    return {subject: root(subject) for subject in sorted(subjects)}


def _rids_first(name: str) -> tuple[bool, str]:
    return ":" not in name, name


def _who(person: str, subjects: Iterable[str]) -> str:
    names = sorted(subjects)
    return person if names == [person] else f"{person} ({', '.join(names)})"


def _kept(persons: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the given splits by person; refuse unknown ones, and a person in two of them."""
    found: dict[str, dict[str, str]] = defaultdict(dict)  # person -> subject -> split
    for subject, split in given.items():
        found[persons.get(subject, subject)][subject] = split
    problems = Problems("the given splits cannot be kept")
    for person, splits in sorted(found.items()):
        names = sorted(set(splits.values()))
        if not set(names) <= set(SPLITS):
            problems.add(f"{_who(person, splits)}: split {', '.join(names)}, wanted {', '.join(SPLITS)}")
        elif len(names) > 1:
            problems.add(f"{_who(person, splits)}: in splits {', '.join(names)}; wanted one")
    problems.raise_if_any(SplitError)
    return {person: next(iter(splits.values())) for person, splits in found.items()}


def _draw(order: Sequence[str], there: Counter[str], *, valid: float, test: float) -> dict[str, str]:
    """Draw the new persons of a site, in the order of their diagnoses, beside those who are there."""
    total = len(order) + there.total()
    n_test = min(_counts(total, test), max(total - 1, 0))  # one is left to train on
    n_valid = min(_counts(total, valid), max(total - 1 - n_test, 0))
    room = len(order) - (0 if there["train"] else 1)
    more_test = max(min(n_test - there["test"], room), 0)
    more_valid = max(min(n_valid - there["valid"], room - more_test), 0)
    # Every k-th person of a list sorted by diagnosis keeps the case mix in each part.
    held = _every(order, more_test + more_valid)
    testers = set(_every(held, more_test))
    return dict.fromkeys(order, "train") | dict.fromkeys(held, "valid") | dict.fromkeys(testers, "test")


def _spread_by_diagnosis(persons: Mapping[str, str], rng: Generator) -> list[str]:
    names = sorted(persons)
    rng.shuffle(names)
    return sorted(names, key=lambda name: persons[name])  # stable: shuffled within a diagnosis


def _counts(total: int, fraction: float) -> int:
    if fraction == 0 or total < 3:
        return 0
    return max(1, round(total * fraction))


def _every(items: Sequence[str], count: int) -> list[str]:
    if not count:
        return []
    step = len(items) / count
    return [items[int((k + 0.5) * step)] for k in range(count)]
