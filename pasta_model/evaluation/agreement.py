# SPDX-License-Identifier: Apache-2.0
"""How the regions' SUVR of synthetic PETs agrees with that of the real ones (Bland and Altman 1986)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pasta_model.evaluation.columns import REGIONS, WHOLE
from pasta_model.evaluation.estimates import Estimate, bootstrap_sums
from pasta_model.evaluation.groups import few, persons, told
from pasta_model.evaluation.scores import SubjectScore

Floats = NDArray[np.float64]
WIDTH = 1.96  # standard deviations of the differences to each side: 95 % of them, if they are normal


@dataclass(frozen=True)
class RegionRow:
    """Agreement of one method in one region, in SUVR.

    Attributes
    ----------
    region
        One of the five of the MetaROI, or "metaroi" for their mean.
    bias, mae
        Mean of synthetic minus real, and of its absolute value.
    correlation
        Pearson's, over sessions.
    lower_limit, upper_limit
        Limits of agreement: bias minus and plus 1.96 standard deviations of the differences.
    hidden
        Why it is not shown; empty where it is.
    """

    method: str
    region: str
    subjects: int
    bias: Estimate
    mae: Estimate
    correlation: Estimate
    lower_limit: Estimate
    upper_limit: Estimate
    hidden: str = field(default="", kw_only=True)

    @property
    def count(self) -> str:
        """Persons as a table tells them: of a hidden group no number."""
        return told(self.subjects, self.hidden)


def agreement(scores: Sequence[SubjectScore], *, smallest: int = 0, seed: int = 0) -> list[RegionRow]:
    """Agreement by method and region, with intervals over persons.

    Sessions of one person count as separate differences, as in a plain Bland-Altman plot; the intervals
    draw persons with all their sessions.

    Parameters
    ----------
    smallest
        A method with fewer persons is not shown.
    """
    methods = dict.fromkeys(s.method for s in scores)
    return [
        _row(method, region, [s for s in scores if s.method == method], smallest=smallest, seed=seed)
        for method in methods
        for region in (*REGIONS, WHOLE)
    ]


def _row(method: str, region: str, scores: Sequence[SubjectScore], *, smallest: int, seed: int) -> RegionRow:
    names = (f"real_{region}", f"synthetic_{region}")
    if region == WHOLE:
        names = (f"{WHOLE}_real", f"{WHOLE}_synthetic")
    pairs = [(s, s.values.get(names[0]), s.values.get(names[1])) for s in scores]
    known = [(s, real, made) for s, real, made in pairs if real is not None and made is not None]
    people = [s.person for s, _, _ in known]
    if len(set(people)) < smallest:
        why = few(smallest)
        return RegionRow(method, region, persons(scores), *[Estimate(None, why=why)] * 5, hidden=why)
    if not known:
        reason = next((s.why[name] for s in scores for name in names if name in s.why), "not measured")
        return RegionRow(method, region, 0, *[Estimate(None, why=reason)] * 5)
    real, made = (np.array([pair[k] for pair in known], dtype=np.float64) for k in (1, 2))
    table = _moments(real, made)
    found = bootstrap_sums(people, table, _statistics, seed=seed, name="agreement")
    return RegionRow(method, region, len(set(people)), *_explained(found, len(known)))


def _moments(real: Floats, made: Floats) -> Floats:
    """Return what the statistics sum, (sessions, 9); SUVR from its mean, so that no digits are lost."""
    error, x, y = made - real, real - real.mean(), made - made.mean()
    return np.stack([np.ones_like(x), error, np.abs(error), error**2, x, y, x * x, y * y, x * y], axis=1)


def _statistics(sums: Floats) -> Floats:
    """Bias, MAE, correlation and both limits, (..., 5), from sums of moments (..., 9)."""
    n, error, size, square, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = error / n
        spread = np.sqrt(np.maximum(square - n * bias**2, 0.0) / (n - 1))  # of a sample: n - 1
        var_x, var_y = (_positive(squares / n - (total / n) ** 2) for squares, total in ((xx, x), (yy, y)))
        correlation = (xy / n - x * y / n**2) / np.sqrt(var_x * var_y)
        limits = (bias - WIDTH * spread, bias + WIDTH * spread)
        found: Floats = np.stack([bias, size / n, np.clip(correlation, -1.0, 1.0), *limits], axis=-1)
    return found


def _positive(variance: Floats) -> Floats:
    """Variance, NaN where it is nothing but rounding."""
    return np.where(variance > 1e-14, variance, np.nan)


def _explained(found: Sequence[Estimate], sessions: int) -> list[Estimate]:
    """Say why a statistic is not defined: one session, or no spread."""
    one = "one session has no spread"
    flat = "no spread: all real, or all synthetic, PETs have the same SUVR here"
    reasons = [""] * 2 + [one if sessions < 2 else flat] + [one] * 2
    return [
        Estimate(None, why=reason) if estimate.value is None and reason else estimate
        for estimate, reason in zip(found, reasons, strict=True)
    ]
