# SPDX-License-Identifier: Apache-2.0
"""Similarity under a window line by line, against MONAI's and scikit-image's full windows."""

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from skimage.metrics import structural_similarity

from pasta_model.errors import VolumeError
from pasta_model.metrics.windows import WIDTH, inner, ssim_map


def _pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.random(shape)
    return first, np.clip(first + rng.normal(scale=0.2, size=shape), 0, 1)


@pytest.mark.parametrize("shape", [(16, 19, 17), (11, 11, 11)])
def test_where_the_window_fits_it_is_scikit_images(shape: tuple[int, int, int]) -> None:
    first, second = _pair(shape)
    wanted, whole = structural_similarity(
        first, second, data_range=1.0, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    fits = inner(shape, axes=(0, 1, 2))
    found = ssim_map(first, second, data_range=1.0, axes=(0, 1, 2))[fits]
    np.testing.assert_allclose(found, whole[fits], atol=1e-10)
    assert found.mean() == pytest.approx(wanted, abs=1e-10)


def test_in_3d_it_is_monais() -> None:
    first, second = _pair((14, 15, 16))
    tensors = [torch.from_numpy(v)[None, None] for v in (first, second)]
    wanted, _ = compute_ssim_and_cs(
        *tensors, spatial_dims=3, kernel_size=(WIDTH,) * 3, kernel_sigma=(1.5,) * 3, data_range=1.0
    )
    fits = inner(first.shape, axes=(0, 1, 2))
    found = ssim_map(first, second, data_range=1.0, axes=(0, 1, 2))[fits]
    np.testing.assert_allclose(found, wanted[0, 0].numpy(), atol=2e-5)  # float32


def test_slices_of_a_stack_do_not_see_each_other() -> None:
    first, second = _pair((13, 14, 3))
    stack = ssim_map(first, second, data_range=1.0, axes=(0, 1))
    for k in range(3):
        alone = ssim_map(first[:, :, k], second[:, :, k], data_range=1.0, axes=(0, 1))
        np.testing.assert_array_equal(stack[:, :, k], alone)


def test_a_narrow_array_is_refused() -> None:
    with pytest.raises(VolumeError, match="SSIM needs 11 voxels along each axis, found 10"):
        inner((12, 10, 4), axes=(0, 1))
    assert inner((12, 11, 4), axes=(0, 1)) == (slice(5, 7), slice(5, 6), slice(None))
