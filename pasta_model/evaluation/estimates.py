# SPDX-License-Identifier: Apache-2.0
"""A number with its interval, or the reason why there is none; intervals by bootstrap over persons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ConfigError
from pasta_model.seeding import numpy_generator

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
    values = np.asarray(drawn)
    defined = values[np.isfinite(values)]
    if defined.size < (1 - MOST_UNDEFINED) * resamples:
        return Estimate(value, why="too few subjects for an interval")
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return Estimate(value, float(low), float(high))


def mean_of(people: Sequence[str], values: Sequence[float], *, seed: int, name: str = "") -> Estimate:
    """Mean of the rows with its interval."""
    found = np.asarray(values, dtype=np.float64)
    return bootstrap(people, lambda rows: float(found[rows].mean()), seed=seed, name=name)


def _rows_by_person(people: Sequence[str]) -> list[NDArray[np.intp]]:
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
