# SPDX-License-Identifier: Apache-2.0
"""Whether a method's uncertainty is calibrated: rows over sessions, with intervals over persons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pasta_model.errors import ConfigError
from pasta_model.evaluation.estimates import Estimate, bootstrap, mean_of
from pasta_model.evaluation.uncertainty_records import SubjectUncertainty
from pasta_model.metrics.uncertainty import LEVELS, Floats, calibration_error, interval_factor

LEAST_RANKED = 4  # subjects; the order of fewer says nothing
Records = Sequence[SubjectUncertainty]


@dataclass(frozen=True)
class CoverageRow:
    """How often the real SUVR lies in the central interval of a method, over voxels of the brain.

    Attributes
    ----------
    coverage
        Mean over sessions of the share of voxels; `level` where calibrated.
    width
        Mean width of the interval, in SUVR.
    """

    method: str
    level: float
    subjects: int
    coverage: Estimate
    width: Estimate


@dataclass(frozen=True)
class RegionCoverageRow:
    """In what share of sessions a region's interval holds its real mean SUVR; needs the samples."""

    method: str
    region: str
    level: float
    subjects: int
    coverage: Estimate
    width: Estimate


@dataclass(frozen=True)
class SpreadRow:
    """Whether the subjects on whom a method is unsure are those on whom it is wrong.

    Attributes
    ----------
    correlation
        Spearman's, over sessions, of mean |error| with mean spread in the brain.
    error, spread
        Their means, in SUVR.
    """

    method: str
    subjects: int
    correlation: Estimate
    error: Estimate
    spread: Estimate


@dataclass(frozen=True)
class CalibrationRow:
    """Error against spread within the brain, over bins of voxels.

    Attributes
    ----------
    within
        Mean over sessions of Spearman's correlation of |error| with spread over voxels.
    ratio
        Root mean square error over that of the spread of a new draw: above 1, the method is too sure.
    ence
        Expected normalised calibration error, the mean over sessions; 0 where calibrated.
    """

    method: str
    subjects: int
    within: Estimate
    ratio: Estimate
    ence: Estimate


@dataclass(frozen=True)
class CurvePoint:
    """Bin number `bin`, from 1 for the least spread, over sessions: in SUVR, and error over spread."""

    method: str
    bin: int
    spread: Estimate
    error: Estimate
    ratio: Estimate


@dataclass(frozen=True)
class Recalibration:
    """By what spreads are to be multiplied, and at which level on how many persons that was found."""

    factor: float
    level: float
    subjects: int


def coverage_rows(records: Records, *, levels: Sequence[float] = LEVELS, seed: int = 0) -> list[CoverageRow]:
    """Coverage and width by method and level; for levels at which the records were measured."""
    rows = []
    for method, known, why in _by_method(records):
        for level in levels:
            found = (
                _mean(known, [r.coverage.get(level) for r in known], why, seed),
                _mean(known, [r.width.get(level) for r in known], why, seed),
            )
            rows.append(CoverageRow(method, level, _persons(known), *found))
    return rows


def region_coverage_rows(
    records: Records, *, levels: Sequence[float] = LEVELS, seed: int = 0
) -> list[RegionCoverageRow]:
    """Coverage of regional means by method, region and level; no row where no samples were kept."""
    rows = []
    for method, known, why in _by_method(records):
        for region in dict.fromkeys(name for r in known for name in r.regions):
            here = [r for r in known if region in r.regions]
            for level in levels:
                pairs = [r.regions[region].get(level) for r in here]
                found = (
                    _mean(here, [None if p is None else float(p[part]) for p in pairs], why, seed)
                    for part in (0, 1)
                )
                rows.append(RegionCoverageRow(method, region, level, _persons(here), *found))
    return rows


def spread_rows(records: Records, *, seed: int = 0) -> list[SpreadRow]:
    """Error against spread over subjects, by method."""
    rows = []
    for method, known, why in _by_method(records):
        error, spread = ([getattr(r, name) for r in known] for name in ("error", "spread"))
        correlation = _ranked(known, np.asarray(error), np.asarray(spread), why, seed)
        means = (_mean(known, values, why, seed) for values in (error, spread))
        rows.append(SpreadRow(method, _persons(known), correlation, *means))
    return rows


def calibration_rows(records: Records, *, seed: int = 0) -> list[CalibrationRow]:
    """Error against spread over voxels, by method."""
    rows = []
    for method, known, why in _by_method(records):
        within = _mean(known, [r.within for r in known], why or "no order among voxels", seed)
        ence = _mean(known, [calibration_error(r.curve) for r in known], why, seed)
        squares = np.array([_squares(r) for r in known]).reshape(-1, 2)
        ratio = _ratio(known, squares[:, 0], squares[:, 1], why, seed)
        rows.append(CalibrationRow(method, _persons(known), within, ratio, ence))
    return rows


