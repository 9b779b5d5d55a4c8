# SPDX-License-Identifier: Apache-2.0
"""The table of scores for a terminal, and the same as plain text."""

from collections.abc import Sequence
from io import StringIO
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasta_model.evaluation.scores import METRICS, SiteRow, best

BEST_MARK = "*"


def scores_table(rows: Sequence[SiteRow], *, title: str | None = None) -> Table:
    """One block of rows a site, one row a method; the best value of a site is bold and marked.

    Parameters
    ----------
    rows
        As `summarise` returns them: the rows of a site stand together.
    """
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption=f"{BEST_MARK} best of the site; MAE and MetaROI error: lower is better, others: higher",
        caption_justify="left",
    )
    table.add_column("Site")
    table.add_column("Subjects", justify="right")
    table.add_column("Method", no_wrap=True, min_width=9)
    for metric in METRICS:
        unit = f"\n({metric.unit})" if metric.unit else ""
        table.add_column(metric.label + unit, justify="right", no_wrap=True)
    for site, group in groupby(rows, key=lambda row: row.site):
        _add_site(table, site, list(group))
    return table


def table_text(rows: Sequence[SiteRow], *, title: str | None = None, width: int = 100) -> str:
    """Return the table as plain text without colours, for a log or a file."""
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(scores_table(rows, title=title))
    return capture.get()


def _add_site(table: Table, site: str, rows: Sequence[SiteRow]) -> None:
    winners = {metric.name: best(rows, metric) for metric in METRICS}
    for index, row in enumerate(rows):
        cells = [Text(site if index == 0 else ""), Text(str(row.subjects)), Text(row.method)]
        for metric in METRICS:
            shown = metric.text(metric.of(row))
            won = len(rows) > 1 and shown == winners[metric.name]
            cells.append(Text(shown + (BEST_MARK if won else " "), style="bold" if won else ""))
        table.add_row(*cells, end_section=index == len(rows) - 1)
