# SPDX-License-Identifier: Apache-2.0
"""Sums of features: any partition of the persons adds up to one table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import ExchangeError
from pasta_model.familiarity.sums import FeatureSums

TABLE = np.random.default_rng(0).normal([5.0, -3.0, 0.1], [1.0, 0.2, 0.01], (40, 3))


@given(st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_any_partition_gives_numpys_mean_and_covariance(sites: list[int]) -> None:
    parts = [FeatureSums.of(TABLE[np.array(sites) == site]) for site in range(5)]
    pooled = FeatureSums.pool(parts)
    assert pooled.count == 40
    np.testing.assert_allclose(pooled.mean(), TABLE.mean(axis=0))
    np.testing.assert_allclose(pooled.covariance(), np.cov(TABLE.T), atol=1e-10)


def test_nobody_changes_nothing() -> None:
    whole = FeatureSums.of(TABLE)
    same = whole + FeatureSums.none(3)
    np.testing.assert_array_equal(same.outer, whole.outer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureSums(-1, np.zeros(2), np.zeros((2, 2))), "count of -1"),
        (lambda: FeatureSums(1, np.zeros(2), np.zeros((3, 3))), "wanted a count"),
        (lambda: FeatureSums(1, np.full(2, np.nan), np.zeros((2, 2))), "NaN or infinity"),
        (lambda: FeatureSums(1, np.zeros(2), np.array([[1.0, 2.0], [0.0, 1.0]])), "not symmetric"),
        (lambda: FeatureSums.of(np.zeros(3)), "wanted .persons, k."),
        (lambda: FeatureSums.of(np.full((4, 2), np.inf)), "NaN or infinity"),
        (lambda: FeatureSums.pool([]), "no site"),
        (lambda: FeatureSums.none(2) + FeatureSums.none(3), "2 and of 3 features"),
        (lambda: FeatureSums.none(2).mean(), "nobody"),
        (lambda: FeatureSums.of(TABLE[:1]).covariance(), "at least 2"),
        (lambda: FeatureSums(9, np.full(2, 90.0), np.eye(2)).covariance(), "variance below 0"),
    ],
)
def test_impossible_sums_are_refused(make, message: str) -> None:
    with pytest.raises(ExchangeError, match=message):
        make()
