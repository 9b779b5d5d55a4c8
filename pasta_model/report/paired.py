# SPDX-License-Identifier: Apache-2.0
"""One method against each other one on the same subjects: paired differences, and what they say in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from pasta_model.evaluation.columns import METRICS, Metric
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.groups import few
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import differences
from pasta_model.report.page import Cell, Column, Mark, RowGroup, Statement, Table
from pasta_model.report.tables import INTERVALS, estimate_cell


@dataclass(frozen=True)
class PairedRow:
    """`method` minus `other` in one metric, over the sessions that have both."""

    method: str
    other: str
    metric: Metric
    difference: Estimate

    @property
    def gain(self) -> Estimate:
        """Difference counted so that more than 0 is better for `method`."""
        found = self.difference
        if self.metric.higher_is_better or found.value is None:
            return found
        low, high = (None if end is None else -end for end in (found.high, found.low))
        return Estimate(-found.value, low, high, found.why)

    @property
    def mark(self) -> Mark:
        """Better ("yes") or worse ("no") with an interval that leaves out 0, or neither ("open")."""
        gain = self.gain
        if gain.low is None or gain.high is None:
            return "open"
        if gain.low > 0:
            return "yes"
        return "no" if gain.high < 0 else "open"


def compare(
    scores: Sequence[SubjectScore],
    method: str,
    *,
    others: Sequence[str] | None = None,
    metrics: Sequence[Metric] = METRICS,
    smallest: int = 0,
    seed: int = 0,
) -> list[PairedRow]:
    """Compare a method with each other one, metric by metric; metrics without a direction are left out.

    Parameters
    ----------
    smallest
        Differences of fewer persons are not shown, nor those that would tell of fewer, beside the means.
    """
    names = list(dict.fromkeys(s.method for s in scores)) if others is None else list(others)
    return [
        PairedRow(
            method, other, metric, _difference(scores, (method, other), metric, smallest=smallest, seed=seed)
        )
        for other in names
        if other != method
        for metric in metrics
        if metric.higher_is_better is not None
    ]


def _difference(
    scores: Sequence[SubjectScore], methods: tuple[str, str], metric: Metric, *, smallest: int, seed: int
) -> Estimate:
    why = _untold(scores, methods, metric, smallest) if smallest > 1 else ""
    return Estimate(None, why=why) if why else differences(scores, *methods, metric, seed=seed)


def _untold(scores: Sequence[SubjectScore], methods: tuple[str, str], metric: Metric, smallest: int) -> str:
    """Say why a difference is not shown; empty where it is, or where nobody has one.

    The means of both methods stand beside it: where a few persons lack one of the two values, their own
    would be what the means hold beyond the difference.
    """
    first, second = (
        {s.key: s.person for s in scores if s.method == method and s.values.get(metric.name) is not None}
        for method in methods
    )
    both = {first[key] for key in first.keys() & second.keys()}
    lone = {(first | second)[key] for key in first.keys() ^ second.keys()}
    if 0 < len(both) < smallest:
        return few(smallest)
    return f"would tell by difference of {few(smallest)}" if both and 0 < len(lone) < smallest else ""


def statement(row: PairedRow) -> Statement:
    """Say in a sentence what a difference shows, also where it does not please."""
    gain, metric = row.gain, row.metric
    unit = f" {metric.unit}" if metric.unit else ""
    who = f"{metric.label}: {row.method}"
    if gain.value is None:
        return Statement(f"{who} against {row.other}: not compared, {gain.why}.", "open")
    amount = f"{metric.text(abs(gain.value))}{unit}"
    if gain.low is None or gain.high is None:
        side = "better" if gain.value > 0 else "worse"
        return Statement(
            f"{who} is {side} than {row.other} by {amount}, without an interval: {gain.why}.", "open"
        )
    low, high = sorted((gain.low, gain.high) if gain.value > 0 else (-gain.high, -gain.low))
    ends = f"{metric.text(low)} to {metric.text(high)}".replace("-", "\u2212")
    if row.mark == "open":
        return Statement(
            f"{who} and {row.other} cannot be told apart: {amount} {'better' if gain.value > 0 else 'worse'}"
            f" ({ends}).",
            "open",
        )
    side = "better" if row.mark == "yes" else "worse"
    return Statement(f"{who} is {side} than {row.other}, by {amount} ({ends}).", row.mark)


def summary(rows: Sequence[PairedRow]) -> list[Statement]:
    """Say of each metric which other methods are worse, better, or cannot be told apart."""
    said = []
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric]
        parts = [(words, [row.other for row in own if row.mark == mark]) for mark, words in _SIDES]
        text = "; ".join(f"{words} {', '.join(names)}" for words, names in parts if names)
        marks = {row.mark for row in own}
        said.append(Statement(f"{metric.label}: {own[0].method} is {text}.", _overall(marks)))
    return said


_SIDES: tuple[tuple[Mark, str], ...] = (
    ("yes", "better than"),
    ("no", "worse than"),
    ("open", "not told apart from"),
)


def _overall(marks: set[Mark]) -> Mark:
    """Say "no" where any rival is better, "yes" where all are worse."""
    if "no" in marks:
        return "no"
    return "yes" if marks == {"yes"} else "open"


def paired_table(rows: Sequence[PairedRow]) -> Table:
    """Return the differences, a row a rival and a column a metric."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    method = rows[0].method if rows else ""
    cells = {(row.other, row.metric.name): row for row in rows}
    lines = [
        [
            Cell(other),
            *(
                estimate_cell(cells[other, metric.name].difference, metric.digits, sign=True)
                for metric in metrics
            ),
        ]
        for other in dict.fromkeys(row.other for row in rows)
    ]
    columns = [Column(f"{method} minus", "text")]
    columns += [
        Column(metric.heading, direction="higher" if metric.higher_is_better else "lower")
        for metric in metrics
    ]
    caption = (
        "Mean of the differences, subject by subject: what makes a subject hard for every method cancels."
        f" {INTERVALS}"
    )
    return Table("Paired differences", columns, [RowGroup("", lines)], caption)
