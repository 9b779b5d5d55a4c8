# SPDX-License-Identifier: Apache-2.0
"""Hand-computed cases and the laws that a similarity must keep."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pasta_model.errors import VolumeError
from pasta_model.metrics.similarity import SUVR_RANGE, brain_mask, mae, mse, psnr, ssim

SHAPE = (9, 10, 8)
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
METRICS = {
    "mae": mae,
    "mse": mse,
    "psnr": lambda real, synthetic, *, mask: psnr(real, synthetic, mask=mask, data_range=SUVR_RANGE),
    "ssim": lambda real, synthetic, *, mask: ssim(real, synthetic, mask=mask, data_range=SUVR_RANGE),
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


def _random(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    real, synthetic = rng.uniform(0, SUVR_RANGE, size=(2, *SHAPE)).astype(np.float32)
    mask = rng.random(SHAPE) < 0.5
    mask[4, 5, 4] = True
    return real, synthetic, mask


def test_mae_of_a_known_difference() -> None:
    real, synthetic, mask = np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE, bool)
    mask[0, 0, :4] = True
    synthetic[0, 0, :4] = [0.1, -0.1, 0.3, 0.1]
    assert mae(real, synthetic, mask=mask) == pytest.approx(0.15)


def test_psnr_of_a_known_difference() -> None:
    real, mask = np.ones(SHAPE), np.ones(SHAPE, bool)
    # 10 log10(3^2 / 0.3^2) = 20 dB
    assert psnr(real, real + 0.3, mask=mask, data_range=3.0) == pytest.approx(20.0)


def test_mse_of_a_known_difference() -> None:
    real, mask = np.zeros(SHAPE), np.zeros(SHAPE, bool)
    mask[0, 0, :4] = True
    synthetic = np.full(SHAPE, 9.0)
    synthetic[0, 0, :4] = [0.1, -0.1, 0.3, 0.1]
    assert mse(real, synthetic, mask=mask) == pytest.approx(0.03)
    assert mse(real, synthetic) == pytest.approx((4 * 0.03 + (720 - 4) * 81) / 720)


def test_ssim_of_a_brain_of_one_voxel_by_hand() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[4, 5, 4] = True
    real, synthetic = np.full(SHAPE, 2.0), np.full(SHAPE, 1.0)
    gauss = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = (1 / gauss.sum()) ** 3  # the window's weight of its own centre, in 3D
    # The window sees 2 or 1 in its centre and 0 elsewhere: means w 2, w 1; E[x^2] = w x^2.
    c1, c2 = (0.01 * 3) ** 2, (0.03 * 3) ** 2
    luminance = (2 * 2 * w**2 + c1) / (5 * w**2 + c1)
    structure = (2 * 2 * w * (1 - w) + c2) / (5 * w * (1 - w) + c2)
    found = ssim(real, synthetic, mask=mask, data_range=3.0)
    assert found == pytest.approx(luminance * structure, abs=1e-6)


def test_ssim_does_not_depend_on_a_margin_around_the_brain() -> None:
    real, synthetic, mask = _random(3)
    wide = [np.pad(volume, 4) for volume in (real, synthetic, mask)]
    expected = ssim(real, synthetic, mask=mask, data_range=3.0)
    assert ssim(wide[0], wide[1], mask=wide[2], data_range=3.0) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_a_volume_is_identical_to_itself(seed: int) -> None:
    real, _, mask = _random(seed)
    assert mae(real, real, mask=mask) == 0.0
    assert math.isinf(psnr(real, real, mask=mask, data_range=3.0))
    assert ssim(real, real, mask=mask, data_range=3.0) == pytest.approx(1.0, abs=1e-6)


@every_metric
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_metrics_are_symmetric(metric, seed: int) -> None:
    real, synthetic, mask = _random(seed)
    assert metric(real, synthetic, mask=mask) == pytest.approx(metric(synthetic, real, mask=mask), abs=1e-6)


@every_metric
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_nothing_outside_the_mask_counts(metric, seed: int) -> None:
    real, synthetic, mask = _random(seed)
    elsewhere = np.where(mask, synthetic, 100.0 * np.random.default_rng(seed).random(SHAPE))
    assert metric(real, elsewhere, mask=mask) == pytest.approx(metric(real, synthetic, mask=mask), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_metrics_leave_their_input_as_it_was(seed: int) -> None:
    volumes = _random(seed)
    before = [volume.copy() for volume in volumes]
    for metric in METRICS.values():
        metric(volumes[0], volumes[1], mask=volumes[2])
    for volume, copy in zip(volumes, before, strict=True):
        np.testing.assert_array_equal(volume, copy)


@every_metric
@pytest.mark.parametrize(
    ("real", "synthetic", "mask", "message"),
    [
        (np.zeros(SHAPE), np.zeros((9, 10, 9)), np.ones(SHAPE, bool), "one 3D shape"),
        (np.zeros(SHAPE), np.zeros(SHAPE), np.ones((9, 10, 9), bool), "one 3D shape"),
        (np.zeros((9, 10)), np.zeros((9, 10)), np.ones((9, 10), bool), "one 3D shape"),
        (np.full(SHAPE, np.nan), np.zeros(SHAPE), np.ones(SHAPE, bool), "real PET has 720 voxels"),
        (np.zeros(SHAPE), np.full(SHAPE, np.inf), np.ones(SHAPE, bool), "synthetic PET has 720 voxels"),
        (np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE, bool), "not empty"),
        (np.zeros(SHAPE), np.zeros(SHAPE), np.ones(SHAPE), "must be boolean"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric, real, synthetic, mask, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        metric(real, synthetic, mask=mask)


@pytest.mark.parametrize("data_range", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_an_impossible_data_range_is_refused(metric, data_range: float) -> None:
    real, synthetic, mask = _random(0)
    with pytest.raises(VolumeError, match="positive SUVR"):
        metric(real, synthetic, mask=mask, data_range=data_range)


def test_without_a_mask_every_voxel_counts() -> None:
    real, synthetic, _ = _random(1)
    whole = np.ones(SHAPE, bool)
    assert mae(real, synthetic) == mae(real, synthetic, mask=whole)
    assert psnr(real, synthetic, data_range=3.0) == psnr(real, synthetic, mask=whole, data_range=3.0)


def test_ssim_without_a_mask_needs_room_for_its_window() -> None:
    real, synthetic, _ = _random(1)
    with pytest.raises(VolumeError, match="SSIM needs 11 voxels along each axis, found 8"):
        ssim(real, synthetic, data_range=3.0)
    wide = np.pad(real, 2, mode="edge")
    assert 0 < ssim(wide, 0.9 * wide, data_range=3.0) < 1


class TestBrainMask:
    @staticmethod
    def head() -> np.ndarray:
        axes = np.meshgrid(*[np.linspace(-1, 1, 20)] * 3, indexing="ij")
        return np.where(sum(axis**2 for axis in axes) < 0.6, 1.0, 0.0)

    def test_is_the_positive_voxels(self) -> None:
        mri = self.head()
        np.testing.assert_array_equal(brain_mask(mri), mri > 0)

    def test_fills_a_dark_ventricle(self) -> None:
        mri = self.head()
        mri[8:12, 8:12, 8:12] = 0
        np.testing.assert_array_equal(brain_mask(mri), self.head() > 0)

    def test_drops_what_is_not_attached_to_the_brain(self) -> None:
        mri = self.head()
        mri[0, 0, 0] = 5
        assert not brain_mask(mri)[0, 0, 0]

    def test_keeps_a_brain_that_touches_the_border(self) -> None:
        mri = self.head()[:, :, 6:]
        np.testing.assert_array_equal(brain_mask(mri), mri > 0)

    @pytest.mark.parametrize(
        ("mri", "message"),
        [
            (np.zeros(SHAPE), "no voxel above 0"),
            (np.ones(SHAPE), "strip the skull"),
            (np.full(SHAPE, np.nan), "finite"),
            (np.ones((4, 4)), "3D"),
        ],
    )
    def test_refuses_what_has_no_brain(self, mri: np.ndarray, message: str) -> None:
        with pytest.raises(VolumeError, match=message):
            brain_mask(mri)
