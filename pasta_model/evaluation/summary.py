# SPDX-License-Identifier: Apache-2.0
"""Means of scores by group and method, with intervals over persons; differences between two methods."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.evaluation.columns import ALL_METRICS, Metric
from pasta_model.evaluation.estimates import (
    Estimate,
    bootstrap_sums,
    counted,
    mean_of,
    means_of,
    ratio_of_halves,
)
from pasta_model.evaluation.groups import few, groups_of, persons, suppressed, told
from pasta_model.evaluation.scores import SubjectScore

ALL_SITES = "all sites"
"""Row over every subject: a large site counts more."""
MEAN_OF_SITES = "mean over sites"
"""Row over the means of the sites that are shown: every site counts the same."""


@dataclass(frozen=True)
class GroupRow:
    """Means of one method over one group.

    Attributes
    ----------
    kind
        What the group has in common: "site", "diagnosis", "sex", "age"; "all" for everybody, "sites" for the
        mean over sites.
    subjects
        Persons; one with several sessions counts once here and once a session in the means.
    values
        By metric name.
    hidden
        Why the group is not shown; empty where it is.
    """

    kind: str
    group: str
    method: str
    subjects: int
    values: Mapping[str, Estimate]
    hidden: str = ""

    @property
    def count(self) -> str:
        """Persons as a table tells them: of a hidden group no number."""
        return told(self.subjects, self.hidden)


def summarise(
    scores: Sequence[SubjectScore], *, by: Sequence[str] = ("site",), smallest: int = 0, seed: int = 0
) -> list[GroupRow]:
    """Mean by group and method, then over all subjects, then over the sites if sites are asked for.

    Groups come in the order of `groups.groups_of`, methods in the order of their first score. Intervals
    are percentiles of 1,000 resamples of persons; of the mean over sites, of persons within each site.

    Parameters
    ----------
    by
        Kinds of groups: some of "site", "diagnosis", "sex", "age".
    smallest
        Groups of fewer persons are not shown (see `groups.suppressed`), nor a metric that fewer have.
    seed
        Of the intervals.
    """
    by_method: dict[str, list[SubjectScore]] = {}
    for score in scores:
        by_method.setdefault(score.method, []).append(score)
    names = _names(scores)
    rows = [row for kind in by for row in _kind_rows(kind, by_method, names, smallest=smallest, seed=seed)]
    for method, own in by_method.items():
        hidden = {name: why for name, why in _few_have(own, names, smallest).items() if why}
        values = _means(own, names, seed=seed, stream="all", hidden=hidden)
        why = few(smallest) if persons(own) < smallest else ""
        rows.append(GroupRow("all", ALL_SITES, method, persons(own), values, why))
    if "site" in by:
        rows += [
            _mean_of_sites(method, own, names, smallest=smallest, seed=seed)
            for method, own in by_method.items()
        ]
    return rows


def differences(
    scores: Sequence[SubjectScore], method: str, other: str, metric: str | Metric, *, seed: int = 0
) -> Estimate:
    """Mean of one method's value minus the other's over the sessions that have both, with its interval.

    The same persons are drawn for both methods (a paired bootstrap): what makes a subject hard for every
    method cancels, and the interval is narrower than those of the two means suggest.
    """
    name = metric if isinstance(metric, str) else metric.name
    first, second = ({s.key: s for s in scores if s.method == which} for which in (method, other))
    both = [key for key in first if key in second]
    pairs = [(first[key], first[key].values.get(name), second[key].values.get(name)) for key in both]
    known = [(who, a - b) for who, a, b in pairs if a is not None and b is not None]
    if not known:
        return Estimate(None, why=f"no session has a {name} of {method} and of {other}")
    found = mean_of([who.person for who, _ in known], [d for _, d in known], seed=seed, name="differences")
    missing = len(first.keys() | second.keys()) - len(known)
    if found.why or not missing:
        return found
    return Estimate(found.value, found.low, found.high, f"{missing} sessions lack one of the two")


def best(rows: Iterable[GroupRow], metric: Metric) -> str | None:
    """Best value of a metric among rows, as text, so that values shown as equal are equally good.

    None where no row has one, or the metric has no better direction.
    """
    values = [value for row in rows if (value := metric.of(row)) is not None]
    if not values or metric.higher_is_better is None:
        return None
    return metric.text(max(values) if metric.higher_is_better else min(values))


def _names(scores: Sequence[SubjectScore]) -> list[str]:
    """Return the metrics of the scores: those of the tables in their order, then any others."""
    there = dict.fromkeys(name for s in scores for name in s.values)
    known = [metric.name for metric in ALL_METRICS if metric.name in there]
    return known + [name for name in there if name not in known]


def _kind_rows(
    kind: str,
    by_method: Mapping[str, Sequence[SubjectScore]],
    names: Sequence[str],
    *,
    smallest: int,
    seed: int,
) -> list[GroupRow]:
    """Return the rows of one kind of group: those of a group stand together."""
    groups = {method: groups_of(own, kind) for method, own in by_method.items()}
    hidden = {method: _hidden(found, names, smallest) for method, found in groups.items()}
    rows = []
    for group in groups_of([s for own in by_method.values() for s in own], kind):
        for method, found in groups.items():
            if group in found:
                own, (whole, parts) = found[group], hidden[method]
                mine = {name: parts[name][group] for name in names if group in parts[name]}
                values = _means(own, names, seed=seed, stream=f"{kind}/{group}", hidden=mine)
                rows.append(GroupRow(kind, group, method, persons(own), values, whole.get(group, "")))
    return rows


def _hidden(
    groups: Mapping[str, Sequence[SubjectScore]], names: Sequence[str], smallest: int
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return which groups are not shown, and by metric those of which it is not: too few have a value."""
    if smallest < 2:
        return {}, {name: {} for name in names}
    whole = suppressed({group: persons(own) for group, own in groups.items()}, smallest=smallest)
    parts = {}
    for name in names:
        sizes = {group: _having(own, name) for group, own in groups.items()}
        known = {group: size for group, size in sizes.items() if size}  # of the others there is nothing
        parts[name] = suppressed(known, smallest=smallest) | whole
    return whole, parts


