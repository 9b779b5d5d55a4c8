# SPDX-License-Identifier: Apache-2.0
"""What a site shares of its MRIs' features: a count, sums, and sums of products; never a scan's features.

Sums of several sites add up to what one table of all persons would give. k is the number of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ExchangeError

ROUNDING = 1e-6  # relative; of sums that came in float32


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """Sums over persons, one MRI each.

    Attributes
    ----------
    count
        Persons.
    total
        (k,) sum of each feature.
    outer
        (k, k) sum of the products of each two features; symmetric.
    """

    count: int
    total: NDArray[np.float64]
    outer: NDArray[np.float64]

    def __post_init__(self) -> None:
        k = self.total.size
        if self.total.shape != (k,) or self.outer.shape != (k, k) or self.count < 0:
            raise ExchangeError(
                f"sums of features: found a count of {self.count}, sums {self.total.shape} and products"
                f" {self.outer.shape}; wanted a count of at least 0, k sums and k x k products"
            )
        if not np.isfinite(self.total).all() or not np.isfinite(self.outer).all():
            raise ExchangeError("sums of features: found NaN or infinity, wanted finite numbers")
        if not np.allclose(self.outer, self.outer.T, rtol=ROUNDING, atol=ROUNDING):
            raise ExchangeError("sums of features: the products are not symmetric; wanted sums of x x^T")

    @classmethod
    def of(cls, features: NDArray[np.float64]) -> Self:
        """Sum a table (persons, k): one row a person, every number finite.

        Raises
        ------
        ExchangeError
            When the table has no columns of numbers, or one is NaN or infinite.
        """
        if features.ndim != 2:
            raise ExchangeError(f"found features of shape {features.shape}, wanted (persons, k)")
        rows = features.astype(np.float64)
        return cls(len(rows), rows.sum(axis=0), rows.T @ rows)

    @classmethod
    def none(cls, k: int) -> Self:
        """Return the sums of nobody."""
        return cls(0, np.zeros(k), np.zeros((k, k)))

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Add the sums of several sites.

        Raises
        ------
        ExchangeError
            When there is none, or they are of different features.
        """
        if not parts:
            raise ExchangeError("no site sent sums of features; wanted at least one")
        first, *others = parts
        for part in others:
            first = first + part
        return first

    def __add__(self, other: Self) -> Self:
        if self.total.shape != other.total.shape:
            raise ExchangeError(
                f"sums of {self.total.size} and of {other.total.size} features cannot be added;"
                " use one version of the software"
            )
        return type(self)(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def mean(self) -> NDArray[np.float64]:
        """Mean of each feature, (k,).

        Raises
        ------
        ExchangeError
            When there is no person.
        """
        if not self.count:
            raise ExchangeError("sums of features of nobody have no mean; wanted at least one person")
        return self.total / self.count

    def covariance(self) -> NDArray[np.float64]:
        """Sample covariance (ddof 1), (k, k).

        Raises
        ------
        ExchangeError
            When there are fewer than two persons, or the sums are of no possible table.
        """
        if self.count < 2:
            raise ExchangeError(f"found {self.count} persons, wanted at least 2 for a covariance")
        mean = self.mean()
        found = (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)
        scale = np.diag(self.outer) / self.count
        if (np.diag(found) < -ROUNDING * np.maximum(scale, 1.0)).any():
            raise ExchangeError("sums of features: a variance below 0; these are sums of no table")
        found = (found + found.T) / 2
        np.fill_diagonal(found, np.maximum(np.diag(found), 0.0))  # of rounding
        return np.asarray(found)
