# SPDX-License-Identifier: Apache-2.0
"""Coverage, error against spread: draws from known normals, scipy, and sums by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pasta_model.data.grid import template
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.metrics import uncertainty
from pasta_model.metrics.regions import composite, metaroi_suvr
from pasta_model.metrics.uncertainty import LEVELS, Bin, Prediction

SHAPE = (24, 24, 24)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[2:-2, 2:-2, 2:-2] = True
VOXELS = int(MASK.sum())


def drawn(samples: int, *, seed: int = 0, truth: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A real PET, and samples, from one normal a voxel; `truth` widens the real one's."""
    rng = np.random.default_rng(seed)
    centre, sd = rng.uniform(0.5, 2.0, SHAPE), rng.uniform(0.05, 0.4, SHAPE)
    stack = centre + sd * rng.standard_normal((samples, *SHAPE))
    return centre + truth * sd * rng.standard_normal(SHAPE), stack


@pytest.mark.parametrize("samples", [2, 3, 4, 10])
def test_a_new_draw_lies_in_the_interval_as_often_as_it_says(samples: int) -> None:
    real, stack = drawn(samples)
    known = Prediction.of(stack)
    for level in LEVELS:
        found = uncertainty.coverage(real, known, mask=MASK, level=level)
        assert found == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / VOXELS))


def test_a_gaussian_interval_of_few_samples_is_too_narrow_and_of_a_known_spread_right() -> None:
    real, stack = drawn(4)
    known = Prediction.of(stack)
    naive = Prediction(known.mean, known.spread, None)
    assert uncertainty.coverage(real, naive, mask=MASK, level=0.95) < 0.9
    flat = Prediction(np.zeros(SHAPE), np.full(SHAPE, 0.3), None)
    noise = 0.3 * np.random.default_rng(1).standard_normal(SHAPE)
    assert uncertainty.coverage(noise, flat, mask=MASK, level=0.8) == pytest.approx(0.8, abs=0.02)


@given(st.floats(0.05, 0.99), st.integers(2, 40))
def test_factor_is_students_prediction_interval(level: float, n: int) -> None:
    low, high = stats.t.interval(level, n - 1, loc=0, scale=np.sqrt(1 + 1 / n))
    assert uncertainty.interval_factor(level, samples=n) == pytest.approx(high)
    assert -low == pytest.approx(high)
    assert uncertainty.interval_factor(level, samples=None) < uncertainty.interval_factor(level, samples=n)


def test_width_and_means_by_hand() -> None:
    mask = np.zeros((3, 1, 1), dtype=bool)
    mask[:2] = True
    real = np.array([1.0, 2.0, 9.0]).reshape(3, 1, 1)
    known = Prediction(real - np.array([0.1, -0.3, 5.0]).reshape(3, 1, 1), np.full((3, 1, 1), 0.2), None)
    assert uncertainty.width(known, mask=mask, level=0.95) == pytest.approx(2 * 1.959964 * 0.2)
    assert uncertainty.error_and_spread(real, known, mask=mask) == pytest.approx((0.2, 0.2))
    assert uncertainty.coverage(real, known, mask=mask, level=0.8) == 0.5  # 0.256 to each side


def test_error_and_spread_by_bin_by_hand() -> None:
    mask = np.ones((4, 1, 1), dtype=bool)
    spread = np.array([1.0, 1.0, 2.0, 2.0]).reshape(4, 1, 1)
    error = np.array([1.0, -1.0, 3.0, 3.0]).reshape(4, 1, 1)
    known = Prediction(np.zeros((4, 1, 1)), spread, None)
    curve = uncertainty.reliability(error, known, mask=mask, bins=2)
    assert curve == (Bin(2, 1.0, 1.0), Bin(2, 2.0, 3.0))
    assert curve[1].ratio == 1.5
    assert uncertainty.calibration_error(curve) == pytest.approx((0 + 0.5) / 2)
    # Of two samples a new draw spreads sqrt(1.5) times as far.
    (one,) = uncertainty.reliability(error, Prediction(known.mean, spread, 2), mask=mask, bins=1)
    assert one.spread == pytest.approx(np.sqrt(1.5 * (1 + 1 + 4 + 4) / 4))
    assert one.error == pytest.approx(np.sqrt(20 / 4))


