# SPDX-License-Identifier: Apache-2.0
"""Where a method fails: its worst cases by rule, and the groups where another one is better. Computed."""

from collections.abc import Iterator, Sequence
from statistics import median

from pasta_model.evaluation.columns import METRICS, Metric
from pasta_model.evaluation.groups import KINDS, groups_of, persons, suppressed
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import ALL_SITES, GroupRow
from pasta_model.report.cases import choose_cases
from pasta_model.report.page import Statement
from pasta_model.report.paired import PairedRow, compare


def worst_cases(
    scores: Sequence[SubjectScore],
    method: str,
    *,
    metric: Metric = METRICS[0],
    people: bool = True,
    smallest: int = 0,
) -> list[str]:
    """Say how much the method fails at worst, by diagnosis (of twins also which, and by site).

    Parameters
    ----------
    people
        Whether the subjects are people: then none is named, and no value of a single one is told, but how
        many times worse than the median the worst session is.
    smallest
        A diagnosis of fewer persons is left out.
    """
    sizes = {name: persons(own) for name, own in groups_of(scores, "diagnosis").items()}
    hidden = suppressed(sizes, smallest=smallest)
    scores = [s for s in scores if s.diagnosis not in hidden]
    if people:
        return list(_times_worse(scores, method, metric, smallest=smallest))
    chosen = choose_cases(scores, method, metric=metric.name, label=metric.label, rules=("worst",))
    unit = f" {metric.unit}" if metric.unit else ""
    return [
        f"{case.rule}, {case.score.subject} of {case.score.site}:"
        f" {metric.text(case.score.values[metric.name])}{unit}."
        for case in chosen
    ]


def _times_worse(
    scores: Sequence[SubjectScore], method: str, metric: Metric, *, smallest: int
) -> Iterator[str]:
    """Say of each diagnosis how many times its median the worst session has; of one person nothing."""
    for diagnosis, own in groups_of([s for s in scores if s.method == method], "diagnosis").items():
        known = [s for s in own if s.values.get(metric.name) is not None]
        values = [float(s.values[metric.name] or 0.0) for s in known]
        if persons(known) < max(smallest, 2) or (middle := median(values)) <= 0:
            continue
        times = f"{max(values) / middle:.1f} times the median"
        yield f"worst {metric.label} of {diagnosis} ({len(known)}): {times}."


def losses(
    scores: Sequence[SubjectScore],
    groups: Sequence[GroupRow],
    method: str,
    *,
    metrics: Sequence[Metric] = METRICS,
    seed: int = 0,
    smallest: int = 0,
) -> list[Statement]:
    """Say in which groups which other method is better, where the paired interval leaves out 0.

    Groups that the rows do not show, because they are too small, are not told of here either.
    """
    return [
        _loss(name, row)
        for name, own in _shown_groups(scores, groups)
        for row in compare(own, method, metrics=metrics, seed=seed, smallest=smallest)
        if row.mark == "no"
    ]


def _loss(group: str, row: PairedRow) -> Statement:
    metric = row.metric
    amount = f"{metric.text(abs(row.gain.value or 0.0))} {metric.unit}".rstrip()
    return Statement(f"{group}: {row.other} is better in {metric.label} by {amount}.", "no")


def _shown_groups(
    scores: Sequence[SubjectScore], rows: Sequence[GroupRow]
) -> Iterator[tuple[str, list[SubjectScore]]]:
    """Yield everybody, then each group of which every method's row shows something."""
    shown = {(row.kind, row.group) for row in rows if any(e.value is not None for e in row.values.values())}
    hidden = {
        (row.kind, row.group)
        for row in rows
        if row.values and all(e.value is None for e in row.values.values())
    }
    if ("all", ALL_SITES) in shown - hidden:
        yield "All subjects", list(scores)
    for kind in KINDS:
        for group, own in groups_of(scores, kind).items():
            if (kind, group) in shown - hidden:
                yield f"{kind.capitalize()} {group}", own
