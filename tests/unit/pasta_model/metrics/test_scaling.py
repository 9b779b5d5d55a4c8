# SPDX-License-Identifier: Apache-2.0
"""The published scale, and what it hides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import minmax_scale

from pasta_model.errors import VolumeError
from pasta_model.metrics.scaling import own_range_scaled
from pasta_model.metrics.similarity import mae

PET = np.random.default_rng(0).uniform(0.1, 2.4, (6, 7, 8)).astype(np.float32)


def test_is_scikit_learns_min_max_scaling() -> None:
    wanted = minmax_scale(PET.astype(np.float64).ravel()).reshape(PET.shape)
    np.testing.assert_allclose(own_range_scaled(PET), wanted, atol=1e-12)


@given(gain=st.floats(0.1, 5.0), shift=st.floats(-1.0, 1.0))
def test_it_does_not_see_the_unit(gain: float, shift: float) -> None:
    """The fault that the docstring warns of: a PET of half the metabolism has no error."""
    wrong = gain * PET.astype(np.float64) + shift
    assert mae(own_range_scaled(PET), own_range_scaled(wrong)) == pytest.approx(0.0, abs=1e-6)


def test_one_hot_voxel_shifts_every_other() -> None:
    hot = PET.copy()
    hot[0, 0, 0] = 24.0
    assert own_range_scaled(hot)[1:].max() < 0.11


def test_a_constant_volume_has_no_range() -> None:
    with pytest.raises(VolumeError, match=r"the synthetic PET is constant \(1.2\)"):
        own_range_scaled(np.full((3, 3, 3), 1.2), name="synthetic PET")
