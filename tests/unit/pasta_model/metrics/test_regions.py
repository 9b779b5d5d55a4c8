# SPDX-License-Identifier: Apache-2.0
"""MetaROI means on volumes whose regions are painted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pasta_model.data.grid import Grid, template
from pasta_model.data.metaroi import METAROI_REGIONS, region_masks
from pasta_model.errors import VolumeError
from pasta_model.metrics.regions import composite, metaroi_bias, metaroi_error, metaroi_suvr

GRID = template(3.0).head
VALUES = st.lists(st.floats(0.1, 3.0), min_size=5, max_size=5)


def _painted(values: list[float]) -> np.ndarray:
    suvr = np.full(GRID.shape, 9.0, np.float32)
    for mask, value in zip(region_masks(GRID).values(), values, strict=True):
        suvr[mask] = value
    return suvr


def test_each_region_has_its_own_mean() -> None:
    values = [1.0, 1.1, 1.2, 1.3, 1.4]
    found = metaroi_suvr(_painted(values), grid=GRID)
    assert list(found) == [region.name for region in METAROI_REGIONS]
    assert list(found.values()) == pytest.approx(values)


def test_composite_counts_every_region_the_same() -> None:
    found = metaroi_suvr(_painted([1.0, 1.1, 1.2, 1.3, 1.4]), grid=GRID)
    assert composite(found) == pytest.approx(1.2)


def test_errors_of_opposite_sign_cancel_in_the_composite_and_not_in_the_bias() -> None:
    real, synthetic = _painted([1.0] * 5), _painted([1.2, 0.8, 1.0, 1.0, 1.0])
    assert metaroi_error(real, synthetic, grid=GRID) == pytest.approx(0.0, abs=1e-6)
    assert list(metaroi_bias(real, synthetic, grid=GRID).values()) == pytest.approx([0.2, -0.2, 0, 0, 0])


@settings(max_examples=20, deadline=None)
@given(first=VALUES, second=VALUES)
def test_error_is_the_absolute_mean_bias(first: list[float], second: list[float]) -> None:
    real, synthetic = _painted(first), _painted(second)
    bias = composite(metaroi_bias(real, synthetic, grid=GRID))
    assert metaroi_error(real, synthetic, grid=GRID) == pytest.approx(abs(bias), abs=1e-6)
    assert bias == pytest.approx(np.mean(second) - np.mean(first), abs=1e-5)


def test_a_volume_off_its_grid_is_refused() -> None:
    with pytest.raises(VolumeError, match="wanted the same"):
        metaroi_suvr(np.ones((4, 4, 4)), grid=GRID)


def test_a_grid_without_the_regions_is_refused() -> None:
    elsewhere = Grid((4, 4, 4), (500.0, 500.0, 500.0), 3.0)
    with pytest.raises(VolumeError, match="no voxel in angular_left"):
        metaroi_suvr(np.ones(elsewhere.shape), grid=elsewhere)


def test_nan_in_a_region_is_named() -> None:
    with pytest.raises(VolumeError, match="posterior_cingulate"):
        metaroi_suvr(_painted([1.0, 1.0, np.nan, 1.0, 1.0]), grid=GRID)
