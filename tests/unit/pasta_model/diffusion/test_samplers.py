# SPDX-License-Identifier: Apache-2.0
"""Solvers: pure, and exact where the answer is known; clipping by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pasta_model.diffusion.samplers import SOLVERS, clip_dynamically
from pasta_model.diffusion.schedule import Schedule
from pasta_model.sections import DiffusionSettings

SCHEDULE = Schedule(DiffusionSettings())
NOISE = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("solver", SOLVERS)
def test_network_that_knows_the_answer_is_shown_exactly_its_noising(solver: str) -> None:
    known, seen = torch.linspace(-1, 1, 6).reshape(2, 3), {}
    timesteps = SCHEDULE.sampling_timesteps(7)

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        seen[timestep] = x
        return known

    assert torch.equal(SOLVERS[solver](predict, NOISE, timesteps, schedule=SCHEDULE), known)
    assert list(seen) == timesteps
    assert torch.equal(seen[timesteps[0]], NOISE)
    # All x_t lie on one trajectory: x_0 with the noise that the first x_t implies.
    first = SCHEDULE.alphas_cumprod[timesteps[0]]
    noise = (NOISE - first**0.5 * known) / (1 - first) ** 0.5
    for timestep in timesteps[1:]:
        a = SCHEDULE.alphas_cumprod[timestep]
        torch.testing.assert_close(seen[timestep], (a**0.5 * known + (1 - a) ** 0.5 * noise).float())


@pytest.mark.parametrize("solver", SOLVERS)
def test_draws_nothing_and_changes_nothing(solver: str) -> None:
    before, noise = torch.random.get_rng_state(), NOISE.clone()
    sample = SOLVERS[solver]
    results = [sample(lambda x, t: 0.9 * x, NOISE, [990, 500, 0], schedule=SCHEDULE) for _ in range(2)]
    assert torch.equal(*results)
    assert torch.equal(NOISE, noise)
    assert torch.equal(before, torch.random.get_rng_state())


class TestClipping:
    x0 = torch.tensor([[-4.0, 0.5, 1.0, -2.0], [0.0, 3.0, -0.25, 8.0]])  # sizes: 0 .25 .5 1 2 3 4 8

    @pytest.mark.parametrize(
        ("quantile", "bound"),
        [(0.125, 1), (0.5, 1), (0.625, 2), (0.7, 3), (0.75, 3), (0.76, 4), (0.875, 4), (1.0, 8)],
    )
    def test_by_hand(self, quantile: float, bound: float) -> None:
        wanted = torch.tensor([[max(-bound, min(bound, v)) for v in row] for row in self.x0.tolist()])
        assert torch.equal(clip_dynamically(self.x0, quantile), wanted)

    def test_none_is_the_default(self) -> None:
        assert torch.equal(clip_dynamically(self.x0, 0.0), self.x0)

    @given(arrays(np.float32, (3, 7), elements=st.floats(-50, 50, width=32)), st.floats(0.01, 1))
    def test_bound_is_numpys_quantile_and_values_are_not_rescaled(self, x0: np.ndarray, q: float) -> None:
        bound = max(1.0, float(np.quantile(np.abs(x0), q, method="inverted_cdf")))
        found = clip_dynamically(torch.from_numpy(x0), q)
        np.testing.assert_array_equal(found.numpy(), np.clip(x0, -np.float32(bound), np.float32(bound)))

    def test_volume_of_any_size(self) -> None:
        # torch.quantile refuses more than 16 million values.
        volume = torch.full((17_000_000,), 0.5)
        volume[:1000] = 4.0
        assert clip_dynamically(volume, 0.999).max() == 1
