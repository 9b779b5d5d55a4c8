# SPDX-License-Identifier: Apache-2.0
"""MRIs unlike those of the training sites: how many of each site's, and why; small sites are not told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pasta_model.evaluation.groups import suppressed, told
from pasta_model.report.page import Block, Cell, Column, Paragraph, RowGroup, Table

_MEANING = (
    "An MRI is flagged when its measured features lie further from those of the training sites than all but"
    " one in 200 of their own would: the network was not made for such a scan. It is no sign of a wrong PET."
)


@dataclass(frozen=True)
class UnlikeRow:
    """How many MRIs of a site are flagged.

    Attributes
    ----------
    reason
        The most common one; empty where nothing is flagged.
    persons
        Whose MRIs they are.
    """

    site: str
    scans: int
    flagged: int
    reason: str
    persons: int


def unlike_blocks(rows: Sequence[UnlikeRow], *, smallest: int = 0) -> list[Block]:
    """Return the table by site; sites of fewer persons than `smallest` are not shown."""
    hidden = _hidden(rows, smallest)
    lines = [
        [Cell(row.site), Cell(told(row.persons, hidden[row.site])), *[_unseen(hidden[row.site])] * 3]
        if row.site in hidden
        else [Cell(row.site), *map(Cell, (str(row.persons), str(row.scans), str(row.flagged), row.reason))]
        for row in rows
    ]
    columns = [Column("Site", "text"), Column("Subjects"), Column("MRIs"), Column("Flagged")]
    columns.append(Column("Most common reason", "text"))
    return [Paragraph(_MEANING), Table("Flagged MRIs", columns, [RowGroup("", lines)])] if rows else []


def unlike_sentences(rows: Sequence[UnlikeRow], *, smallest: int = 0) -> list[str]:
    """Return a sentence a site that is shown and has flagged MRIs."""
    hidden = _hidden(rows, smallest)
    return [
        f"{row.flagged} of {row.scans} MRIs of {row.site} are unlike those trained on."
        for row in rows
        if row.flagged and row.site not in hidden
    ]


def _hidden(rows: Sequence[UnlikeRow], smallest: int) -> Mapping[str, str]:
    return suppressed({row.site: row.persons for row in rows}, smallest=smallest)


def _unseen(why: str) -> Cell:
    return Cell("not shown", note=why, missing=True)