def reliability_curve(records: Records, *, seed: int = 0) -> list[CurvePoint]:
    """Error against spread by bin, by method, over sessions; sessions that lack a bin are left out."""
    points = []
    for method, known, why in _by_method(records):
        most = max((len(r.curve) for r in known), default=0)
        whole = [r for r in known if len(r.curve) == most]
        for number in range(most):
            spread, error = (
                np.array([getattr(r.curve[number], name) ** 2 for r in whole]) for name in ("spread", "error")
            )
            ones = np.ones_like(spread)
            found = ((spread, ones), (error, ones), (error, spread))
            points.append(CurvePoint(method, number + 1, *(_ratio(whole, a, b, why, seed) for a, b in found)))
    return points


def recalibration(validation: Records, *, level: float = 0.9) -> Recalibration:
    """Find the one factor on all spreads with which coverage is `level`, on validation subjects only.

    Split-conformal in spirit, with a scalar (compare Laves et al. 2020 and Angelopoulos et al. 2022):
    the `level` quantile of |error| over half the interval, every session counting the same. It promises
    coverage for voxels on average, on subjects like those of validation. It does not mend where the spread
    is in the wrong place, holds for no single subject, region, site or diagnosis, and not at other levels
    unless errors have the assumed shape. Subjects on whom coverage is reported afterwards must not be among
    those given here: then it would hold by construction.

    Raises
    ------
    ConfigError
        When there is no record with a spread, records of several methods, or so many voxels without spread
        that no factor is enough.
    """
    methods = {r.method for r in validation}
    known = [r for r in validation if not r.why]
    if not known or len(methods) > 1:
        raise ConfigError(
            f"found {len(known)} sessions with a spread, of {len(methods)} methods; wanted some of one method"
        )
    needed = np.concatenate([r.ratios / interval_factor(level, samples=r.samples) for r in known])
    factor = float(np.quantile(needed, level, method="higher"))
    if not np.isfinite(factor):
        raise ConfigError(
            f"more than {1 - level:.0%} of voxels have an error and no spread: no factor is enough"
        )
    return Recalibration(factor, level, _persons(known))


def recalibrated_coverage(records: Records, found: Recalibration, *, seed: int = 0) -> list[CoverageRow]:
    """Coverage at the level of a recalibration with its factor applied, for subjects it was not found on."""
    rows = []
    for method, known, why in _by_method(records):
        ends = [found.factor * interval_factor(found.level, samples=r.samples) for r in known]
        shares = [float((r.ratios <= end).mean()) for r, end in zip(known, ends, strict=True)]
        widths = [2 * end * r.spread for r, end in zip(known, ends, strict=True)]
        means = (_mean(known, values, why, seed) for values in (shares, widths))
        rows.append(CoverageRow(method, found.level, _persons(known), *means))
    return rows


def _by_method(records: Records) -> Iterator[tuple[str, Records, str]]:
    """Yield each method, its records with a spread, and why others have none."""
    for method in dict.fromkeys(r.method for r in records):
        here = [r for r in records if r.method == method]
        yield method, [r for r in here if not r.why], next((r.why for r in here if r.why), "")


def _persons(records: Records) -> int:
    return len({r.person for r in records})


def _mean(records: Records, values: Sequence[float | None], why: str, seed: int) -> Estimate:
    known = [(r.person, value) for r, value in zip(records, values, strict=True) if value is not None]
    if not known:
        return Estimate(None, why=why or "not measured")
    return mean_of([who for who, _ in known], [value for _, value in known], seed=seed, name="uncertainty")


def _ranked(records: Records, error: Floats, spread: Floats, why: str, seed: int) -> Estimate:
    if len(records) < LEAST_RANKED:
        return Estimate(
            None, why=why or f"{len(records)} sessions, wanted at least {LEAST_RANKED} for an order"
        )

    def statistic(rows: NDArray[np.intp]) -> float:
        if np.ptp(error[rows]) == 0 or np.ptp(spread[rows]) == 0:
            raise ValueError("the same error, or spread, on all subjects: there is no order")
        return float(stats.spearmanr(error[rows], spread[rows]).statistic)

    return bootstrap([r.person for r in records], statistic, seed=seed, name="uncertainty")


def _squares(record: SubjectUncertainty) -> tuple[float, float]:
    """Mean squared error and mean squared spread over the bins' voxels."""
    voxels = np.array([one.voxels for one in record.curve], dtype=np.float64)
    error, spread = (np.array([getattr(one, n) for one in record.curve]) for n in ("error", "spread"))
    return float(np.average(error**2, weights=voxels)), float(np.average(spread**2, weights=voxels))


def _ratio(records: Records, above: Floats, below: Floats, why: str, seed: int) -> Estimate:
    """Root of the ratio of two means over sessions."""
    if not records:
        return Estimate(None, why=why or "not measured")

    def statistic(rows: NDArray[np.intp]) -> float:
        return float(np.sqrt(above[rows].mean() / below[rows].mean()))

    return bootstrap([r.person for r in records], statistic, seed=seed, name="uncertainty")
