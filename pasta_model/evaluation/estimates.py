# SPDX-License-Identifier: Apache-2.0
"""A number with its interval, or the reason why there is none; intervals by bootstrap over persons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ConfigError
from pasta_model.seeding import numpy_generator

Floats = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 1000
MOST_UNDEFINED = 0.05  # of the resamples; with more, the interval would be that of other data
NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval; without a value, `why`.

    Attributes
    ----------
    value, low, high
        None where it cannot be computed, never NaN. A value may come without an interval.
    why
        The reason for what is missing; empty where nothing is.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""

    def text(self, digits: int = 3, *, interval: bool = True) -> str:
        """Value as a table shows it: "0.123 (0.110 to 0.140)", or "not available"."""
        if self.value is None:
            return NOT_AVAILABLE
        if not interval or self.low is None or self.high is None:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def bootstrap(
    people: Sequence[str],
    statistic: Callable[[NDArray[np.intp]], float],
    *,
    seed: int,
    name: str = "",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """Estimate a statistic of rows, with a percentile interval over persons (Efron 1979).

    Persons are drawn with replacement and bring all their rows, so that several visits of a person, or
    several methods on one, do not count as independent.

    Parameters
    ----------
    people
        Whose each row is.
    statistic
        From row numbers to a number; NaN or ValueError where these rows do not define it.
    seed, name
        Of the draws; statistics that are compared take the same ones.

    Returns
    -------
    Estimate
        Not available, with the reason, when the rows do not define the statistic; without an interval when
        there is one person only, or more than one resample in twenty does not define it.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(f"found level {level} and {resamples} resamples, wanted a level in (0, 1) and one")
    if not people:
        return Estimate(None, why="no subject")
    value, why = _defined(statistic, np.arange(len(people)))
    if value is None:
        return Estimate(None, why=why)
    rows = _rows_by_person(people)
    if len(rows) < 2:
        return Estimate(value, why="one subject gives no interval")
    rng = numpy_generator(seed, "bootstrap", name)
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(0, len(rows), size=len(rows))
        found, _ = _defined(statistic, np.concatenate([rows[i] for i in chosen]))
        drawn.append(np.nan if found is None else found)
    low, high = _quantiles(np.asarray(drawn)[:, None], level)[:, 0]
    return _with_interval(value, (low, high))


def mean_of(people: Sequence[str], values: Sequence[float], *, seed: int, name: str = "") -> Estimate:
    """Mean of the rows with its interval."""
    found = np.asarray(values, dtype=np.float64)
    return bootstrap(people, lambda rows: float(found[rows].mean()), seed=seed, name=name)


def bootstrap_sums(
    people: Sequence[str],
    table: Floats,
    statistics: Callable[[Floats], Floats],
    *,
    seed: int,
    name: str = "",
    strata: Sequence[str] = (),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[Estimate]:
    """Estimate many statistics at once that need only sums over the rows: as `bootstrap`, and much faster.

    With the same seed, name and persons the draws, and so the intervals, are those of `bootstrap`.

    Parameters
    ----------
    table
        (rows, columns): what is to be summed. Finite; a missing value is a 0 that another column counts.
    statistics
        From sums (..., columns) to numbers (..., K); NaN where the sums do not define one.
    strata
        Of each row; persons are drawn within their stratum, which so never gets smaller or larger.

    Returns
    -------
    list of Estimate
        K, in the order of `statistics`.
    """
    if not people:
        return [Estimate(None, why="no subject") for _ in statistics(np.zeros(table.shape[1]))]
    values, drawn = statistics(table.sum(axis=0)), []
    groups = np.asarray(strata if strata else [""] * len(people))
    whose = np.asarray(people)
    for stratum in dict.fromkeys(groups.tolist()):
        here = np.flatnonzero(groups == stratum)
        by_person = np.stack([table[here][rows].sum(axis=0) for rows in _rows_by_person(whose[here])])
        stream = f"{name}/{stratum}" if strata else name
        counts = _drawn_counts(len(by_person), seed=seed, name=stream, resamples=resamples)
        drawn.append(counts @ by_person)
    if len(set(people)) < 2:
        return [_with_interval(float(value), None) for value in values]
    low, high = _quantiles(statistics(np.sum(drawn, axis=0)), level)
    return [_with_interval(float(v), (a, b)) for v, a, b in zip(values, low, high, strict=True)]


def means_of(people: Sequence[str], table: Floats, *, seed: int, name: str = "") -> list[Estimate]:
    """Mean of each column (rows, columns) with its interval; NaN is missing and does not count."""
    return bootstrap_sums(people, counted(table), ratio_of_halves, seed=seed, name=name)


def counted(table: Floats) -> Floats:
    """Put beside each column how often it has a value: (rows, 2 columns), values first, 0 where missing."""
    there = np.isfinite(table)
    return np.concatenate([np.where(there, table, 0.0), there.astype(np.float64)], axis=1)


def ratio_of_halves(sums: Floats) -> Floats:
    """Means from the sums of a `counted` table; NaN where nothing was counted."""
    total, count = np.split(sums, 2, axis=-1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


@lru_cache(maxsize=4)  # methods that are compared draw the same persons
def _drawn_counts(persons: int, *, seed: int, name: str, resamples: int) -> Floats:
    """How often each resample holds each person, (resamples, persons)."""
    drawn = numpy_generator(seed, "bootstrap", name).integers(0, persons, size=(resamples, persons))
    places = drawn + persons * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * persons)
    return counts.reshape(resamples, persons).astype(np.float64)


def _quantiles(drawn: Floats, level: float) -> Floats:
    """Return the ends of the intervals, (2, K), of resamples (R, K); NaN where too many are not defined."""
    ends = ((1 - level) / 2, (1 + level) / 2)
    found = np.full((2, drawn.shape[1]), np.nan)
    whole = np.isfinite(drawn).all(axis=0)
    found[:, whole] = np.quantile(drawn[:, whole], ends, axis=0)
    for k in np.flatnonzero(~whole):
        defined = drawn[np.isfinite(drawn[:, k]), k]
        if defined.size >= (1 - MOST_UNDEFINED) * len(drawn):
            found[:, k] = np.quantile(defined, ends)
    return found


def _with_interval(value: float, ends: tuple[float, float] | None) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, why="not defined for these subjects")
    if ends is None:
        return Estimate(value, why="one subject gives no interval")
    if not np.isfinite(ends[0]):
        return Estimate(value, why="too few subjects for an interval")
    return Estimate(value, float(ends[0]), float(ends[1]))


def _rows_by_person(people: Sequence[str] | NDArray[np.str_]) -> list[NDArray[np.intp]]:
    _, who = np.unique(np.asarray(people), return_inverse=True)
    return [np.flatnonzero(who == person) for person in range(int(who.max()) + 1)]


def _defined(
    statistic: Callable[[NDArray[np.intp]], float], rows: NDArray[np.intp]
) -> tuple[float | None, str]:
    try:
        value = float(statistic(rows))
    except ValueError as error:
        return None, str(error)
    return (value, "") if np.isfinite(value) else (None, "not defined for these subjects")
