# SPDX-License-Identifier: Apache-2.0
"""The loss of one pass, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.diffusion.losses import metaroi_weight, pass_loss, ssim, weighted_l1

OPEN = torch.Generator().manual_seed(3)
SLAB = torch.rand(2, 3, 14, 12, generator=OPEN) * 2 - 1


@given(st.floats(0, 1, width=32), st.floats(0, 20))
def test_weights_lie_between_one_and_one_plus_strength(m: float, strength: float) -> None:
    weight = metaroi_weight(torch.tensor(m), strength=strength).item()
    assert 1 <= weight <= 1 + strength + 1e-4
    assert weight == pytest.approx(1 + strength * m, rel=1e-5)


def test_soft_borders_weigh_more_than_the_outside() -> None:
    # METHOD, fault 6: 9 m alone would give 0.9 and 4.5 here.
    border = torch.tensor([0.0, 0.1, 0.5, 1.0])
    torch.testing.assert_close(metaroi_weight(border, strength=9.0), torch.tensor([1.0, 1.9, 5.5, 10.0]))


def test_weighted_l1_by_hand() -> None:
    target, prediction = torch.tensor([1.0, -1.0, 0.0, 0.5]), torch.tensor([0.0, 0.0, 0.0, 0.0])
    assert weighted_l1(target, prediction, torch.tensor([10.0, 1, 5, 2])).item() == pytest.approx(3.0)


class TestSsim:
    def test_of_itself_is_one(self) -> None:
        assert ssim(SLAB, SLAB).item() == pytest.approx(1.0, abs=1e-5)

    @pytest.mark.parametrize(("x", "y"), [(0.0, 0.5), (-1.0, 1.0), (0.25, 0.25)])
    def test_of_constants_by_hand(self, x: float, y: float) -> None:
        # No variance: only the luminance term is left, C1 = (0.01 x 2)^2.
        c1 = 4e-4
        wanted = (2 * x * y + c1) / (x * x + y * y + c1)
        found = ssim(torch.full((1, 2, 12, 13), x), torch.full((1, 2, 12, 13), y))
        assert found.item() == pytest.approx(wanted, abs=2e-3)

    def test_is_the_mean_over_slices(self) -> None:
        other = SLAB.flip(-1)
        each = [
            ssim(SLAB[b : b + 1, s : s + 1], other[b : b + 1, s : s + 1]) for b in range(2) for s in range(3)
        ]
        assert ssim(SLAB, other).item() == pytest.approx(torch.stack(each).mean().item(), abs=1e-6)

    def test_can_be_trained_after_it_was_measured(self) -> None:
        # A window made while measuring (inference mode) must not stay in the way of a gradient.
        shape = (1, 1, 17, 19)
        with torch.inference_mode():
            ssim(torch.zeros(shape), torch.zeros(shape))
        x = torch.full(shape, 0.3, requires_grad=True)
        ssim(torch.zeros(shape), x).backward()
        assert x.grad is not None


def test_pass_loss_by_hand() -> None:
    target = SLAB.clone()
    metaroi = torch.zeros_like(target)
    metaroi[:, :, :7] = 1.0  # half of the pixels weigh 10, half weigh 1
    x0, preview = target.clone(), target + 0.2
    # x0 is perfect: only 0.1 x mean(W 0.2) = 0.1 x 5.5 x 0.2 is left.
    found = pass_loss(target, x0, preview, metaroi, strength=9.0, task=0.1)
    assert found.item() == pytest.approx(0.11, abs=1e-4)
    # A constant shift of 0.3 in x0 alone: 5.5 x 0.3, and the structural term.
    found = pass_loss(target, target + 0.3, target, metaroi, strength=9.0, task=0.1)
    assert found.item() == pytest.approx(1.65 + 1 - ssim(target, target + 0.3).item(), abs=1e-4)
    assert ssim(target, target + 0.3).item() < 0.99
