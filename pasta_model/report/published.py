# SPDX-License-Identifier: Apache-2.0
"""What the paper reports, beside the same measures of a run."""

from dataclasses import replace

from pasta_model.evaluation.columns import BY_NAME, PAPER
from pasta_model.report.page import Cell, RowGroup, Table

HEADING = "the paper, on ADNI"
_WORDS = "The paper's numbers are of other subjects, scanners and preparation: no like beside like."


def with_paper(table: Table) -> Table:
    """Add the paper's row to a table over methods that has its measures; return any other as it is."""
    told = {BY_NAME[name].heading: BY_NAME[name].text(value) for name, value in PAPER.items()}
    headings = [column.heading for column in table.columns]
    if not told.keys() & set(headings):
        return table
    none = Cell("not reported", missing=True)
    cells = [Cell(told[heading]) if heading in told else none for heading in headings[3:]]
    row = [Cell("PASTA (Li et al. 2026)"), none, *cells]
    caption = f"{table.caption} {_WORDS}".strip()
    return replace(table, rows=[*table.rows, RowGroup(HEADING, [row])], caption=caption)
