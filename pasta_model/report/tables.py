# SPDX-License-Identifier: Apache-2.0
"""Rows of the evaluation as tables of a page: by group and by region; with intervals and reasons."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

from pasta_model.evaluation.agreement import RegionRow
from pasta_model.evaluation.columns import FAMILIES, METRICS, WHOLE, Metric
from pasta_model.evaluation.estimates import NOT_AVAILABLE, Estimate
from pasta_model.evaluation.summary import GroupRow
from pasta_model.report.page import Cell, Column, Direction, RowGroup, Table

KINDS = {
    "all": "All subjects",
    "site": "By site",
    "diagnosis": "By diagnosis",
    "sex": "By sex",
    "age": "By age",
}
REGIONS = {
    WHOLE: "MetaROI, all five",
    "angular_left": "left angular gyrus",
    "angular_right": "right angular gyrus",
    "temporal_left": "left inferior temporal",
    "temporal_right": "right inferior temporal",
}
INTERVALS = "With each value its 95 % interval, by bootstrap over persons."
BEST = "Bold and shaded: best of its group, which need not be a difference that another sample would show."

WIDEST = 6  # metrics beside each other, on paper

T = TypeVar("T")


def estimate_cell(estimate: Estimate, digits: int, *, best: bool = False, sign: bool = False) -> Cell:
    """Return an estimate as a cell: value, interval below it, and why where something is missing."""
    if estimate.value is None:
        return Cell(NOT_AVAILABLE, note=estimate.why or "no reason is known", missing=True)
    form = f"{'+' if sign else ''}.{digits}f"
    detail = ""
    if estimate.low is not None and estimate.high is not None:
        detail = f"{number(estimate.low, form)} to {number(estimate.high, form)}"
    return Cell(number(estimate.value, form), best=best, note=estimate.why, detail=detail)


def group_table(
    rows: Sequence[GroupRow], *, kind: str, metrics: Sequence[Metric] = METRICS, title: str = ""
) -> Table:
    """Return the rows of one kind of group, the best method of each group marked.

    Parameters
    ----------
    kind
        "all" takes the row over all subjects alone; "site" brings it, and the mean over sites, too.
    """
    kinds = {kind, "all", "sites"} if kind == "site" else {kind}
    own = [row for row in rows if row.kind in kinds]
    groups = [
        RowGroup(name, _method_rows(list(members), metrics))
        for name, members in groupby(own, key=lambda row: row.group)
    ]
    first = kind if kind != "all" else "group"
    columns = [Column(first.capitalize(), "text"), Column("Method", "text"), Column("Subjects")]
    columns += [Column(metric.heading, direction=_direction(metric)) for metric in metrics]
    caption = f"{INTERVALS} {BEST}" if _rivals(groups) else INTERVALS
    return Table(title or KINDS.get(kind, kind), columns, groups, caption)


def family_tables(
    rows: Sequence[GroupRow], *, kind: str, shown: Iterable[Metric] = METRICS, metrics: Sequence[Metric]
) -> list[Table]:
    """Return a table for each family of the metrics that the rows have, less those `shown` elsewhere."""
    seen = {metric.name for metric in shown}
    measured = {name for row in rows for name in row.values}
    tables = []
    for family, words in FAMILIES.items():
        own = [m for m in metrics if m.family == family and m.name in measured and m.name not in seen]
        title = f"{words[0].upper()}{words[1:]}"
        tables += [group_table(rows, kind=kind, metrics=part, title=title) for part in batched(own, WIDEST)]
    return tables


def region_table(rows: Sequence[RegionRow]) -> Table:
    """Return how the regions' SUVR agree, a group of rows a region."""

    def line(row: RegionRow) -> list[Cell]:
        signed = (row.bias, row.lower_limit, row.upper_limit)
        bias, low, high = (estimate_cell(value, 3, sign=True) for value in signed)
        errors = [estimate_cell(row.mae, 3), estimate_cell(row.correlation, 2)]
        return [Cell(row.method), Cell(row.count), bias, *errors, low, high]

    columns = [
        Column("Region", "text"),
        Column("Method", "text"),
        Column("Subjects"),
        Column("Bias (SUVR)"),
        Column("MAE (SUVR)", direction="lower"),
        Column("r", direction="higher"),
        Column("Lower limit (SUVR)"),
        Column("Upper limit (SUVR)"),
    ]
    caption = (
        "Bias: synthetic minus real. Between the limits of agreement (Bland and Altman 1986) lie 95 % of the"
        f" subjects' differences. {INTERVALS}"
    )
    groups = grouped(rows, lambda row: REGIONS.get(row.region, row.region.replace("_", " ")), line)
    return Table("Regions of the MetaROI", columns, groups, caption)


def _method_rows(rows: Sequence[GroupRow], metrics: Sequence[Metric]) -> list[list[Cell]]:
    winners = {metric.name: _best(rows, metric) if len(rows) > 1 else None for metric in metrics}
    return [
        [
            Cell(row.method),
            Cell(row.count),
            *(_metric_cell(row, metric, winners[metric.name]) for metric in metrics),
        ]
        for row in rows
    ]


def _metric_cell(row: GroupRow, metric: Metric, winner: str | None) -> Cell:
    estimate = metric.estimate(row)
    won = estimate.value is not None and metric.text(estimate.value) == winner
    signed = metric.higher_is_better is None and metric.name.endswith("bias")
    return estimate_cell(estimate, metric.digits, best=won, sign=signed)


def _best(rows: Sequence[GroupRow], metric: Metric) -> str | None:
    """Best value as text, so that values shown as equal are equally good; None where there is no rival."""
    values = [value for row in rows if (value := metric.of(row)) is not None]
    if len(values) < 2 or metric.higher_is_better is None:
        return None
    return metric.text(max(values) if metric.higher_is_better else min(values))


def _direction(metric: Metric) -> Direction:
    if metric.higher_is_better is None:
        return ""
    return "higher" if metric.higher_is_better else "lower"


def _rivals(groups: Sequence[RowGroup]) -> bool:
    return any(cell.best for group in groups for row in group.rows for cell in row)


def grouped(rows: Sequence[T], name: Callable[[T], str], line: Callable[[T], list[Cell]]) -> list[RowGroup]:
    """Put rows of one name together, in the order in which names come first."""
    names = dict.fromkeys(name(row) for row in rows)
    return [RowGroup(group, [line(row) for row in rows if name(row) == group]) for group in names]


def batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut a sequence into parts of at most so many."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def number(value: float, form: str) -> str:
    """Return a number with a minus sign as it is printed, and without the sign of nothing (-0.00)."""
    text = format(value, form)
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")
