# SPDX-License-Identifier: Apache-2.0
"""The table of scores for a terminal, and the same as plain text."""

from collections.abc import Sequence
from io import StringIO
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasta_model.evaluation.columns import BY_NAME, METRICS, PAPER, Metric
from pasta_model.evaluation.estimates import LEVEL, NOT_AVAILABLE, Estimate
from pasta_model.evaluation.summary import GroupRow, best

BEST_MARK = "*"
SHORT = "n/a"
"""A value that is not available, in a narrow column; the caption says why."""
_SITES = ("site", "all", "sites")


def scores_table(rows: Sequence[GroupRow], *, title: str | None = None, intervals: bool = False) -> Table:
    """One block of rows a group, one row a method; the best value of a group is bold and marked.

    Parameters
    ----------
    rows
        As `summarise` returns them: the rows of a group stand together.
    intervals
        Put the interval of each mean below it.
    """
    caption = f"{BEST_MARK} best of the group; MAE and MetaROI error: lower is better, others: higher"
    if intervals:
        caption += f"\nbelow a mean: its {LEVEL:.0%} interval, by bootstrap over subjects"
    if hidden := _reasons(rows):
        caption += f"\n{SHORT}, {NOT_AVAILABLE}: {'; '.join(hidden)}"
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", caption=caption, caption_justify="left"
    )
    table.add_column("Site" if all(row.kind in _SITES for row in rows) else "Group")
    table.add_column("Subjects", justify="right")
    table.add_column("Method", no_wrap=True, min_width=9)
    for metric in METRICS:
        unit = f"\n({metric.unit})" if metric.unit else ""
        table.add_column(metric.label + unit, justify="right", no_wrap=True)
    for (_, name), group in groupby(rows, key=lambda row: (row.kind, row.group)):
        _add_group(table, name, list(group), intervals=intervals)
    return table


def table_text(
    rows: Sequence[GroupRow], *, title: str | None = None, width: int = 100, intervals: bool = False
) -> str:
    """Return the table as plain text without colours, for a log or a file."""
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(scores_table(rows, title=title, intervals=intervals))
    return capture.get()


def published_lines(rows: Sequence[GroupRow]) -> list[str]:
    """Say what each method reaches over all subjects on the paper's scale, and what the paper reports.

    Returns
    -------
    list of str
        A line a method and one of the paper; none when there is nothing to be laid beside it.
    """
    lines = [
        f"{row.method}: {', '.join(_percent(name, BY_NAME[name].estimate(row)) for name in PAPER)}"
        for row in rows
        if row.kind == "all" and any(BY_NAME[name].of(row) is not None for name in PAPER)
    ]
    if not lines:
        return []
    paper = ", ".join(_percent(name, Estimate(value)) for name, value in PAPER.items())
    return [
        "As published: axial slices, each volume scaled to [0, 1] by its own range, which drops the SUVR.",
        *lines,
        f"the paper, on ADNI: {paper} (other subjects, scanners and preprocessing)",
    ]


def _percent(name: str, found: Estimate) -> str:
    label, _, _ = BY_NAME[name].label.partition(",")
    in_percent = BY_NAME[name].unit != "dB"
    factor, unit = (100.0, " %") if in_percent else (1.0, " dB")
    value, low, high = (None if end is None else factor * end for end in (found.value, found.low, found.high))
    return f"{label} {Estimate(value, low, high).text(2)}{'' if value is None else unit}"


def _add_group(table: Table, name: str, rows: Sequence[GroupRow], *, intervals: bool) -> None:
    winners = {metric.name: best(rows, metric) for metric in METRICS}
    for index, row in enumerate(rows):
        cells = [Text(name if index == 0 else ""), Text(row.count), Text(row.method)]
        cells += [
            _cell(metric, row, winner=winners[metric.name] if len(rows) > 1 else None, intervals=intervals)
            for metric in METRICS
        ]
        table.add_row(*cells, end_section=index == len(rows) - 1)


def _cell(metric: Metric, row: GroupRow, *, winner: str | None, intervals: bool) -> Text:
    found = metric.estimate(row)
    shown = metric.text(found.value)
    won = found.value is not None and shown == winner
    words = shown if found.value is not None else SHORT
    cell = Text(words + (BEST_MARK if won else " "), style="bold" if won else "")
    if intervals and found.low is not None and found.high is not None:
        cell.append(f"\n{metric.text(found.low)} to \n{metric.text(found.high)} ", style="not bold")
    return cell


def _reasons(rows: Sequence[GroupRow]) -> list[str]:
    """Return why values of the table are not available, each reason once."""
    found = [metric.estimate(row) for row in rows for metric in METRICS]
    return list(dict.fromkeys(estimate.why for estimate in found if estimate.value is None))
