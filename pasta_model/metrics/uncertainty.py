# SPDX-License-Identifier: Apache-2.0
"""Whether the spread of a method's samples says how wrong it is: coverage, and error against spread.

The real PET is one draw, not the mean of many. If it came from what n samples are drawn from, it would lie
in the interval mean +- t_{n-1} sqrt(1 + 1/n) spread (Student's prediction interval), whose width counts
that mean and spread are estimates too. That is the default. The Gaussian interval mean +- z spread takes
both as known; use it for a spread that does not come from a few samples.
Shapes: a volume is (x, y, z) in SUVR, a stack (n, x, y, z); all that is measured is measured in the mask.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pasta_model.data.grid import Grid
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.metrics.regions import composite, metaroi_suvr
from pasta_model.metrics.similarity import check_pair

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
LEVELS = (0.5, 0.8, 0.9, 0.95)
BINS = 10
WHOLE = "metaroi"  # mean of the five regions


@dataclass(frozen=True)
class Prediction:
    """What a method says of one subject.

    Attributes
    ----------
    mean, spread
        (x, y, z) in SUVR; mean and standard deviation (ddof 1) of the samples.
    samples
        n, how many there were; None where the spread does not come from samples: intervals are Gaussian.
    """

    mean: Array
    spread: Array
    samples: int | None

    @classmethod
    def of(cls, stack: Array) -> "Prediction":
        """Mean and spread of a stack (n, x, y, z).

        Raises
        ------
        VolumeError
            When there are fewer than two samples.
        """
        if stack.ndim != 4 or len(stack) < 2:
            raise VolumeError(f"found samples {stack.shape}, wanted (n, x, y, z) with at least two samples")
        wide = stack.astype(np.float64)
        return cls(wide.mean(axis=0), wide.std(axis=0, ddof=1), len(stack))


@dataclass(frozen=True)
class Bin:
    """Voxels of about the same spread: what was predicted, and what was found, in SUVR.

    Attributes
    ----------
    spread
        Root mean square of the predicted standard deviation of a new draw.
    error
        Root mean square error.
    """

    voxels: int
    spread: float
    error: float

    @property
    def ratio(self) -> float:
        """Error over spread: 1 where calibrated, above 1 where the method is too sure."""
        return self.error / self.spread


def interval_factor(level: float, *, samples: int | None) -> float:
    """Return half the width of the central interval of a new draw, in spreads.

    Raises
    ------
    ConfigError
        When the level is not in (0, 1).
    VolumeError
        When there is one sample.
    """
    if not 0 < level < 1:
        raise ConfigError(f"found the level {level}, wanted one between 0 and 1")
    if samples is None:
        return float(stats.norm.ppf((1 + level) / 2))
    return float(stats.t.ppf((1 + level) / 2, _freedom(samples))) * _new_draw(samples)


def coverage(real: Array, predicted: Prediction, *, mask: Mask, level: float) -> float:
    """Share of the brain's voxels whose real SUVR lies in the interval; `level` where calibrated.

    Raises
    ------
    VolumeError
        When the volumes do not match, or the spread is 0 in the whole brain.
    """
    error, spread = _inside(real, predicted, mask)
    return float((error <= interval_factor(level, samples=predicted.samples) * spread).mean())


def width(predicted: Prediction, *, mask: Mask, level: float) -> float:
    """Mean width of the interval in the brain, in SUVR: of two that cover alike, the narrower knows more."""
    _, spread = _inside(predicted.mean, predicted, mask)
    return float(2 * interval_factor(level, samples=predicted.samples) * spread.mean())


def error_and_spread(real: Array, predicted: Prediction, *, mask: Mask) -> tuple[float, float]:
    """Mean absolute error and mean spread in the brain, in SUVR: of each subject one point."""
    error, spread = _inside(real, predicted, mask)
    return float(error.mean()), float(spread.mean())


def rank_correlation(real: Array, predicted: Prediction, *, mask: Mask) -> float:
    """Spearman's correlation of |error| with spread over the brain's voxels.

    It asks where errors are, not how large; even a perfect spread reaches no 1, as each error is one draw.

    Raises
    ------
    VolumeError
        When the spread or the error is the same in the whole brain.
    """
    error, spread = _inside(real, predicted, mask)
    if np.ptp(error) == 0 or np.ptp(spread) == 0:
        raise VolumeError("the spread, or the error, is the same in all of the brain: there is no order")
    return float(stats.spearmanr(error, spread).statistic)


def reliability(real: Array, predicted: Prediction, *, mask: Mask, bins: int = BINS) -> tuple[Bin, ...]:
    """Error against spread over bins of as many voxels each, from the least spread to the most.

    Levi et al. 2022 (Sensors 22, 5540), eq. 6 and 7. The spread is that of a new draw, sqrt(1 + 1/n) wider.
    Bins without spread are left out: nothing can be divided by it.
    """
    error, spread = _inside(real, predicted, mask)
    if bins < 1 or error.size < bins:
        raise VolumeError(f"found {error.size} voxels for {bins} bins, wanted at least one a bin")
    spread = spread * _new_draw(predicted.samples)
    parts = np.array_split(np.argsort(spread, kind="stable"), bins)
    found = (Bin(len(part), _rms(spread[part]), _rms(error[part])) for part in parts)
    return tuple(one for one in found if one.spread > 0)


def calibration_error(curve: tuple[Bin, ...]) -> float:
    """Return the expected normalised calibration error (ENCE): mean |spread - error| / spread over bins.

    Levi et al. 2022, eq. 8.

    Raises
    ------
    VolumeError
        When there is no bin.
    """
    if not curve:
        raise VolumeError("no bin of voxels has any spread")
    return float(np.mean([abs(one.spread - one.error) / one.spread for one in curve]))


def error_ratios(real: Array, predicted: Prediction, *, mask: Mask) -> Floats:
    """Return |error| over spread of the brain's voxels, (voxels,); infinite where only the spread is 0.

    The share of them that is at most f times `interval_factor` is the coverage once spreads are multiplied
    by f.
    """
    error, spread = _inside(real, predicted, mask)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(error == 0, 0.0, error / spread))


def region_samples(stack: Array, *, grid: Grid) -> dict[str, Floats]:
    """Return the mean SUVR of each MetaROI region, and of the five ("metaroi"), in each sample, (n,).

    It needs the samples: how far a regional mean spreads depends on how voxels err together, which maps of
    mean and spread do not tell. The mean of the region's spread would only be an upper bound.
    """
    if stack.ndim != 4:
        raise VolumeError(f"found samples {stack.shape}, wanted (n, x, y, z)")
    drawn = [metaroi_suvr(sample, grid=grid) for sample in stack]
    found = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
    return found | {WHOLE: np.array([composite(one) for one in drawn])}


def covers(real: float, samples: Floats, *, level: float) -> tuple[bool, float]:
    """Whether the interval of a few samples (n,) of one number holds the real one, and its width.

    Raises
    ------
    VolumeError
        When there is one sample, or all are the same.
    """
    half = interval_factor(level, samples=samples.size) * float(samples.std(ddof=1))
    if half == 0:
        raise VolumeError("all samples are the same; wanted some spread")
    return abs(real - float(samples.mean())) <= half, 2 * half


def _inside(real: Array, predicted: Prediction, mask: Mask) -> tuple[Floats, Floats]:
    """Absolute error and spread of the brain's voxels."""
    check_pair(real, predicted.mean, mask)
    check_pair(real, predicted.spread, mask)
    if predicted.samples is not None:
        _freedom(predicted.samples)
    spread = predicted.spread[mask].astype(np.float64)
    if spread.min() < 0:
        raise VolumeError("the spread is below 0 in places; wanted standard deviations")
    if not spread.any():
        raise VolumeError("the spread is 0 in the whole brain: all samples are the same")
    return np.abs(real[mask].astype(np.float64) - predicted.mean[mask]), spread


def _freedom(samples: int) -> int:
    if samples < 2:
        raise VolumeError("one sample has no spread; synthesise with --samples 2 or more")
    return samples - 1


def _new_draw(samples: int | None) -> float:
    """How much further a new draw spreads about the mean of n than about the true mean."""
    return 1.0 if samples is None else float(np.sqrt(1.0 + 1.0 / samples))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))
