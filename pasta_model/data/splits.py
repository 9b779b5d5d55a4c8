# SPDX-License-Identifier: Apache-2.0
"""Who trains, who validates, who is held out: by subject, within each site and diagnosis.

All sessions of a subject fall on one side; a subject that turns up twice with different splits, or at
two sites, is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from numpy.random import Generator

from pasta_model.data.manifest import Session
from pasta_model.errors import ConfigError, Problems, SplitError
from pasta_model.seeding import numpy_generator


def assign_splits(
    sessions: Sequence[Session], *, valid: float = 0.1, test: float = 0.2, seed: int
) -> dict[str, str]:
    """Assign every subject to train, valid or test.

    Parameters
    ----------
    valid, test
        Fractions of the subjects of each site; the rest trains. Subjects are spread over the
        diagnoses, and each site gets at least one of either where it has three or more.
    seed
        The same seed gives the same split, whatever the order of the sessions.

    Raises
    ------
    SplitError
        When one subject appears at two sites.
    """
    if not 0 <= valid < 1 or not 0 <= test < 1 or valid + test >= 1:
        raise ConfigError(f"split fractions valid {valid} and test {test} leave nothing to train on")
    groups = _subjects_by_site(sessions)
    splits: dict[str, str] = {}
    for site, subjects in sorted(groups.items()):
        order = _spread_by_diagnosis(subjects, numpy_generator(seed, "split", site))
        n_test = min(_counts(len(order), test), len(order) - 1)  # one is left to train on
        n_valid = min(_counts(len(order), valid), len(order) - 1 - n_test)
        # Every k-th subject of a list sorted by diagnosis keeps the case mix in each part.
        held = _every(order, n_test + n_valid)
        testers = set(_every(held, n_test))
        for subject in order:
            name = "test" if subject in testers else "valid" if subject in set(held) else "train"
            splits[subject] = name
    return splits


def apply_splits(sessions: Sequence[Session], splits: dict[str, str]) -> tuple[Session, ...]:
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
    """Refuse a subject in two splits or at two sites, naming each one.

    Raises
    ------
    SplitError
        With a line a subject.
    """
    seen: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for session in sessions:
        seen[session.subject][0].add(str(session.split))
        seen[session.subject][1].add(session.site)
    problems = Problems(f"{where + ': ' if where else ''}subjects would leak between splits")
    for subject, (splits, sites) in sorted(seen.items()):
        if len(splits) > 1:
            problems.add(f"{subject}: in splits {', '.join(sorted(splits))}; wanted one")
        if len(sites) > 1:
            problems.add(f"{subject}: at sites {', '.join(sorted(sites))}; wanted one")
    problems.raise_if_any(SplitError)


def _subjects_by_site(sessions: Sequence[Session]) -> dict[str, dict[str, str]]:
    refuse_leakage(sessions)
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for session in sorted(sessions, key=lambda s: s.name):
        groups[session.site].setdefault(session.subject, session.diagnosis)
    return groups


def _spread_by_diagnosis(subjects: dict[str, str], rng: Generator) -> list[str]:
    names = sorted(subjects)
    rng.shuffle(names)
    return sorted(names, key=lambda name: subjects[name])  # stable: shuffled within a diagnosis


def _counts(total: int, fraction: float) -> int:
    if fraction == 0 or total < 3:
        return 0
    return max(1, round(total * fraction))


def _every(items: Sequence[str], count: int) -> list[str]:
    if not count:
        return []
    step = len(items) / count
    return [items[int((k + 0.5) * step)] for k in range(count)]
