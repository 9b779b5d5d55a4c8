# SPDX-License-Identifier: Apache-2.0
"""Scaling: invertible, SUVR the same for everybody, MRI free of its units."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pasta_model.data.scaling import PET_SCALE, Scale, mri_scale
from pasta_model.errors import VolumeError


@given(arrays(np.float32, 20, elements=st.floats(0, 1000, width=32)), st.floats(1, 5000))
def test_there_and_back(intensity: np.ndarray, full: float) -> None:
    scale = Scale(full)
    back = scale.to_file(scale.to_network(intensity))
    np.testing.assert_allclose(back, intensity, rtol=1e-4, atol=full * 1e-6)
    assert back.dtype == np.float32


def test_suvr_means_the_same_whatever_else_is_in_the_volume() -> None:
    quiet, loud = np.array([0.0, 1.2, 1.5], np.float32), np.array([0.0, 1.2, 2.9], np.float32)
    assert PET_SCALE.to_network(quiet)[1] == PET_SCALE.to_network(loud)[1]
    np.testing.assert_allclose(PET_SCALE.to_network(np.array([0, 1.5, 3], np.float32)), [-1, 0, 1], atol=1e-7)
    assert PET_SCALE.to_file(PET_SCALE.to_network(np.array([6.0], np.float32)))[0] == pytest.approx(
        6.0
    )  # no clip


@given(st.floats(1e-2, 1e4))
def test_mri_does_not_depend_on_the_gain(gain: float) -> None:
    tissue = np.random.default_rng(0).uniform(0, 1, 500).astype(np.float32) * (np.arange(500) > 100)
    louder = (tissue * np.float32(gain)).astype(np.float32)
    np.testing.assert_allclose(
        mri_scale(louder).to_network(louder), mri_scale(tissue).to_network(tissue), atol=1e-5
    )


def test_background_and_robust_maximum_by_hand() -> None:
    # 101 brain voxels 1..101: the 0.99 quantile is exactly 100; the background does not count.
    mri = np.concatenate([np.zeros(5000), np.arange(1, 102)]).astype(np.float32)
    scaled = mri_scale(mri).to_network(mri)
    assert scaled[0] == -1
    assert scaled[-2] == pytest.approx(0.8)


def test_empty_mri() -> None:
    with pytest.raises(VolumeError, match="no voxel above zero"):
        mri_scale(np.zeros((2, 2, 2), np.float32))
