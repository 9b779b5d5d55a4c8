# SPDX-License-Identifier: Apache-2.0
"""Which subjects a report shows: the median, best and worst by a rule, never by eye."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pasta_model.data.volume import Volume
from pasta_model.evaluation.groups import persons, suppressed
from pasta_model.evaluation.scores import SubjectScore

DIAGNOSES = ("CN", "MCI", "Dementia")
RULES = ("median", "worst", "best")
GROUPS = (("diagnosis",), ("site",))


@dataclass(frozen=True)
class Case:
    """One session to look at.

    Attributes
    ----------
    name
        As the page calls the subject.
    rule
        How it was chosen, in words.
    volumes
        By layer, see `report.layers`; (x, y, z) on one grid. The MRI is 0 outside the brain.
    """

    name: str
    site: str
    diagnosis: str
    rule: str
    volumes: Mapping[str, Volume]


@dataclass(frozen=True)
class Chosen:
    """A score and every rule that chose it."""

    score: SubjectScore
    rules: tuple[str, ...]

    @property
    def rule(self) -> str:
        """All rules, in words."""
        return "; ".join(self.rules)


def with_difference(volumes: Mapping[str, Volume]) -> dict[str, Volume]:
    """Add synthetic minus real where both are there and it is not."""
    found = dict(volumes)
    if {"real", "synthetic"} <= set(found) and "difference" not in found:
        real, synthetic = found["real"], found["synthetic"]
        found["difference"] = Volume(
            np.asarray(synthetic.data - real.data, np.float32), real.affine, real.unit
        )
    return found


def choose_cases(
    scores: Sequence[SubjectScore],
    method: str,
    *,
    metric: str = "mae",
    label: str = "MAE",
    rules: Sequence[str] = RULES,
    groups: Sequence[Sequence[str]] = GROUPS,
    smallest: int = 0,
) -> list[Chosen]:
    """Choose sessions of a method: for each rule, one of each group; each session once.

    First all rules of the first kind of groups: the median, the worst and the best of each diagnosis over
    all sites; then of the next: each site. So whoever drops cases from the end keeps a worst and a best,
    also where there are many sites. Of an even number the median is the lower one in the middle; equal
    values are ordered by site, subject and session. ("site", "diagnosis") among `groups` would be each
    diagnosis of each site.

    Parameters
    ----------
    metric
        Lower is better. Sessions where it is not available are never chosen.
    label
        Of the metric, in the rule's words.
    smallest
        Of fewer persons the rule's words do not say how many there are, nor what would tell it.
    """
    own = [s for s in scores if s.method == method and s.values.get(metric) is not None]
    chosen: dict[tuple[str, str, str], tuple[SubjectScore, list[str]]] = {}
    for names in groups:
        members = {_words(names, v): [s for s in own if _of(s, names) == v] for v in _values(own, names)}
        hidden = suppressed({who: persons(group) for who, group in members.items()}, smallest=smallest)
        for rule in rules:
            for who, group in members.items():
                score = _pick(group, rule, metric)
                words = f"{rule} {label} of {who}" + ("" if who in hidden else f" ({len(group)})")
                key = (score.site, score.subject, score.session)
                chosen.setdefault(key, (score, []))[1].append(words)
    return [Chosen(score, tuple(said)) for score, said in chosen.values()]


def _pick(members: Sequence[SubjectScore], rule: str, metric: str) -> SubjectScore:
    def order(score: SubjectScore) -> tuple[float, str, str, str]:
        return float(score.values[metric] or 0.0), score.site, score.subject, score.session

    ordered = sorted(members, key=order)
    return {"best": ordered[0], "median": ordered[(len(ordered) - 1) // 2], "worst": ordered[-1]}[rule]


def _of(score: SubjectScore, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(getattr(score, name)) for name in names)


def _values(scores: Sequence[SubjectScore], names: Sequence[str]) -> list[tuple[str, ...]]:
    found = {_of(score, names) for score in scores}
    return sorted(found, key=lambda value: [_place(part) for part in value])


def _place(part: str) -> tuple[int, str]:
    return (DIAGNOSES.index(part), "") if part in DIAGNOSES else (len(DIAGNOSES), part)


def _words(names: Sequence[str], value: Sequence[str]) -> str:
    parts = [f"site {part}" if name == "site" else part for name, part in zip(names, value, strict=True)]
    return ", ".join(parts)
