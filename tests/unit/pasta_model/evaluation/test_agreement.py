# SPDX-License-Identifier: Apache-2.0
"""Bland and Altman by hand, correlation by scipy, and what has no agreement."""

import numpy as np
import pytest
from scipy import stats

from pasta_model.evaluation.agreement import agreement
from pasta_model.evaluation.columns import REGIONS
from pasta_model.evaluation.estimates import Estimate, bootstrap
from tests.support.scores import a_score


def _scores(real: list[float], made: list[float], region: str = "angular_left", **changes: object) -> list:
    return [
        a_score(f"s{n}", **{f"real_{region}": a, f"synthetic_{region}": b}, **changes)
        for n, (a, b) in enumerate(zip(real, made, strict=True))
    ]


def _of(rows, region: str = "angular_left"):
    return next(row for row in rows if row.region == region)


def test_by_hand() -> None:
    # Differences 0.1, -0.1, 0.3, 0.1: mean 0.1, squares about it 0, 0.04, 0.04, 0: SD sqrt(0.08 / 3).
    row = _of(agreement(_scores([1.0, 1.2, 1.1, 1.3], [1.1, 1.1, 1.4, 1.4])))
    spread = np.sqrt(0.08 / 3)
    assert row.subjects == 4
    assert row.bias.value == pytest.approx(0.1)
    assert row.mae.value == pytest.approx(0.15)
    assert row.lower_limit.value == pytest.approx(0.1 - 1.96 * spread)
    assert row.upper_limit.value == pytest.approx(0.1 + 1.96 * spread)
    assert row.correlation.value == pytest.approx(
        stats.pearsonr([1.0, 1.2, 1.1, 1.3], [1.1, 1.1, 1.4, 1.4])[0]
    )


def test_intervals_are_those_of_the_slow_bootstrap() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(1.2, 0.1, 25)
    made = real + rng.normal(-0.05, 0.04, 25)
    people = [f"p{n // 2}" for n in range(25)]
    scores = [
        a_score(f"s{n}", person=who, real_angular_left=a, synthetic_angular_left=b)
        for n, (who, a, b) in enumerate(zip(people, real, made, strict=True))
    ]
    row = _of(agreement(scores, seed=4))
    error = made - real
    slow = {
        "bias": lambda rows: error[rows].mean(),
        "mae": lambda rows: np.abs(error[rows]).mean(),
        "correlation": lambda rows: np.corrcoef(real[rows], made[rows])[0, 1],
        "lower_limit": lambda rows: error[rows].mean() - 1.96 * error[rows].std(ddof=1),
        "upper_limit": lambda rows: error[rows].mean() + 1.96 * error[rows].std(ddof=1),
    }
    for name, statistic in slow.items():
        wanted, found = bootstrap(people, statistic, seed=4, name="agreement"), getattr(row, name)
        for end in ("value", "low", "high"):
            assert getattr(found, end) == pytest.approx(getattr(wanted, end), abs=1e-8), (name, end)
    assert row.subjects == 13


def test_a_row_a_method_and_region_and_one_of_their_mean() -> None:
    scores = _scores([1.0, 1.1], [1.0, 1.2]) + _scores([1.0, 1.1], [0.9, 1.0], method="alone")
    rows = agreement(scores)
    assert [(row.method, row.region) for row in rows] == [
        (method, region) for method in ("federated", "alone") for region in (*REGIONS, "metaroi")
    ]
    assert _of(rows, "metaroi").bias.value == pytest.approx(0.1)
    assert _of(rows, "temporal_left").bias == Estimate(None, why="not measured")


def test_constant_pets_have_no_correlation() -> None:
    row = _of(agreement(_scores([1.2, 1.2, 1.2], [1.0, 1.1, 1.2])))
    assert row.correlation.value is None
    assert row.correlation.why.startswith("no spread")
    assert row.bias.value == pytest.approx(-0.1)


def test_one_session_has_a_bias_and_no_limits() -> None:
    row = _of(agreement(_scores([1.0], [1.3])))
    assert row.bias == Estimate(pytest.approx(0.3), why="one subject gives no interval")
    for name in ("correlation", "lower_limit", "upper_limit"):
        assert getattr(row, name) == Estimate(None, why="one session has no spread")


def test_a_perfect_method_has_limits_of_zero() -> None:
    row = _of(agreement(_scores([1.0, 1.1, 1.3], [1.0, 1.1, 1.3])))
    assert (row.lower_limit.value, row.bias.value, row.upper_limit.value) == (0.0, 0.0, 0.0)
    assert row.correlation.value == pytest.approx(1.0)


def test_few_persons_are_not_shown() -> None:
    scores = _scores([1.0, 1.1, 1.2], [1.0, 1.2, 1.2], person="the same")
    row = _of(agreement(scores, smallest=2))
    assert row.bias == row.upper_limit == Estimate(None, why="fewer than 2 subjects, too few to tell")


def test_a_region_that_was_not_measurable_says_why() -> None:
    names = ("real_angular_left", "synthetic_angular_left")
    lost = a_score("s", **dict.fromkeys(names), why=dict.fromkeys(names, "no voxel there"))
    row = _of(agreement([lost]))
    assert row.mae == Estimate(None, why="no voxel there")
    assert row.subjects == 0
    assert _of(agreement([lost, *_scores([1.0], [1.3])])).subjects == 1
