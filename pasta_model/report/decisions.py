# SPDX-License-Identifier: Apache-2.0
"""The table of what became of each session, for a terminal."""

from collections import Counter
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from pasta_model.prepare.records import Decision

_COLOURS = {"taken": "green", "left": "yellow", "refused": "bold red"}
MOST = 60  # rows; sessions.tsv holds all


def decisions_table(decisions: Sequence[Decision]) -> Table:
    """Return the sessions with outcome and reason: first what must be mended, at most `MOST` rows."""
    counts: Counter[str] = Counter(d.outcome for d in decisions)
    title = ", ".join(f"{counts[name]} {name}" for name in _COLOURS)
    table = Table("subject", "session", "outcome", "why", title=title, title_justify="left")
    order = list(reversed(_COLOURS))
    ordered = sorted(decisions, key=lambda d: (order.index(d.outcome), d.subject, d.session))
    for d in ordered[:MOST]:
        colour = _COLOURS[d.outcome]
        table.add_row(d.subject, d.session, f"[{colour}]{d.outcome}[/]", escape(" ".join(d.reason.split())))
    if len(ordered) > MOST:
        table.add_row("...", "", "", f"{len(ordered) - MOST} more in sessions.tsv")
    return table
