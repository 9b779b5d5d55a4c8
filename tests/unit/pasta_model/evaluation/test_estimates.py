# SPDX-License-Identifier: Apache-2.0
"""Intervals against scipy's bootstrap and a count by hand; the fast way against the slow one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pasta_model.errors import ConfigError
from pasta_model.evaluation.estimates import Estimate, bootstrap, bootstrap_sums, mean_of, means_of

RNG = np.random.default_rng(3)
PEOPLE = [f"p{i}" for i in range(40)]
VALUES = RNG.normal(1.0, 0.3, size=40)


def _slow(people: list[str], column: np.ndarray, **changes: object) -> Estimate:
    def mean(rows: np.ndarray) -> float:
        there = column[rows][np.isfinite(column[rows])]
        return float(there.mean()) if there.size else float("nan")

    return bootstrap(people, mean, seed=1, name="n", **changes)


def test_interval_is_scipys_but_for_other_draws() -> None:
    wanted = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=9999, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    found = mean_of(PEOPLE, VALUES.tolist(), seed=0)
    width = wanted.high - wanted.low
    assert found.value == pytest.approx(VALUES.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.07 * width)


def test_visits_of_one_person_are_not_independent() -> None:
    copies = np.repeat(VALUES, 4)
    alone = mean_of(PEOPLE, VALUES.tolist(), seed=0)
    visits = mean_of([p for p in PEOPLE for _ in range(4)], copies.tolist(), seed=0)
    assert (visits.low, visits.high) == pytest.approx((alone.low, alone.high))
    naive = mean_of([f"{p}{k}" for p in PEOPLE for k in range(4)], copies.tolist(), seed=0)
    assert naive.high - naive.low < 0.6 * (alone.high - alone.low)


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(-5, 5), st.booleans()), min_size=1, max_size=12)
)
def test_many_means_at_once_are_each_the_slow_bootstrap(rows: list[tuple[str, float, bool]]) -> None:
    people = [who for who, _, _ in rows]
    whole = np.array([value for _, value, _ in rows])
    holes = np.where([there for _, _, there in rows], whole, np.nan)
    found = means_of(people, np.stack([whole, holes], axis=1), seed=1, name="n")
    for one, column in zip(found, (whole, holes), strict=True):
        slow = _slow(people, column)
        for end in ("value", "low", "high"):
            assert getattr(one, end) == pytest.approx(getattr(slow, end), abs=1e-9), end
        assert one.why == slow.why


def test_people_are_drawn_within_their_stratum() -> None:
    """Two sites whose values never vary within: the mean over both never moves, whoever is drawn."""
    people, strata = [f"p{i}" for i in range(10)], ["A"] * 8 + ["B"] * 2
    table = np.array([[1.0 if s == "A" else 5.0] for s in strata])
    apart = bootstrap_sums(people, table, lambda sums: sums / 10, seed=0, strata=strata)[0]
    mixed = bootstrap_sums(people, table, lambda sums: sums / 10, seed=0)[0]
    assert (apart.low, apart.value, apart.high) == pytest.approx((1.8,) * 3)
    assert mixed.high - mixed.low > 1


def test_what_has_no_interval_says_why() -> None:
    one = means_of(["a", "a"], np.array([[1.0], [3.0]]), seed=0)[0]
    assert one == Estimate(2.0, why="one subject gives no interval")
    none = means_of([], np.zeros((0, 2)), seed=0)
    assert none == [Estimate(None, why="no subject")] * 2
    rare = means_of(list("abcd"), np.array([[1.0], *[[np.nan]] * 3]), seed=0)[0]
    assert rare == Estimate(1.0, why="too few subjects for an interval")
    never = means_of(["a", "b"], np.full((2, 1), np.nan), seed=0)[0]
    assert never == Estimate(None, why="not defined for these subjects")
    assert bootstrap([], lambda _: 0.0, seed=0) == Estimate(None, why="no subject")


def test_a_statistic_that_refuses_gives_its_reason() -> None:
    def refuse(rows: np.ndarray) -> float:
        raise ValueError("one class only")

    assert bootstrap(["a", "b"], refuse, seed=0) == Estimate(None, why="one class only")


@pytest.mark.parametrize("changes", [{"level": 1.0}, {"resamples": 0}])
def test_impossible_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="wanted a level"):
        _slow(["a", "b"], np.zeros(2), **changes)


def test_same_seed_same_interval_other_seed_another() -> None:
    first, again, other = (mean_of(PEOPLE, VALUES.tolist(), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.low != other.low
    assert first.value == other.value


def test_texts_of_a_table() -> None:
    assert Estimate(0.1234, 0.1, 0.2).text(2) == "0.12 (0.10 to 0.20)"
    assert Estimate(0.1234, 0.1, 0.2).text(2, interval=False) == Estimate(0.1234).text(2) == "0.12"
    assert Estimate(None, why="no").text() == "not available"
