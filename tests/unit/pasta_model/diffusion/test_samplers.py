# SPDX-License-Identifier: Apache-2.0
"""DDIM: pure, and exact where the answer is known."""

import torch

from pasta_model.diffusion.samplers import ddim
from pasta_model.diffusion.schedule import Schedule
from pasta_model.sections import DiffusionSettings

SCHEDULE = Schedule(DiffusionSettings())
NOISE = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def test_network_that_knows_the_answer_is_shown_exactly_its_noising() -> None:
    known, seen = torch.linspace(-1, 1, 6).reshape(2, 3), {}
    timesteps = SCHEDULE.sampling_timesteps(7)

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        seen[timestep] = x
        return known

    assert torch.equal(ddim(predict, NOISE, timesteps, schedule=SCHEDULE), known)
    assert list(seen) == timesteps
    assert torch.equal(seen[timesteps[0]], NOISE)
    # All x_t lie on one trajectory: x_0 with the noise that the first x_t implies.
    first = SCHEDULE.alphas_cumprod[timesteps[0]]
    noise = (NOISE - first**0.5 * known) / (1 - first) ** 0.5
    for timestep in timesteps[1:]:
        a = SCHEDULE.alphas_cumprod[timestep]
        torch.testing.assert_close(seen[timestep], (a**0.5 * known + (1 - a) ** 0.5 * noise).float())


def test_draws_nothing_and_changes_nothing() -> None:
    before, noise = torch.random.get_rng_state(), NOISE.clone()
    results = [ddim(lambda x, t: 0.9 * x, NOISE, [990, 500, 0], schedule=SCHEDULE) for _ in range(2)]
    assert torch.equal(*results)
    assert torch.equal(NOISE, noise)
    assert torch.equal(before, torch.random.get_rng_state())