def test_calibrated_draws_lie_on_the_diagonal_and_too_sure_ones_above() -> None:
    mean = np.zeros(SHAPE)
    rng = np.random.default_rng(2)
    spread = rng.uniform(0.05, 0.4, SHAPE)
    noise = spread * rng.standard_normal(SHAPE)
    known = Prediction(mean, spread, None)
    fair = uncertainty.reliability(noise, known, mask=MASK)
    sure = uncertainty.reliability(2 * noise, known, mask=MASK)
    assert [one.ratio for one in fair] == pytest.approx([1.0] * 10, abs=0.1)
    assert [one.ratio for one in sure] == pytest.approx([2.0] * 10, abs=0.2)
    assert uncertainty.calibration_error(fair) < 0.05
    assert uncertainty.calibration_error(sure) == pytest.approx(1.0, abs=0.05)
    assert [one.spread for one in fair] == sorted(one.spread for one in fair)
    assert uncertainty.rank_correlation(noise, known, mask=MASK) > 0.3
    blind = Prediction(mean, rng.permuted(spread), None)
    assert abs(uncertainty.rank_correlation(noise, blind, mask=MASK)) < 0.05


def test_error_ratios_count_coverage_after_any_factor() -> None:
    real, stack = drawn(4, truth=2.0)
    known = Prediction.of(stack)
    ratios = uncertainty.error_ratios(real, known, mask=MASK)
    for factor in (0.5, 1.0, 2.0):
        wider = Prediction(known.mean, factor * known.spread, 4)
        wanted = uncertainty.coverage(real, wider, mask=MASK, level=0.9)
        half = factor * uncertainty.interval_factor(0.9, samples=4)
        assert (ratios <= half).mean() == pytest.approx(wanted, abs=1e-6)


def test_voxels_without_spread_are_never_covered_but_where_there_is_no_error() -> None:
    mask = np.ones((3, 1, 1), dtype=bool)
    known = Prediction(np.zeros((3, 1, 1)), np.array([0.0, 0.0, 1.0]).reshape(3, 1, 1), None)
    real = np.array([0.0, 0.5, 0.5]).reshape(3, 1, 1)
    assert uncertainty.error_ratios(real, known, mask=mask).tolist() == [0.0, np.inf, 0.5]
    assert uncertainty.coverage(real, known, mask=mask, level=0.9) == pytest.approx(2 / 3)
    assert len(uncertainty.reliability(real, known, mask=mask, bins=3)) == 1, "no ratio over a spread of 0"


def test_regions_of_each_sample() -> None:
    grid = template(3.0).head
    rng = np.random.default_rng(4)
    stack = rng.uniform(0.5, 2.0, (3, *grid.shape))
    found = uncertainty.region_samples(stack, grid=grid)
    for number, sample in enumerate(stack):
        means = metaroi_suvr(sample, grid=grid)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(
            {**means, "metaroi": composite(means)}
        )


def test_regional_intervals_hold_a_new_draw_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    held = [uncertainty.covers(v[0], v[1:], level=0.8)[0] for v in rng.normal(1.2, 0.1, (3000, 6))]
    assert np.mean(held) == pytest.approx(0.8, abs=0.03)
    with pytest.raises(VolumeError, match="all samples are the same"):
        uncertainty.covers(1.0, np.ones(4), level=0.8)
    with pytest.raises(VolumeError, match="one sample"):
        uncertainty.covers(1.0, np.ones(1), level=0.8)


def test_bad_input() -> None:
    real, stack = drawn(3)
    known = Prediction.of(stack)
    with pytest.raises(VolumeError, match="at least two samples"):
        Prediction.of(stack[:1])
    with pytest.raises(VolumeError, match="one sample has no spread"):
        uncertainty.coverage(real, Prediction(known.mean, known.spread, 1), mask=MASK, level=0.9)
    with pytest.raises(VolumeError, match="spread is 0"):
        uncertainty.width(Prediction(known.mean, np.zeros(SHAPE), 3), mask=MASK, level=0.9)
    with pytest.raises(VolumeError, match="below 0"):
        uncertainty.width(Prediction(known.mean, -known.spread, 3), mask=MASK, level=0.9)
    with pytest.raises(VolumeError, match="one 3D shape"):
        uncertainty.coverage(real[1:], known, mask=MASK, level=0.9)
    flat = Prediction(known.mean, np.ones(SHAPE), 3)
    with pytest.raises(VolumeError, match="no order"):
        uncertainty.rank_correlation(real, flat, mask=MASK)
    with pytest.raises(ConfigError, match="level"):
        uncertainty.interval_factor(1.0, samples=4)
    with pytest.raises(VolumeError, match="no bin"):
        uncertainty.calibration_error(())
    with pytest.raises(VolumeError, match="bins"):
        uncertainty.reliability(real, known, mask=MASK, bins=VOXELS + 1)
    with pytest.raises(VolumeError, match="wanted \\(n, x, y, z\\)"):
        uncertainty.region_samples(real, grid=template(3.0).head)
