# SPDX-License-Identifier: Apache-2.0
"""The loss' structural similarity against torchmetrics."""

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from pasta_model.diffusion.losses import ssim


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 5, 24, 30, generator=generator) * 2 - 1
    return target, (target + 0.3 * torch.randn(target.shape, generator=generator)).clamp(-1, 1)


def oracle(target: torch.Tensor, prediction: torch.Tensor, data_range: float) -> torch.Tensor:
    """Over whole windows only: torchmetrics pads by reflection, so its border of 5 pixels is left out."""
    flat = [slab.reshape(-1, 1, *slab.shape[-2:]).double() for slab in (target, prediction)]
    _, image = structural_similarity_index_measure(
        flat[1], flat[0], data_range=data_range, sigma=1.5, return_full_image=True
    )
    return image[..., 5:-5, 5:-5].mean()


def test_range_is_two(pair) -> None:
    assert ssim(*pair).item() == pytest.approx(oracle(*pair, 2.0).item(), abs=1e-5)


def test_constants_for_range_one_would_be_noticed(pair) -> None:
    assert abs(ssim(*pair).item() - oracle(*pair, 1.0).item()) > 1e-3


def test_bfloat16_is_computed_in_float32(pair) -> None:
    target, prediction = (slab.bfloat16() for slab in pair)
    found = ssim(target, prediction)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(oracle(target.float(), prediction.float(), 2.0).item(), abs=1e-5)
