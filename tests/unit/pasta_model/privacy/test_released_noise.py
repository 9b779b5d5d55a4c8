# SPDX-License-Identifier: Apache-2.0
"""The noise that a site really releases: on a CPU, a stream cipher's, on a grid."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from pasta_model.privacy.mechanism import Mechanism

SIGMA, CLIP, EXPECTED = 2.0, 0.5, 4.0
SPREAD = SIGMA * CLIP / EXPECTED


def released(steps: int, *, sigma: float = SIGMA, gradient: float = 0.0) -> list[np.ndarray]:
    """What the optimizer is given in each of so many steps, over 20,000 weights."""
    weight = nn.Parameter(torch.zeros(100, 200))
    seen: list[np.ndarray] = []
    mechanism = Mechanism(
        torch.optim.SGD([weight], lr=1.0),
        noise_multiplier=sigma,
        max_grad_norm=CLIP,
        expected_subjects=EXPECTED,
        on_release=lambda gradients: seen.append(gradients[0].numpy().copy().ravel()),
    )
    for _ in range(steps):
        if gradient:
            weight.grad = torch.full_like(weight, gradient)
            mechanism.add()
        mechanism.step()
    return seen


def test_an_empty_step_releases_normal_noise_of_the_right_spread() -> None:
    (noise,) = released(1)
    assert stats.kstest(noise / SPREAD, "norm").pvalue > 1e-6
    assert abs(noise.std() / SPREAD - 1) < 0.03  # six standard errors


def test_noise_is_on_a_grid_whatever_the_gradient() -> None:
    """The low bits say nothing about the sum: the grid is 2^-20 of the power of two below its spread."""
    grid = 2.0**-20 * 2.0 ** np.floor(np.log2(SIGMA * CLIP)) / EXPECTED
    for noise in (*released(1), *released(1, gradient=3e-4)):
        steps = noise.astype(np.float64) / grid
        np.testing.assert_array_equal(steps, np.round(steps))


def test_no_two_steps_share_noise() -> None:
    first, second = released(2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05  # seven standard errors


def test_the_clipped_gradient_is_in_it() -> None:
    (found,) = released(1, gradient=1.0)
    wanted = CLIP / np.sqrt(20_000) / EXPECTED
    assert found.mean() == pytest.approx(wanted, abs=6 * SPREAD / np.sqrt(20_000))


def test_without_noise_the_clipped_sum_is_exact() -> None:
    (found,) = released(1, sigma=0.0, gradient=1.0)
    np.testing.assert_allclose(found, CLIP / np.sqrt(20_000) / EXPECTED, rtol=1e-5)
