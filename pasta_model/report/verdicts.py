# SPDX-License-Identifier: Apache-2.0
"""What the table says, in words that are computed from it, also where it does not please."""

from collections.abc import Sequence
from dataclasses import dataclass

from pasta_model.evaluation.columns import METRICS, Metric
from pasta_model.evaluation.summary import GroupRow


@dataclass(frozen=True)
class Verdict:
    """One comparison: `beats` over all subjects, and the sentence."""

    beats: bool
    text: str

    def __str__(self) -> str:
        return self.text


def verdicts(
    rows: Sequence[GroupRow], *, method: str = "federated", baselines: Sequence[str] = ("mean PET", "alone")
) -> list[Verdict]:
    """Compare a method with each baseline on each metric: over all subjects, then site by site.

    Parameters
    ----------
    rows
        As `summarise` returns them.

    Returns
    -------
    list of Verdict
        One a baseline and metric; a baseline that cannot be compared gets one that says why.
    """
    return [verdict for baseline in baselines for verdict in _against(rows, method, baseline)]


def _against(rows: Sequence[GroupRow], method: str, baseline: str) -> list[Verdict]:
    cells = {(row.group, row.method): row for row in rows if row.kind == "site"}
    whole = {row.method: row for row in rows if row.kind == "all"}
    pooled, other = whole.get(method), whole.get(baseline)
    if pooled is None or other is None:
        absent = method if pooled is None else baseline
        return [_not_compared(method, baseline, f"no scores of {absent}")]
    if pooled.subjects != other.subjects:
        reason = f"they have {pooled.subjects} and {other.subjects} subjects"
        return [_not_compared(method, baseline, reason)]
    sites = dict.fromkeys(row.group for row in rows if row.kind == "site")
    pairs = [
        (cells[site, method], cells[site, baseline])
        for site in sites
        if (site, method) in cells and (site, baseline) in cells
    ]
    return [_sentence(metric, pooled, other, pairs) for metric in METRICS]


def _not_compared(method: str, baseline: str, reason: str) -> Verdict:
    return Verdict(beats=False, text=f"{method} against {baseline}: not compared, {reason}.")


def _sentence(
    metric: Metric, mine: GroupRow, other: GroupRow, pairs: Sequence[tuple[GroupRow, GroupRow]]
) -> Verdict:
    if metric.of(mine) is None or metric.of(other) is None:
        return _not_compared(mine.method, other.method, f"{metric.label} is not available")
    beats = _better(metric, mine, other)
    verb = "beats" if beats else "does not beat"
    values = f"{metric.text(metric.of(mine))} against {metric.text(metric.of(other))}"
    unit = f" {metric.unit}" if metric.unit else ""
    text = (
        f"{metric.label}: {mine.method} {verb} {other.method} over all {mine.subjects} subjects"
        f" ({values}{unit}{_change(metric, mine, other)}); {_where(metric, pairs)}."
    )
    return Verdict(beats, text)


def _better(metric: Metric, mine: GroupRow, other: GroupRow) -> bool:
    first, second = metric.of(mine), metric.of(other)
    if first is None or second is None:
        return False
    return first > second if metric.higher_is_better else first < second


def _change(metric: Metric, mine: GroupRow, other: GroupRow) -> str:
    """Relative change of an error; gains of a ratio or of decibels say nothing in percent."""
    before, after = metric.of(other), metric.of(mine)
    if metric.higher_is_better or before is None or after is None or before <= 0:
        return ""
    change = (after - before) / before
    return f", {abs(change):.0%} {'lower' if change < 0 else 'higher'}" if abs(change) >= 0.005 else ""


def _where(metric: Metric, pairs: Sequence[tuple[GroupRow, GroupRow]]) -> str:
    known = [(a, b) for a, b in pairs if metric.of(a) is not None and metric.of(b) is not None]
    won = [mine.group for mine, other in known if _better(metric, mine, other)]
    lost = [mine.group for mine, other in known if not _better(metric, mine, other)]
    if not known:
        return "at no site available"
    if not lost:
        return f"better at all {len(won)} sites"
    if not won:
        return f"better at no site of {len(lost)}"
    return f"better at {', '.join(won)}; not at {', '.join(lost)}"
