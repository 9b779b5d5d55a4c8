# SPDX-License-Identifier: Apache-2.0
"""What the table says, in words that are computed from it, also where it does not please."""

from collections.abc import Sequence
from dataclasses import dataclass

from pasta_model.evaluation.scores import ALL_SITES, MEAN_OF_SITES, METRICS, Metric, SiteRow


@dataclass(frozen=True)
class Verdict:
    """One comparison: `beats` over all subjects, and the sentence."""

    beats: bool
    text: str

    def __str__(self) -> str:
        return self.text


def verdicts(
    rows: Sequence[SiteRow], *, method: str = "federated", baselines: Sequence[str] = ("mean PET", "alone")
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


def _against(rows: Sequence[SiteRow], method: str, baseline: str) -> list[Verdict]:
    cells = {(row.site, row.method): row for row in rows}
    pooled, other = (cells.get((ALL_SITES, name)) for name in (method, baseline))
    if pooled is None or other is None:
        absent = method if pooled is None else baseline
        return [_not_compared(method, baseline, f"no scores of {absent}")]
    if pooled.subjects != other.subjects:
        reason = f"they have {pooled.subjects} and {other.subjects} subjects"
        return [_not_compared(method, baseline, reason)]
    sites = dict.fromkeys(row.site for row in rows if row.site not in (ALL_SITES, MEAN_OF_SITES))
    pairs = [
        (cells[site, method], cells[site, baseline])
        for site in sites
        if (site, method) in cells and (site, baseline) in cells
    ]
    return [_sentence(metric, pooled, other, pairs) for metric in METRICS]


def _not_compared(method: str, baseline: str, reason: str) -> Verdict:
    return Verdict(beats=False, text=f"{method} against {baseline}: not compared, {reason}.")


def _sentence(
    metric: Metric, mine: SiteRow, other: SiteRow, pairs: Sequence[tuple[SiteRow, SiteRow]]
) -> Verdict:
    beats = _better(metric, mine, other)
    verb = "beats" if beats else "does not beat"
    values = f"{metric.text(metric.of(mine))} against {metric.text(metric.of(other))}"
    unit = f" {metric.unit}" if metric.unit else ""
    text = (
        f"{metric.label}: {mine.method} {verb} {other.method} over all {mine.subjects} subjects"
        f" ({values}{unit}{_change(metric, mine, other)}); {_where(metric, pairs)}."
    )
    return Verdict(beats, text)


def _better(metric: Metric, mine: SiteRow, other: SiteRow) -> bool:
    first, second = metric.of(mine), metric.of(other)
    return first > second if metric.higher_is_better else first < second


def _change(metric: Metric, mine: SiteRow, other: SiteRow) -> str:
    """Relative change of an error; gains of a ratio or of decibels say nothing in percent."""
    before, after = metric.of(other), metric.of(mine)
    if metric.higher_is_better or before <= 0:
        return ""
    change = (after - before) / before
    return f", {abs(change):.0%} {'lower' if change < 0 else 'higher'}" if abs(change) >= 0.005 else ""


def _where(metric: Metric, pairs: Sequence[tuple[SiteRow, SiteRow]]) -> str:
    won = [mine.site for mine, other in pairs if _better(metric, mine, other)]
    lost = [mine.site for mine, other in pairs if not _better(metric, mine, other)]
    if not lost:
        return f"better at all {len(won)} sites"
    if not won:
        return f"better at no site of {len(lost)}"
    return f"better at {', '.join(won)}; not at {', '.join(lost)}"
