# SPDX-License-Identifier: Apache-2.0
"""Where a method fails: its worst cases by rule, and the groups where another one is better. Computed."""

from collections.abc import Iterator, Sequence

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
    """Say which sessions the method fails most, one a diagnosis (and one a site, of twins).

    Parameters
    ----------
    people
        Whether the subjects are people: then none is named, and none of a site alone is singled out.
    smallest
        A diagnosis of fewer persons is left out.
    """
    sizes = {name: persons(own) for name, own in groups_of(scores, "diagnosis").items()}
    hidden = suppressed(sizes, smallest=smallest)
    scores = [s for s in scores if s.diagnosis not in hidden]
    groups = (("diagnosis",),) if people else (("diagnosis",), ("site",))
    chosen = choose_cases(
        scores, method, metric=metric.name, label=metric.label, rules=("worst",), groups=groups
    )
    unit = f" {metric.unit}" if metric.unit else ""
    said = []
    for case in chosen:
        value = metric.text(case.score.values[metric.name])
        who = "" if people else f", {case.score.subject} of {case.score.site}"
        said.append(f"{case.rule}{who}: {value}{unit}.")
    return said


def losses(
    scores: Sequence[SubjectScore],
    groups: Sequence[GroupRow],
    method: str,
    *,
    metrics: Sequence[Metric] = METRICS,
    seed: int = 0,
) -> list[Statement]:
    """Say in which groups which other method is better, where the paired interval leaves out 0.

    Groups that the rows do not show, because they are too small, are not told of here either.
    """
    return [
        _loss(name, row)
        for name, own in _shown_groups(scores, groups)
        for row in compare(own, method, metrics=metrics, seed=seed)
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