def _having(scores: Sequence[SubjectScore], name: str) -> int:
    return persons([s for s in scores if s.values.get(name) is not None])


def _few_have(scores: Sequence[SubjectScore], names: Sequence[str], smallest: int) -> dict[str, str]:
    """Return of each metric why its mean over all is not shown; of one that nobody has, its own reason."""
    few_here = persons(scores) < smallest
    return {name: few(smallest) if few_here or 0 < _having(scores, name) < smallest else "" for name in names}


def _table(scores: Sequence[SubjectScore], names: Sequence[str]) -> NDArray[np.float64]:
    """Return the values as (sessions, metrics), NaN where there is none."""
    return np.array([[s.values.get(name) for name in names] for s in scores], dtype=np.float64)


def _means(
    scores: Sequence[SubjectScore],
    names: Sequence[str],
    *,
    seed: int,
    stream: str,
    hidden: Mapping[str, str],
) -> dict[str, Estimate]:
    """Return the mean of each metric with its interval; `hidden` has the reasons to show none."""
    nothing = {name: Estimate(None, why=why) for name, why in hidden.items()}
    if nothing.keys() >= set(names):
        return nothing
    people = [s.person for s in scores]
    found = means_of(people, _table(scores, names), seed=seed, name=stream)
    return _explained(found, scores, names) | nothing


def _explained(
    means: Sequence[Estimate], scores: Sequence[SubjectScore], names: Sequence[str]
) -> dict[str, Estimate]:
    """Say of each mean how many sessions it lacks, and why."""
    return {
        name: mean if all(s.values.get(name) is not None for s in scores) else _lacking(mean, scores, name)
        for name, mean in zip(names, means, strict=True)
    }


def _lacking(mean: Estimate, scores: Sequence[SubjectScore], name: str) -> Estimate:
    missing = [s.why.get(name, "not measured") for s in scores if s.values.get(name) is None]
    reason = "; ".join(text for text, _ in Counter(missing).most_common(2))
    if mean.value is None:
        return Estimate(None, why=reason)
    parts = (mean.why, f"{len(missing)} of {len(scores)} sessions have none: {reason}")
    return Estimate(mean.value, mean.low, mean.high, "; ".join(part for part in parts if part))


def _mean_of_sites(
    method: str, scores: Sequence[SubjectScore], names: Sequence[str], *, smallest: int, seed: int
) -> GroupRow:
    """Mean of the means of the sites that are shown; what is hidden must not be told by this row."""
    hidden, parts = _hidden(groups_of(scores, "site"), names, smallest)
    chosen = [s for s in scores if s.site not in hidden]
    if not chosen:
        values = {name: Estimate(None, why=few(smallest)) for name in names}
        return GroupRow("sites", MEAN_OF_SITES, method, 0, values, few(smallest))
    sites = sorted({s.site for s in chosen})
    columns = counted(_table(chosen, names))
    mine = np.array([[s.site == site for site in sites] for s in chosen])
    spread = (columns[:, None] * mine[:, :, None]).reshape(len(chosen), -1)  # (sessions, sites x columns)

    def over_sites(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        by_site = ratio_of_halves(sums.reshape(*sums.shape[:-1], len(sites), columns.shape[1]))
        mean: NDArray[np.float64] = by_site.mean(axis=-2)
        return mean

    people, strata = [s.person for s in chosen], [s.site for s in chosen]
    means = bootstrap_sums(people, spread, over_sites, seed=seed, name="sites", strata=strata)
    untold = {name: Estimate(None, why=few(smallest)) for name in names if parts[name].keys() > hidden.keys()}
    values = _explained(means, chosen, names) | untold
    return GroupRow("sites", MEAN_OF_SITES, method, persons(chosen), values)
