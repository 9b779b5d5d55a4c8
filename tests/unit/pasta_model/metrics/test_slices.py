# SPDX-License-Identifier: Apache-2.0
"""Slice by slice, against scikit-image and torchmetrics on every slice."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.regression import mean_absolute_error

from pasta_model.errors import VolumeError
from pasta_model.metrics.scaling import own_range_scaled
from pasta_model.metrics.slices import slice_errors, slice_ssim

SHAPE = (24, 21, 9)
INSIDE = range(2, 7)


@pytest.fixture(params=[0, 1])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A PET, a noisy one, and a brain in five of nine slices."""
    rng = np.random.default_rng(request.param)
    real = rng.uniform(0, 2, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, bool)
    mask[8:14, 8:14, INSIDE.start : INSIDE.stop] = True
    return real, (real + rng.normal(scale=0.2, size=SHAPE)).astype(np.float32), mask


def _slices(*volumes: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    return [tuple(v[:, :, k].astype(np.float64) for v in volumes) for k in INSIDE]


def test_errors_are_scikit_images_of_each_slice(pair) -> None:
    real, synthetic, mask = pair
    found = slice_errors(real, synthetic, mask=mask, data_range=3.0)
    slices = _slices(real, synthetic)
    assert found["mse"] == pytest.approx(np.mean([mean_squared_error(*s) for s in slices]))
    wanted = [peak_signal_noise_ratio(*s, data_range=3.0) for s in slices]
    assert found["psnr"] == pytest.approx(np.mean(wanted))
    absolute = [float(mean_absolute_error(*map(torch.from_numpy, s))) for s in slices]
    assert found["mae"] == pytest.approx(np.mean(absolute))


def test_ssim_is_scikit_images_of_each_slice(pair) -> None:
    real, synthetic, mask = pair
    wanted = [
        structural_similarity(
            *s, data_range=3.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for s in _slices(real, synthetic)
    ]
    assert slice_ssim(real, synthetic, mask=mask, data_range=3.0) == pytest.approx(np.mean(wanted))


def test_ssim_is_torchmetrics_on_the_published_scale(pair) -> None:
    real, synthetic = (own_range_scaled(volume) for volume in pair[:2])
    batch = [torch.from_numpy(np.stack([s[i] for s in _slices(real, synthetic)]))[:, None] for i in (0, 1)]
    _, whole = structural_similarity_index_measure(
        batch[1], batch[0], data_range=1.0, sigma=1.5, return_full_image=True
    )
    wanted = whole[..., 5:-5, 5:-5].mean()  # torchmetrics counts mirrored borders too
    found = slice_ssim(real, synthetic, mask=pair[2], data_range=1.0)
    assert found == pytest.approx(float(wanted), abs=1e-9)


def test_slices_without_brain_do_not_count(pair) -> None:
    real, synthetic, mask = pair
    elsewhere = synthetic.copy()
    elsewhere[:, :, [0, 1, 7, 8]] = 9.0
    for metric in (slice_errors, slice_ssim):
        wanted = metric(real, synthetic, mask=mask, data_range=3.0)
        assert metric(real, elsewhere, mask=mask, data_range=3.0) == wanted


def test_the_background_of_a_slice_counts(pair) -> None:
    real, _, mask = pair
    synthetic = real + np.where(mask, 0.36, 0.0)
    share = mask[:, :, 3].mean()
    found = slice_errors(real, synthetic, mask=mask, data_range=3.0)
    assert found["mae"] == pytest.approx(0.36 * share, rel=1e-5)


def test_an_equal_slice_does_not_count_in_the_psnr(pair) -> None:
    real, synthetic, mask = pair
    synthetic[:, :, 4] = real[:, :, 4]
    found = slice_errors(real, synthetic, mask=mask, data_range=3.0)
    others = [s for k, s in zip(INSIDE, _slices(real, synthetic), strict=True) if k != 4]
    wanted = [peak_signal_noise_ratio(*s, data_range=3.0) for s in others]
    assert found["psnr"] == pytest.approx(np.mean(wanted))
    squares = [mean_squared_error(*s) for s in others]
    assert found["mse"] == pytest.approx(np.sum(squares) / 5), "it has an error of 0"


def test_the_psnr_of_slices_that_are_all_equal_is_infinite(pair) -> None:
    real, _, mask = pair
    assert math.isinf(slice_errors(real, real, mask=mask, data_range=3.0)["psnr"])


@pytest.mark.parametrize("metric", [slice_errors, slice_ssim])
def test_what_cannot_be_compared_is_refused(metric, pair) -> None:
    real, synthetic, mask = pair
    for spoilt, message in (
        ((real[1:], synthetic, mask), "one 3D shape"),
        ((real * np.nan, synthetic, mask), "NaN"),
        ((real, synthetic, mask & False), "not empty"),
    ):
        with pytest.raises(VolumeError, match=message):
            metric(spoilt[0], spoilt[1], mask=spoilt[2], data_range=3.0)
    with pytest.raises(VolumeError, match="data range"):
        metric(real, synthetic, mask=mask, data_range=0.0)


def test_ssim_of_narrow_slices_is_refused_and_their_errors_are_not() -> None:
    real, synthetic, mask = np.zeros((9, 20, 3)), np.ones((9, 20, 3)), np.ones((9, 20, 3), bool)
    with pytest.raises(VolumeError, match="found 9"):
        slice_ssim(real, synthetic, mask=mask, data_range=1.0)
    assert slice_errors(real, synthetic, mask=mask, data_range=1.0)["mae"] == 1.0
