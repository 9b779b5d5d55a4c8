# SPDX-License-Identifier: Apache-2.0
"""Our metrics against scikit-image, which computes in float64 and filters in another way."""

import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from pasta_model.metrics.similarity import mae, psnr, ssim

RANGE = 3.0
MARGIN = 6  # voxels; more than half a window, so that scikit-image's mirrored border is never seen


def _pets(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a smooth PET, a noisy copy of it and an ellipsoid as brain."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    mask = sum(axis**2 for axis in axes) < 0.9
    real = np.where(mask, 1.3 + 0.5 * np.sin(4 * axes[0]) * np.cos(3 * axes[1]), 0).astype(np.float32)
    noise = rng.normal(scale=0.1, size=shape).astype(np.float32)
    return real, np.where(mask, real + noise, 0).astype(np.float32), mask


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(21, 24, 19), (48, 56, 48)])
def test_ssim_is_scikit_images_map_averaged_in_the_brain(seed: int, shape: tuple[int, int, int]) -> None:
    real, synthetic, mask = _pets(seed, shape)
    padded = [np.pad(volume.astype(np.float64), MARGIN) for volume in (real, synthetic)]
    _, similarity = structural_similarity(
        *padded,
        data_range=RANGE,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = similarity[np.pad(mask, MARGIN)].mean()
    assert ssim(real, synthetic, mask=mask, data_range=RANGE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_ssim_over_the_volume_is_scikit_images(seed: int) -> None:
    real, synthetic, _ = _pets(seed, (21, 24, 19))
    expected = structural_similarity(
        real.astype(np.float64), synthetic.astype(np.float64), data_range=RANGE,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(real, synthetic, data_range=RANGE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_psnr_is_scikit_images_on_the_voxels_of_the_brain(seed: int) -> None:
    real, synthetic, mask = _pets(seed, (21, 24, 19))
    inside = real[mask].astype(np.float64), synthetic[mask].astype(np.float64)
    expected = peak_signal_noise_ratio(*inside, data_range=RANGE)
    assert psnr(real, synthetic, mask=mask, data_range=RANGE) == pytest.approx(expected, rel=1e-12)


def test_mae_bounds_scikit_images_root_mean_square_error() -> None:
    real, synthetic, mask = _pets(0, (21, 24, 19))
    rmse = np.sqrt(mean_squared_error(real[mask], synthetic[mask]))
    # For Gaussian noise MAE / RMSE = sqrt(2 / pi); 2 % is four standard errors of 4,500 voxels.
    assert mae(real, synthetic, mask=mask) / rmse == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)
